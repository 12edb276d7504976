"""How a pool is bounded, how long its connections live, and how long anybody waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Literal, cast

_FITTING = cast("int", None)
"""A default that depends on another field."""

_COUNTS = {
    "max_connections": 1,
    "min_connections": 0,
    "max_total": 1,
    "max_waiting": 0,
    "max_request_count": 0,
    "max_connecting": 1,
    "shared_capacity": 1,
}
_AMOUNTS = {
    "acquire_timeout": "seconds",
    "connect_timeout": "seconds",
    "max_idle_time": "seconds",
    "max_lifetime": "seconds",
    "check_interval": "seconds",
    "pong_timeout": "seconds",
    "lease_warning": "seconds",
    "connect_rate": "connections a second",
}
"""Seconds and rates that have to be above this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionPoolConfig:
    """A pool's bounds.

    Raises:
        ValueError: a field is out of bounds; the message names the field, its value and the bound.
    """

    max_connections: int = 10
    """Connections for each URL, those that are being opened or closed among them."""
    min_connections: int = _FITTING
    """Connections that are kept for a URL once it has been used; 2 by default, or `max_connections` if that is less.
    None are kept with ``additional_headers``: the tokens in them age."""
    max_total: int = _FITTING
    """Connections for all URLs together; 100 by default, or `max_connections` if that is more."""
    max_waiting: int = 1024
    """Callers that may wait where no connection may be opened for them; the next is refused at once."""
    acquire_timeout: float = 10.0
    """Seconds that a caller waits for a connection."""
    connect_timeout: float = 10.0
    """Seconds that opening a connection may take."""
    max_connecting: int = 4
    """Connections that are being opened to one host at a time."""
    connect_rate: float = field(default=500.0, metadata={"unit": "connections a second"})
    """Connections a second that are opened to one host at most; about what a core does in TLS handshakes."""
    shared_capacity: int = 100
    """Weight of the loans that share one connection; see ``shared`` of `ConnectionPool.get_connection`."""
    max_idle_time: float = 300.0
    """Seconds after which a connection that nobody uses is closed, down to `min_connections`."""
    max_request_count: int = 0
    """Loans after which a connection is closed; 0 for no limit."""
    max_lifetime: float = 3600.0
    """Seconds after which a connection is replaced, less up to a tenth by chance."""
    lease_warning: float | None = None
    """Seconds after which a loan is logged that was not returned, with the place where it was taken; costs a look at
    the stack for each loan. Of a shared connection: that it has been shared for so long without a break."""
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
            self._fit()
        for name, unit in _AMOUNTS.items():
            value = getattr(self, name)
            if value is None and name == "lease_warning":
                continue
            if not isinstance(value, int | float) or not 0 < value <= inf:
                raise ValueError(f"{name}={value!r}: must be a number of {unit}, more than 0")
        self._check_relations()

    def check_most(self, max_connections: int) -> None:
        """Raise ValueError unless the pool may be made to have so many connections for each URL."""
        if not isinstance(max_connections, int) or max_connections < 1:
            raise ValueError(f"max_connections={max_connections!r}: must be a whole number of at least 1")
        if max_connections > self.max_total:
            raise ValueError(f"max_connections={max_connections}: must be at most max_total={self.max_total}")

    def _fit(self) -> None:
        """Once `max_connections` is known to be a number: the defaults that depend on it."""
        if self.min_connections is _FITTING:
            object.__setattr__(self, "min_connections", min(2, self.max_connections))
        if self.max_total is _FITTING:
            object.__setattr__(self, "max_total", max(100, self.max_connections))

    def _check_relations(self) -> None:
        if self.on_dirty not in ("close", "drain"):
            raise ValueError(f"on_dirty={self.on_dirty!r}: must be 'close' or 'drain'")
        if self.min_connections > self.max_connections:
            raise ValueError(
                f"min_connections={self.min_connections}: must be at most max_connections={self.max_connections}"
            )
        self.check_most(self.max_connections)
