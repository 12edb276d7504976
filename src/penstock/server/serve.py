"""The server side: a drop-in for ``websockets.serve``."""

from __future__ import annotations

import asyncio
import http
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable
from dataclasses import replace
from functools import cache
from inspect import isawaitable, signature
from types import TracebackType
from typing import Any, Literal, Self

from penstock.batch.policy import BatchConfig
from penstock.connection.options import refuse_unknown
from penstock.connection.session import SessionTransport
from penstock.metrics.traffic import Arrivals
from penstock.server.connections import ReliableServerConnection, ServerConnection, SilentServerConnection
from penstock.server.negotiation import agreed, greeting, offers, selecting
from penstock.server.sessions import TTL, Opening, SessionConfig, Sessions
from penstock.transport.base import (
    CloseCode,
    ConnectionClosed,
    Request,
    Response,
    ServerOptions,
    Transport,
    validate_subprotocols,
)
from penstock.wire.envelope import HEADER, VERSION, BadFrame, Hello
from penstock.wire.limits import limits_within

Handler = Callable[[ServerConnection], Awaitable[None]]

_MORE_NETWORK = {"unix", "keep_alive", "cleanup_socket", "ssl_incoming_bio_size", "ssl_outgoing_bio_size"}
"""What the event loop's ``create_server`` does not take, or not in all versions."""
_logger = logging.getLogger("penstock.server")

Principal = Callable[[ServerConnection], Any]


def username_of(connection: ServerConnection) -> Hashable:
    """Who has authenticated with ``websockets.basic_auth``; None for all others."""
    return getattr(connection, "username", None)


class Server:
    """What `serve` returns: ``await`` it, or ``async with`` it.

    Leaving the block closes it: no new connections, open ones closed with 1001 after what they accepted is written, and
    their handlers awaited.
    """

    def __init__(
        self,
        handler: Handler,
        listen: Callable[[Server], Awaitable[Any]],
        batch: BatchConfig,
        *,
        optimize: bool,
        logger: Any,
        sessions: Sessions | None,
        principal: Principal,
    ) -> None:
        self.handler = handler
        self._sessions, self._principal = sessions, principal
        self.logger = logger
        self._listen, self._batch, self._optimize = listen, batch, optimize
        self._listener: Any = None
        self._closing: asyncio.Task[None] | None = None
        self._all: set[ServerConnection] = set()
        self._negotiating: set[ServerConnection] = set()
        """Whose clients have offered the envelope, and not said yet whether they speak it."""
        self._handlers: set[asyncio.Task[None]] = set()
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def connections(self) -> set[ServerConnection]:
        """Those that are open; give it to `penstock.broadcast`."""
        return {connection for connection in self._all if not connection.outbox.ended}

    # What a transport asks and tells while it accepts

    def answering(self, request: Request, response: Response) -> None:
        succeeds = response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS
        if self._sessions is not None and succeeds and offers(request):
            response.headers[HEADER] = VERSION

    def connecting(self, transport: Transport) -> ServerConnection:
        return ServerConnection(transport, self._batch, optimize=self._optimize, server=self)

    def refusing(self) -> bool:
        return self._closing is not None or not self.is_serving()

    def opened(self, connection: ServerConnection) -> asyncio.Task[None]:
        if self._sessions is None or not agreed(connection.request, connection.response, connection.inner.subprotocol):
            self._all.add(connection)
            return self._spawn(self._run(connection))
        self._negotiating.add(connection)
        connection.inner.arrived = Arrivals()  # for now: frames of the envelope are no messages
        return self._spawn(self._negotiate(self._sessions, connection))

    async def _negotiate(self, sessions: Sessions, connection: ServerConnection) -> None:
        """See whether a client speaks the envelope as it says: a relay may have kept our answer from it."""
        try:
            hello = await greeting(connection.inner)
            if hello is not None:
                await self._open_session(sessions, connection, connection.inner, hello)
                return
        except TimeoutError:
            SilentServerConnection.look_out(connection)
        except ConnectionClosed:
            return  # nobody has met it; one that wants to resume has a handler
        finally:
            self._negotiating.discard(connection)
        inner = connection.inner
        inner.traffic.received.add(inner.arrived)
        inner.arrived = inner.traffic.received
        await self._run(connection)

    async def _open_session(
        self, sessions: Sessions, connection: ServerConnection, inner: Transport, hello: Hello
    ) -> None:
        """Begin a session, with a handler of its own that outlives this socket; or go on with one, for its handler."""

        def adopt(transport: SessionTransport) -> None:
            connection.__class__ = ReliableServerConnection
            connection.carry(transport, self._batch, optimize=self._optimize)
            self._all.add(connection)
            self._spawn(self._run(connection))

        client = Opening(inner, hello, adopt)
        try:
            principal = self._principal(connection)
            if isinstance(principal, Awaitable):
                principal = await principal
            await sessions.open(client, principal)
        except BadFrame as exc:
            inner.fail(exc.code, exc.reason)
        except Exception:
            self.logger.exception("opening a session failed")
            inner.fail(CloseCode.INTERNAL_ERROR, "")
        self._negotiating.discard(connection)
        await inner.wait_closed()

    async def _run(self, connection: ServerConnection) -> None:
        self._all.add(connection)
        try:
            async with connection:
                work = self.handler(connection)
                if not isawaitable(work):
                    raise TypeError(f"handler must be a coroutine function: {self.handler!r} returned {work!r}")
                await work
        except Exception:
            self.logger.exception("connection handler failed")
        finally:
            self._all.discard(connection)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.get_loop().create_task(work)
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        return task

    # The life of the server

    def close(self, close_connections: bool = True, code: int = CloseCode.GOING_AWAY, reason: str = "") -> None:
        """Stop accepting, close open connections with ``code``, and wait for their handlers, in the background.

        Calling it again does nothing. `wait_closed` tells when it is done.
        """
        if self._closing is None:
            self._closing = self.get_loop().create_task(self._close(close_connections, code, reason))

    async def _close(self, close_connections: bool, code: int, reason: str) -> None:
        self.logger.info("server closing")
        try:
            if self._listener is not None:
                self._listener.close()
            if self._sessions is not None:
                self._sessions.close()
            if close_connections:
                open_ones = self.connections | self._negotiating
                closing = [asyncio.create_task(connection.close(code, reason)) for connection in open_ones]
                if closing:
                    await asyncio.wait(closing)
            while self._handlers:
                await asyncio.wait(self._handlers)
            if self._listener is not None:
                await self._listener.wait_closed()
        finally:
            self._closed.set_result(None)
        self.logger.info("server closed")

    async def wait_closed(self) -> None:
        """Wait until all connections are closed and all handlers have returned. Cancelling is safe."""
        await asyncio.shield(self._closed)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it runs on."""
        return self._closed.get_loop()

    def is_serving(self) -> bool:
        """Whether it accepts connections."""
        return self._listener is not None and bool(self._listener.is_serving())

    async def start_serving(self) -> None:
        """Accept connections, after ``serve(..., start_serving=False)``."""
        await self._listener.start_serving()

    async def serve_forever(self) -> None:
        """Serve until `close` is called; cancelling closes the server and waits for it."""
        if not self.is_serving():
            await self.start_serving()
        try:
            await self.wait_closed()
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """What it listens on; nothing before it has started."""
        return () if self._listener is None else tuple(self._listener.sockets)

    async def _start(self) -> Self:
        if self._listener is None:
            self._listener = await self._listen(self)
            for sock in self._listener.sockets:
                self.logger.info("server listening on %s", sock.getsockname())
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self._start().__await__()

    async def __aenter__(self) -> Self:
        return await self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        await self.wait_closed()


def serve(
    handler: Handler,
    host: str | None = None,
    port: int | None = None,
    *,
    optimize: bool = True,
    transport: Literal["picows", "websockets"] = "picows",
    batch: BatchConfig | None = None,
    reliable: bool = True,
    sessions: SessionConfig | None = None,
    principal: Principal = username_of,
    **options: Any,
) -> Server:
    """Serve WebSocket connections on ``host`` and ``port``: a drop-in for ``websockets.serve``.

    ::

        async def handler(conn):
            async for message in conn:
                await conn.send(message)

        async with serve(handler, "localhost", 8765) as server:
            await server.serve_forever()

    Args:
        handler: a coroutine function that gets each connection; the connection is closed when it returns, with 1011
            when it raises.
        optimize: False gives plain behaviour: one write for each message.
        transport: what reads frames below: ``"picows"`` (fast) or ``"websockets"``.
        batch: how outgoing messages gather.
        reliable: False: do not speak the envelope, though clients offer it.
        sessions: how sessions are kept whose connection broke.
        principal: tells who is at the other end of a connection, or an awaitable of that; a session is resumed only by
            the one who began it. By default the ``username`` that ``websockets.basic_auth`` sets.
        options: all others of ``websockets.serve``, with its names, meanings and defaults, but for ``compression``,
            which has to be asked for by name (``"deflate"``).

    Raises:
        TypeError: ``handler`` cannot be called, or an argument does not exist.
        ValueError: options that are out of bounds, or contradict each other.
    """
    if not callable(handler):
        raise TypeError(f"handler={handler!r}: must be a coroutine function that gets each connection")
    _check_port(port)
    if transport not in ("picows", "websockets"):
        raise ValueError(f"transport={transport!r}: must be 'picows' or 'websockets'")
    known = {name: options.pop(name) for name in list(options) if name in ServerOptions.__dataclass_fields__}
    if "network" in known:
        raise TypeError("serve() takes arguments of create_server as they are, not in 'network'")
    if "create_connection" in options:
        raise TypeError("create_connection is not supported: wrap the connection in the handler instead")
    if known.get("subprotocols") is not None:
        validate_subprotocols(known["subprotocols"])
    if options:
        refuse_unknown("serve", options, _known_options(), {"extra_headers": "process_response"})
    settings = ServerOptions(**known, network=options)
    kept = _sessions(settings, sessions) if reliable else None
    if kept is not None:
        settings = replace(settings, select_subprotocol=selecting(settings.select_subprotocol, settings.subprotocols))

    async def listen(server: Server) -> Any:
        if transport == "picows":
            from penstock.transport.picows.server import listen as picows  # noqa: PLC0415 - loaded when it is used

            return await picows(server, host, port, settings)
        from penstock.transport.websockets import listen as websockets  # noqa: PLC0415 - loaded when it is used

        return await websockets(server, host, port, settings)

    return Server(
        handler,
        listen,
        BatchConfig() if batch is None else batch,
        optimize=optimize,
        logger=settings.logger or _logger,
        sessions=kept,
        principal=principal,
    )


def _check_port(port: object) -> None:
    try:
        if port is None or 0 <= int(port) <= 65_535:  # type: ignore[call-overload]
            return
    except (TypeError, ValueError):
        pass
    raise ValueError(f"port={port!r}: must be a whole number up to 65535, or None; 0 for one that is free")


@cache
def _known_options() -> frozenset[str]:
    """All names that `serve` takes."""
    own = signature(serve).parameters.keys() | ServerOptions.__dataclass_fields__.keys()
    tcp = signature(asyncio.BaseEventLoop.create_server).parameters.keys()
    unix = signature(asyncio.AbstractEventLoop.create_unix_server).parameters.keys()
    return frozenset((own | tcp | unix | _MORE_NETWORK) - {"self", "protocol_factory"})


def _sessions(settings: ServerOptions, config: SessionConfig | None) -> Sessions | None:
    pinging = () if settings.ping_interval is None else (settings.ping_interval, settings.ping_timeout)
    seconds = sum(part for part in (*pinging, settings.open_timeout) if part is not None)
    if config is None:
        config = SessionConfig(ttl=max(TTL, seconds))
    elif config.ttl < seconds:
        raise ValueError(
            f"ttl={config.ttl} s: must be at least ping_interval + ping_timeout + open_timeout={seconds} s, for an "
            "idle client notices a silent break only after that"
        )
    limits = limits_within(settings.max_frame)
    return None if limits is None else Sessions(config, limits)


def unix_serve(handler: Handler, path: str | os.PathLike[str] | None = None, **options: Any) -> Server:
    """Serve WebSocket connections on a Unix socket; options are those of `serve`."""
    return serve(handler, unix=True, path=path, **options)
