"""How a pool is bounded, how long its connections live, and how long anybody waits."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

_COUNTS = {
    "max_connections": 1,
    "min_connections": 0,
    "max_total": 1,
    "max_waiting": 0,
    "max_request_count": 0,
    "max_connecting": 1,
}
_SECONDS = {
    "acquire_timeout": 0.0,
    "connect_timeout": 0.0,
    "max_idle_time": 0.0,
    "max_lifetime": 0.0,
    "check_interval": 0.0,
    "pong_timeout": 0.0,
}
"""Seconds that have to be above this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPoolConfig:
    """A pool's bounds.

    Raises:
        ValueError: a field is out of bounds; the message names the field, its value and the bound.
    """

    max_connections: int = 10
    """Connections for each URL, those that are being opened or closed among them."""
    min_connections: int = 2
    """Connections that are kept for a URL once it has been used."""
    max_total: int = 100
    """Connections for all URLs together."""
    max_waiting: int = 1024
    """Callers that may wait for a connection; the next is refused at once."""
    acquire_timeout: float = 10.0
    """Seconds that a caller waits for a connection."""
    connect_timeout: float = 10.0
    """Seconds that opening a connection may take."""
    max_connecting: int = 4
    """Connections that are being opened to one host at a time."""
    max_idle_time: float = 300.0
    """Seconds after which a connection that nobody uses is closed, down to `min_connections`."""
    max_request_count: int = 0
    """Loans after which a connection is closed; 0 for no limit."""
    max_lifetime: float = 3600.0
    """Seconds after which a connection is replaced, less up to a tenth by chance."""
    check_interval: float = 20.0
    """Seconds between checks of a connection from which nothing has been heard."""
    pong_timeout: float = 10.0
    """Seconds that the answer to a check may take."""
    on_dirty: Literal["close", "drain"] = "close"
    """What becomes of a connection that is returned with unread messages: close it, or drop them."""

    def __post_init__(self) -> None:
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r}: must be a whole number of at least {least}")
        for name in _SECONDS:
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value <= inf:
                raise ValueError(f"{name}={value!r}: must be more than 0 seconds")
        if self.on_dirty not in ("close", "drain"):
            raise ValueError(f"on_dirty={self.on_dirty!r}: must be 'close' or 'drain'")
        if self.min_connections > self.max_connections:
            raise ValueError(
                f"min_connections={self.min_connections}: must be at most max_connections={self.max_connections}"
            )
        if self.max_connections > self.max_total:
            raise ValueError(f"max_connections={self.max_connections}: must be at most max_total={self.max_total}")
