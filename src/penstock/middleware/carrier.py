"""The connection that messages to one URL take: borrowed when one is needed, replaced when it breaks, then returned."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from weakref import WeakSet

from penstock.connection.connection import Connection
from penstock.connection.session import SessionTransport
from penstock.errors import DeliveryUnknown, PerformanceError
from penstock.errors.urls import shown_url
from penstock.pool.lease import PooledConnection
from penstock.transport.base import ConnectionClosed, ConnectionClosedOK, Data, State
from penstock.wire.outgoing import Outgoing

logger = logging.getLogger("penstock.middleware")

PATIENCE = 1.0
"""Seconds that ``on_message`` has to end once it is cancelled, and ``on_undelivered`` when the middleware is closed."""

OnMessage = Callable[[str, Data], Awaitable[object] | None]
OnUndelivered = Callable[[str, Sequence[Data]], Awaitable[object] | None]


class Carrier:
    """Holds the connection of one URL.

    Args:
        borrow: asks for a connection.
        on_message: gets what the server sends; None drops it, counted as ``unread``.
        on_undelivered: gets messages of which it is not known whether they arrived, when a session has ended.
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
        self.shown = shown_url(url)
        """The URL as it may be logged."""
        self.connection: Connection | None = None
        self.is_opening = False
        """Whether somebody waits for a connection."""
        self.unread = 0
        """Messages that the server sent, and nobody wanted."""
        self.breaks = 0
        """Connections that ended otherwise than in order."""
        self.undelivered = 0
        """Messages of which it is not known whether they arrived, of sessions that have ended."""
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
        self._handing_back: set[asyncio.Task[None]] = set()
        """What ``on_undelivered`` still does."""
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

    def lost(self, exc: ConnectionClosed | DeliveryUnknown) -> None:
        """The connection has ended, as its `settle` told."""
        connection = self.connection
        self.gone(None)
        if connection is not None:
            self._tell(connection, exc)

    def _tell(self, connection: Connection, exc: ConnectionClosed | DeliveryUnknown) -> None:
        """Tell of the end of a connection, once, if something may have been lost with it."""
        if connection in self._told:
            return
        self._told.add(connection)
        is_orderly = isinstance(exc, ConnectionClosedOK | DeliveryUnknown)
        self.breaks += not is_orderly
        outgoing = _outgoing(connection)
        if outgoing is None:
            if not is_orderly:
                logger.warning(
                    "the connection to %s broke (%s): what was sent on it last may not have arrived", self.shown, exc
                )
            return
        messages = outgoing.unacknowledged()
        if messages or not is_orderly:
            self._hand_back(messages, DeliveryUnknown(messages) if is_orderly else exc)

    def _hand_back(self, messages: Sequence[Data], why: object) -> None:
        self.undelivered += len(messages)
        logger.error("%s: %s", self.shown, why)
        if self._on_undelivered is None:
            return
        try:
            waiting = self._on_undelivered(self.url, messages)
        except Exception:
            logger.exception("on_undelivered failed for %s", self.shown)
            return
        if waiting is not None:
            task = asyncio.get_running_loop().create_task(self._handed_back(waiting))
            self._handing_back.add(task)
            task.add_done_callback(self._handing_back.discard)

    async def _handed_back(self, waiting: Awaitable[object]) -> None:
        try:
            await waiting
        except Exception:
            logger.exception("on_undelivered failed for %s", self.shown)

    @property
    def kept_bytes(self) -> int:
        """Bytes that the connection keeps because the server has not acknowledged them; 0 where it never does."""
        outgoing = None if self.connection is None else _outgoing(self.connection)
        return 0 if outgoing is None else outgoing.kept_bytes

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

    async def close(self) -> None:
        """Drop the connection, if there is one, and read no more; ``on_undelivered`` has a moment to end."""
        connection = self.connection
        self.gone(None)
        outgoing = None if connection is None or connection in self._told else _outgoing(connection)
        if outgoing is not None and (messages := outgoing.unacknowledged()):
            self._hand_back(
                messages, f"closed before the server had told that it took the last {len(messages)} messages"
            )
        for reader in self._leaving:
            reader.cancel()
        if self._handing_back:
            await asyncio.wait(self._handing_back, timeout=PATIENCE)
        for task in self._handing_back:
            task.cancel()


def _outgoing(connection: Connection) -> Outgoing | None:
    """What a connection keeps until it is acknowledged; None where it is not."""
    transport = connection.outbox.transport
    return transport.session.outgoing if isinstance(transport, SessionTransport) else None
