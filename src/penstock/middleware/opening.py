"""Opening connections as the configuration says, and the plain way where a stage is bypassed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from penstock.config.performance import PerformanceConfig
from penstock.connection.accelerate import accelerate
from penstock.connection.connect import connect
from penstock.connection.connection import Connection
from penstock.errors import PerformanceError
from penstock.manager.manager import PerformanceManager
from penstock.manager.switch import Stage
from penstock.transport.base import ConnectionClosed, InvalidHandshake, InvalidURI
from penstock.wire.envelope import BadFrame

Connect = Callable[..., Awaitable[Any]]
"""Opens a connection that has the interface of those of ``websockets``."""
TransportLike = Literal["picows", "websockets"] | Connect


class Opening:
    """Opens connections.

    Args:
        transport: what reads frames below, or a function of yours that opens connections.
    """

    def __init__(self, config: PerformanceConfig, transport: TransportLike, manager: PerformanceManager) -> None:
        self._config, self._manager = config, manager
        self._transport: Any = transport
        self._is_ours = isinstance(transport, str)

    def options(self, url: str) -> dict[str, Any]:
        """What `penstock.connect` gets for a URL."""
        envelope = self._config.envelope
        is_on = self._manager.switch(Stage.ENVELOPE, url).is_on
        return {
            "transport": self._transport,
            "batch": self._config.batch,
            "reliable": envelope.reliable if is_on else False,
            "resume": envelope.resume,
            "on_session_lost": envelope.on_session_lost,
            "compression": envelope.compression,
            "send_timeout": envelope.send_timeout,
        }

    def connect(self, url: str, **options: Any) -> Awaitable[Connection]:
        """A connection of the application's own; `penstock.connect`, if the transport is ours."""
        if self._is_ours:
            return connect(url, **{**self.options(url), **options})
        return self._of_function(url, options)

    async def _of_function(self, url: str, options: dict[str, Any]) -> Connection:
        connection = await self._transport(url, **options)
        return connection if isinstance(connection, Connection) else accelerate(connection, batch=self._config.batch)

    async def open(self, url: str, **options: Any) -> Connection:
        """Open a connection; the plain way once more if the envelope is what fails.

        Raises:
            Exception: as `penstock.connect`, or what the function of yours raises.
        """
        if not self._is_ours:
            return await self._of_function(url, options)
        switch = self._manager.switch(Stage.ENVELOPE, url)
        given = {**self.options(url), **options}
        if given["reliable"] is False:
            return await connect(url, **given)
        try:
            connection = await connect(url, **given)
        except Exception as exc:
            if given["reliable"] or not _is_of_the_envelope(exc):
                raise
            self._manager.failed(switch, exc)
            return await connect(url, **{**given, "reliable": False})
        if switch.is_shaky:
            self._manager.worked(switch)
        return connection

    async def open_for_pool(self, url: str, **options: Any) -> Connection:
        """Open a connection that the pool watches: it asks by itself whether the peer is alive, and has a time-out."""
        if self._is_ours:
            options |= {"ping_interval": None, "open_timeout": None}
        return await self.open(url, **options)


def _is_of_the_envelope(exc: Exception) -> bool:
    """Whether a connection could not be opened for a reason that a plain one would not have."""
    if isinstance(exc, InvalidHandshake):
        return isinstance(exc.__cause__, BadFrame)
    ordinary = OSError | PerformanceError | ConnectionClosed | InvalidURI | TypeError | ValueError
    return not isinstance(exc, ordinary)
