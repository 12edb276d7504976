"""A penstock connection over each transport, at each end, and a peer that is not penstock's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import websockets
from websockets.asyncio.connection import Connection as Plain
from websockets.protocol import Protocol, Side

import penstock
from penstock.batch.policy import BatchConfig
from penstock.connection.connection import Connection
from penstock.transport.base import ConnectionClosed, Options, State
from penstock.transport.memory import MemoryEndpoint, Pipe
from support.rawpeer import RawPeer
from support.servers import url_of

DEADLINE = 10
"""Seconds that a connection may be used by a test: nothing may hang."""
PEER: dict[str, Any] = {"ping_interval": None, "max_size": None, "compression": None, "close_timeout": 5}
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Link:
    """Opens connections, one ``async with`` each; which yields ours and the peer, and leaves nothing open."""

    transport: str
    end: str
    """``"client"`` or ``"server"``: which end is ours."""

    @property
    def is_client(self) -> bool:
        return self.end == "client"

    def __call__(
        self, *, peer: dict[str, Any] | None = None, **options: Any
    ) -> AbstractAsyncContextManager[tuple[Connection, Any]]:
        """To a plain connection of ``websockets`` with options of its own."""
        of_peer = {**PEER, **(peer or {})}
        if self.transport == "memory":
            return self._kept(self._memory_to_plain(of_peer, options))
        if self.is_client:
            return self._kept(self._client_to_plain(of_peer, options))
        return self._kept(self._server_to_plain(of_peer, options))

    def raw(self, *, deflate: bool = False, **options: Any) -> AbstractAsyncContextManager[tuple[Connection, RawPeer]]:
        """To a peer that knows no rules."""
        if deflate:
            options["compression"] = "deflate"
        if self.transport == "memory":
            return self._kept(self._memory_to_raw(options))
        if self.is_client:
            return self._kept(self._client_to_raw(deflate, options))
        return self._kept(self._server_to_raw(deflate, options))

    @asynccontextmanager
    async def _kept(self, opening: AbstractAsyncContextManager[tuple[Any, Any]]) -> AsyncIterator[tuple[Any, Any]]:
        async with asyncio.timeout(DEADLINE), opening as (conn, peer):
            try:
                yield conn, peer
            finally:
                with contextlib.suppress(AttributeError):  # the socket was never there, or is gone
                    conn.transport.resume_reading()
                    peer.transport.resume_reading()
                if conn.state is not State.CLOSED:
                    conn.transport.abort()
                if not (peer.ended if isinstance(peer, RawPeer) else peer.connection_lost_waiter.done()):
                    peer.transport.abort()
                await conn.wait_closed()
                await peer.wait_closed()

    # Over sockets

    @asynccontextmanager
    async def _client_to_plain(self, peer: dict[str, Any], options: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
        handler = _Handler()
        async with (
            websockets.serve(handler, HOST, 0, **peer) as server,
            handler,
            penstock.connect(url_of(server), transport=self.transport, **options) as conn,
        ):
            yield conn, await handler.connection

    @asynccontextmanager
    async def _server_to_plain(self, peer: dict[str, Any], options: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
        handler = _Handler()
        async with (
            penstock.serve(handler, HOST, 0, transport=self.transport, **options) as server,
            handler,
            websockets.connect(url_of(server), **peer) as plain,
        ):
            yield await handler.connection, plain

    @asynccontextmanager
    async def _client_to_raw(self, deflate: bool, options: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
        raw = RawPeer(client=False, deflate=deflate)
        server = await asyncio.get_running_loop().create_server(lambda: raw, HOST, 0)
        async with server, penstock.connect(url_of(server), transport=self.transport, **options) as conn:
            server.close()
            yield conn, raw

    @asynccontextmanager
    async def _server_to_raw(self, deflate: bool, options: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
        handler = _Handler()
        async with (
            penstock.serve(handler, HOST, 0, transport=self.transport, **options) as server,
            handler,
        ):
            raw = RawPeer(client=True, url=url_of(server), deflate=deflate)
            await asyncio.get_running_loop().create_connection(lambda: raw, *server.sockets[0].getsockname())
            await raw.opened
            yield await handler.connection, raw

    # In memory

    @asynccontextmanager
    async def _memory_to_plain(self, peer: dict[str, Any], options: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
        sides = (Side.CLIENT, Side.SERVER) if self.is_client else (Side.SERVER, Side.CLIENT)
        protocol = Protocol(sides[1], max_size=peer.pop("max_size"))
        del peer["compression"]
        plain = Plain(protocol, **peer)
        conn, far = self._in_memory(sides[0], _Above(plain), options)
        plain.connection_made(far)
        plain.start_keepalive()
        yield conn, plain

    @asynccontextmanager
    async def _memory_to_raw(self, options: dict[str, Any]) -> AsyncIterator[tuple[Any, Any]]:
        raw = RawPeer(client=not self.is_client, handshake=False)
        conn, far = self._in_memory(Side.CLIENT if self.is_client else Side.SERVER, raw, options)
        raw.connection_made(far)
        yield conn, raw

    def _in_memory(self, side: Side, above: Any, given: dict[str, Any]) -> tuple[Connection, Pipe]:
        """Our connection, and the far end of its pipe with ``above`` on top."""
        of_connection = {"batch": given.pop("batch", BatchConfig()), "optimize": given.pop("optimize", True)}
        options = Options(**given)
        loop = asyncio.get_running_loop()
        near, far = Pipe(loop), Pipe(loop)
        near.peer, far.peer = far, near
        protocol = Protocol(side, max_size=options.max_size, logger=options.logger)
        near.endpoint = endpoint = MemoryEndpoint(protocol, options)
        far.endpoint = above
        endpoint.opened(near)
        return Connection(endpoint, **of_connection), far


class _Above:
    """What a `Pipe` expects above it, on a connection of ``websockets``."""

    def __init__(self, plain: Plain) -> None:
        self.data_received = plain.data_received
        self.pause_writing, self.resume_writing = plain.pause_writing, plain.resume_writing
        self._plain = plain

    def lost(self) -> None:
        self._plain.connection_lost(None)


class _Handler:
    """Hands a server's connection to the test, and keeps it until the test is over."""

    def __init__(self) -> None:
        self.connection: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()

    async def __call__(self, connection: Any) -> None:
        self.connection.set_result(connection)
        await self._over.wait()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc: object) -> None:
        self._over.set()


async def end_of(conn: Any) -> ConnectionClosed:
    """Receive to the end: what the closed connection raises."""
    return (await rest_of(conn))[1]


async def rest_of(conn: Any) -> tuple[list[Any], ConnectionClosed]:
    """All messages that can still be received, and what comes behind them."""
    messages = []
    try:
        while True:
            messages.append(await conn.recv())
    except ConnectionClosed as end:
        return messages, end


def squeeze(*ends: Any) -> None:
    """Make the socket buffers of these ends small, so that a few messages fill them."""
    for end in ends:
        sock = end.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
