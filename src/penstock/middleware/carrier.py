"""The connection that messages to one URL take: borrowed when one is needed, replaced when it breaks, then returned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from weakref import WeakSet

from penstock.connection.connection import Connection
from penstock.errors import PerformanceError, SessionLost
from penstock.pool.lease import PooledConnection
from penstock.transport.base import ConnectionClosed, ConnectionClosedOK, Data, State, parse_uri, without_credentials

logger = logging.getLogger("penstock.middleware")

PATIENCE = 1.0
"""Seconds that ``on_message`` has to end once it is cancelled."""

OnMessage = Callable[[str, Data], Awaitable[object] | None]
OnUndelivered = Callable[[str, Sequence[Data]], object]


class Carrier:
    """Holds the connection of one URL.

    Args:
        borrow: asks for a connection.
        on_message: gets what the server sends; None drops it, counted as ``unread``.
        on_undelivered: gets messages of which it is not known whether they arrived, when a session is lost.
        on_gone: called when the connection is gone, or was returned.
    """

    def __init__(
        self,
        url: str,
        borrow: Callable[[], Awaitable[PooledConnection]],
        *,
        on_message: OnMessage | None,
        on_undelivered: OnUndelivered | None,
        on_gone: Callable[[], None],
    ) -> None:
        self.url = url
        self.shown = without_credentials(parse_uri(url))
        """The URL as it may be logged."""
        self.connection: Connection | None = None
        self.is_opening = False
        """Whether somebody waits for a connection."""
        self.unread = 0
        """Messages that the server sent, and nobody wanted."""
        self.breaks = 0
        """Connections that ended otherwise than in order."""
        self.undelivered = 0
        """Messages of which it is not known whether they arrived, of lost sessions."""
        self._borrow, self._on_message, self._on_undelivered, self._on_gone = (
            borrow,
            on_message,
            on_undelivered,
            on_gone,
        )
        self.received = 0
        """Messages that the server sent."""
        self.is_handing_over = False
        """Whether ``on_message`` is at work."""
        self._lease: PooledConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        """Those that read what is left of connections that have ended."""
        self._told: WeakSet[Connection] = WeakSet()
        """Connections of whose end was told, by whoever noticed it first."""

    async def ready(self) -> Connection:
        """The connection, borrowed now if there is none; one caller at a time. Raises as `ConnectionPool`."""
        connection = self.connection
        if connection is not None:
            if connection.state is State.OPEN:
                return connection
            self.gone(None)
        self.is_opening = True
        try:
            lease = await self._borrow()
        finally:
            self.is_opening = False
        self._lease = lease
        self.connection = connection = lease.connection
        self._reader = asyncio.get_running_loop().create_task(self._read(connection))
        return connection

    async def _read(self, connection: Connection) -> None:
        """Take what the server sends, so that it can go on reading; notice when it closes."""
        try:
            while True:
                message = await connection.recv()
                self.received += 1
                if self._on_message is None:
                    self._drop(connection)
                else:
                    await self._hand_over(message)
        except ConnectionClosed as exc:
            if self.connection is connection:
                self.gone(exc)
            else:
                self._tell(connection, exc)
        except Exception:
            logger.exception("reading from %s failed: another connection is taken", self.shown)
            if self.connection is connection:
                self.gone(None)

    def _drop(self, connection: Connection) -> None:
        if not self.unread:
            logger.warning("%s sends messages, and there is no on_message for them: they are dropped", self.shown)
        self.unread += 1 + connection.discard_unread()

    async def _hand_over(self, message: Data) -> None:
        assert self._on_message is not None
        self.is_handing_over = True
        try:
            waiting = self._on_message(self.url, message)
            if waiting is not None:
                await waiting
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.exception("on_message was cancelled for a message from %s", self.shown)  # by itself
        except Exception:
            logger.exception("on_message failed for a message from %s", self.shown)
        finally:
            self.is_handing_over = False

    def gone(self, exc: ConnectionClosed | None) -> None:
        """The connection has ended; who lost what is told, and what had arrived is still handed over."""
        lease, self._lease = self._lease, None
        connection, self.connection = self.connection, None
        reader, self._reader = self._reader, None
        if reader is not None:
            self._leaving.add(reader)
            reader.add_done_callback(self._leaving.discard)
        self._on_gone()
        if lease is not None:
            lease.discard("broken")
        if connection is not None and exc is not None:
            self._tell(connection, exc)

    def _tell(self, connection: Connection, exc: ConnectionClosed) -> None:
        if isinstance(exc, ConnectionClosedOK) or connection in self._told:
            return
        self._told.add(connection)
        self.breaks += 1
        if not isinstance(exc, SessionLost):
            logger.warning(
                "the connection to %s broke (%s): what was sent on it last may not have arrived", self.shown, exc
            )
            return
        self.undelivered += len(exc.unacknowledged)
        logger.error("%s: %s", self.shown, exc)
        if self._on_undelivered is not None:
            try:
                self._on_undelivered(self.url, exc.unacknowledged)
            except Exception:
                logger.exception("on_undelivered failed for %s", self.shown)

    async def settle(self) -> None:
        """Wait until what was sent is written, and, where that is told, taken.

        Raises:
            ConnectionClosed, DeliveryUnknown: the connection ended before.
        """
        connection = self.connection
        if connection is not None and connection.state is State.OPEN:
            await connection.flush()
            if connection.is_reliable:
                await connection.delivered()

    async def rest(self) -> None:
        """Return the connection, once what was sent on it is written; cancelling returns it at once.

        An ``on_message`` that does not end when it is cancelled costs the connection.
        """
        reader, lease = self._reader, self._lease
        self._lease = self.connection = self._reader = None
        self._on_gone()
        if lease is None or reader is None:
            return
        is_own = reader is asyncio.current_task()
        reader.cancel()
        try:
            if not is_own:
                await asyncio.wait([reader], timeout=PATIENCE)
            await lease.flush()
        except (ConnectionClosed, PerformanceError):
            pass  # whoever has it next is not lent a closed one
        finally:
            if is_own or reader.done():
                lease.release()
            else:
                lease.discard("busy")

    def close(self) -> None:
        """Drop the connection, if there is one, and read no more."""
        self.gone(None)
        for reader in self._leaving:
            reader.cancel()
