"""Connections at a server's end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from penstock.batch.policy import BatchConfig
from penstock.connection.connection import Connection
from penstock.connection.latest import inner_subprotocol
from penstock.connection.reliable import ReliableConnection
from penstock.server.negotiation import hello_of
from penstock.transport.base import ConcurrencyError, ConnectionClosed, Data, Response, Subprotocol, Transport
from penstock.wire.envelope import BAD_FRAME

if TYPE_CHECKING:
    from penstock.server.serve import Server


class ServerConnection(Connection):
    """A connection at the server's end."""

    def __init__(self, transport: Transport, batch: BatchConfig, *, optimize: bool, server: Server) -> None:
        super().__init__(transport, batch, optimize=optimize)
        self.server = server
        self.username: str
        """Set by ``websockets.basic_auth``."""

    @property
    def subprotocol(self) -> Subprotocol | None:
        """What was negotiated for the application, if anything."""
        return inner_subprotocol(self._transport.subprotocol)

    @property
    def inner(self) -> Transport:
        """What carries it now."""
        return self._transport

    def respond(self, status: int, text: str) -> Response:
        """A plain-text HTTP response, for ``process_request`` and ``process_response`` to refuse with."""
        return self._transport.reject(status, text)


class SilentServerConnection(ServerConnection):
    """One whose client has offered the envelope, and then said nothing: its first message may still be HELLO.

    It was told by silence that it is not understood, and would wait for an answer: so it is closed as soon as HELLO
    comes, whether the handler receives or not.
    """

    _first: asyncio.Task[None]
    """Takes the first message, and puts it back if it is none of ours."""
    _is_awaited: bool

    @classmethod
    def look_out(cls, connection: ServerConnection) -> None:
        """Let it be one of these until its first message has come, and was looked at."""
        connection.__class__ = cls
        assert isinstance(connection, cls)
        connection._is_awaited = False
        connection._first = connection.inner.loop.create_task(connection._look_at_first(connection.inner))

    async def _look_at_first(self, inner: Transport) -> None:
        try:
            message = await inner.recv()
        except ConnectionClosed:
            return  # who receives is told
        finally:
            self.__class__ = ServerConnection  # type: ignore[assignment]
        if isinstance(message, bytes) and hello_of(message) is not None:
            self.fail(BAD_FRAME, "HELLO came too late")
        else:
            inner.put_back(message)

    async def _looked_at(self) -> None:
        if self._is_awaited:
            raise ConcurrencyError("cannot receive while another coroutine is receiving")
        self._is_awaited = True
        try:
            await asyncio.wait({self._first})
        finally:
            self._is_awaited = False

    async def recv(self, decode: bool | None = None) -> Any:
        """See `Connection.recv`."""
        await self._looked_at()
        return await self._transport.recv(decode)

    async def recv_many(self, max: int | None = None) -> list[Data]:  # noqa: A002
        """See `Connection.recv_many`."""
        await self._looked_at()
        return await self._transport.recv_many(max)

    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        """See `Connection.recv_streaming`."""
        await self._looked_at()
        async for piece in self._transport.recv_streaming(decode):
            yield piece

    async def __aiter__(self) -> AsyncIterator[Data]:
        await self._looked_at()
        async for message in self._transport.messages():
            yield message


class ReliableServerConnection(ReliableConnection, ServerConnection):
    """The same, over a session."""
