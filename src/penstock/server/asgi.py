"""The envelope for WebSocket endpoints of ASGI applications."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from penstock.batch.policy import BatchConfig
from penstock.connection.reliable import ReliableConnection
from penstock.connection.session import SessionTransport
from penstock.server.asgi_application import (
    Application,
    Call,
    ClientGone,
    Message,
    Nowhere,
    OverSession,
    Plain,
    Receive,
    Scope,
    Send,
    closing,
    hello_in,
)
from penstock.server.asgi_offer import ASGI_HEADER, Offer, for_application, offer_in
from penstock.server.asgi_transport import AsgiTransport
from penstock.server.negotiation import HELLO_TIMEOUT
from penstock.server.sessions import Opening, SessionConfig, Sessions
from penstock.transport.base import CloseCode
from penstock.wire.envelope import SUBPROTOCOL, BadFrame, Hello
from penstock.wire.limits import Limits

SHUTDOWN_TIMEOUT = 10.0
"""Seconds that applications may take to return when the server shuts down; then they are cancelled."""

_logger = logging.getLogger("penstock.server")


class PenstockASGI:
    """Wraps an ASGI application, so that clients may speak the envelope with its WebSocket endpoints.

    ::

        app = PenstockASGI(FastAPI())          # or app.add_middleware(PenstockASGI)

    Endpoints receive and send ordinary messages. One whose client speaks the envelope runs in a task of its own, which
    outlives the socket; it ends before the application sees ``lifespan.shutdown``. Everything else passes through.

    Args:
        app: any ASGI 3 application.
        sessions: how sessions are kept whose connection broke.
        principal: tells who is at the other end by the scope of a connection, or gives an awaitable of that; a session
            is resumed only by the one who began it. The application's own check does not run then. By default whoever
            knows a session's secret may resume it.
        batch: how outgoing messages gather.
        max_size: bytes in a message that clients may send. Larger ones than 1 MiB come in several frames.

    Raises:
        ValueError: ``max_size`` is out of bounds.
    """

    def __init__(
        self,
        app: Application,
        *,
        sessions: SessionConfig | None = None,
        principal: Callable[[Scope], Any] | None = None,
        batch: BatchConfig | None = None,
        max_size: int = 2**24,
    ) -> None:
        self.app = app
        self._principal = principal
        self._batch = BatchConfig() if batch is None else batch
        self._config = SessionConfig() if sessions is None else sessions
        self._limits = Limits(max_message=max_size)
        self._sessions = Sessions(self._config, self._limits)
        self._runs: dict[asyncio.Task[None], Call] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and (offer := offer_in(scope)) is not None:
            client = _Client(for_application(scope), receive, send, offer)
            await (self._accept_first(client) if offer.is_early else self._ask_first(client))
        elif scope["type"] == "lifespan":
            await self.app(scope, self._watched(receive), send)
        else:
            await self.app(scope, receive, send)

    # Handshakes

    async def _ask_first(self, client: _Client) -> None:
        """The application answers the handshake; then the client's first message tells what it speaks."""
        connect = await client.receive()
        first = _ahead(client.receive)
        plain = Plain(first, client.receive, client.send)
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def accept(message: Message) -> None:
            accepted.set_result(None)  # before it is sent: the client may be faster than our task
            await client.send({**message, "headers": [*(message.get("headers") or ()), ASGI_HEADER]})

        async def refuse(message: Message) -> None:
            call.go(plain)
            await client.send(message)

        call = Call(connect, accept, refuse)
        run = self._start(call, client.scope)
        try:
            answers: list[asyncio.Future[Any]] = [run, accepted, first]
            await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            if accepted.done():
                await asyncio.wait({run, first}, timeout=HELLO_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            hello = _hello(first) if accepted.done() and not run.done() else None
            if hello is None:
                plain.refuse_hello()
                call.go(plain)
                await run
            else:
                await self._open_for(call, client, hello)
        finally:
            call.go(Nowhere())
            first.cancel()
            if not call.is_on_its_own:
                run.cancel()

    async def _accept_first(self, client: _Client) -> None:
        """The client comes back, or cannot tell whether it does: the application is asked only if it has to be."""
        connect = await client.receive()
        headers = [] if client.offer.subprotocol else [ASGI_HEADER]
        await client.send({"type": "websocket.accept", "subprotocol": client.offer.subprotocol, "headers": headers})
        first = _ahead(client.receive)
        try:
            await asyncio.wait({first}, timeout=HELLO_TIMEOUT)
            hello = _hello(first)
            if hello is not None and not hello.sid:
                await self._ask_before_welcome(client, hello, connect)
            elif hello is not None:
                await self._open(client, hello, lambda: self._ask_after_welcome(client, connect))
            elif not first.done() or first.result()["type"] == "websocket.receive":
                call = _late_call(connect, client.offer)
                plain = Plain(first, client.receive, client.send)
                plain.refuse_hello()
                call.go(plain)
                await self._start(call, client.scope)
        finally:
            first.cancel()

    async def _ask_before_welcome(self, client: _Client, hello: Hello, connect: Message) -> None:
        verdict: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()

        async def close(message: Message) -> None:
            verdict.set_result(message)

        call = _late_call(connect, client.offer, lambda: verdict.set_result(None), close)
        run = self._start(call, client.scope)
        try:
            answers: list[asyncio.Future[Any]] = [run, verdict]
            await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            end = verdict.result() if verdict.done() else None
            if verdict.done() and end is None:
                await self._open_for(call, client, hello)
                return
            if end is not None:
                await client.send(end)
            call.go(Nowhere())
            await run
        finally:
            call.go(Nowhere())
            if not call.is_on_its_own:
                run.cancel()

    def _ask_after_welcome(self, client: _Client, connect: Message) -> Call:
        call = _late_call(connect, client.offer)
        self._start(call, client.scope)
        return call

    # Sessions

    async def _open_for(self, call: Call, client: _Client, hello: Hello) -> None:
        """Begin a session for an application that has accepted; unless there is one, whose application has it."""
        call.is_on_its_own = True
        await self._open(client, hello, lambda: call, lambda: call.go(Nowhere()))

    async def _open(
        self, client: _Client, hello: Hello, begin: Callable[[], Call], opened: Callable[[], object] = lambda: None
    ) -> None:
        """Begin a session, or go on with one, and carry its frames as long as there is this socket."""
        inner = AsgiTransport(client.scope)

        def adopt(transport: SessionTransport) -> None:
            call = begin()
            call.is_on_its_own = True
            call.connection = ReliableConnection(transport, self._batch, optimize=True)
            call.go(OverSession(call.connection))

        opening = inner.loop.create_task(self._greet(Opening(inner, hello, adopt), client.scope))
        opening.add_done_callback(lambda _: opened())
        try:
            await inner.carry(client.receive, client.send)
        finally:
            opening.cancel()
            await asyncio.wait({opening})

    async def _greet(self, client: Opening, scope: Scope) -> None:
        try:
            principal = None if self._principal is None else self._principal(scope)
            if isinstance(principal, Awaitable):
                principal = await principal
            await self._sessions.open(client, principal)
        except BadFrame as exc:
            client.inner.fail(exc.code, exc.reason)
        except Exception:
            _logger.exception("opening a session failed")
            client.inner.fail(CloseCode.INTERNAL_ERROR, "")

    def _start(self, call: Call, scope: Scope) -> asyncio.Task[None]:
        run = asyncio.get_running_loop().create_task(self._run(call, scope))
        self._runs[run] = call
        run.add_done_callback(self._ended)
        return run

    async def _run(self, call: Call, scope: Scope) -> None:
        code = CloseCode.NORMAL_CLOSURE
        try:
            await self.app(scope, call.receive, call.send)
        except ClientGone:
            _logger.debug("the application sent to a client that is gone", exc_info=True)
        except Exception:
            if not call.is_on_its_own:
                raise
            _logger.exception("the application failed")
            code = CloseCode.INTERNAL_ERROR
        except asyncio.CancelledError:
            if call.connection is not None:
                call.connection.abort()
            raise
        if call.connection is not None:
            await call.connection.close(code)

    def _ended(self, run: asyncio.Task[None]) -> None:
        del self._runs[run]
        if not run.cancelled():
            run.exception()  # whoever awaits it is told

    # The end

    def _watched(self, receive: Receive) -> Receive:
        """The server's ``receive`` for a lifespan: what it tells happens here first."""

        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._sessions = Sessions(self._config, self._limits)
            elif message["type"] == "lifespan.shutdown":
                await self.close()
            return message

        return received

    async def close(self) -> None:
        """End all sessions with 1001, and wait for what runs on them, for `SHUTDOWN_TIMEOUT` at most.

        It is called when the application shuts down. Servers may have dropped their sockets by then; to tell clients,
        call it before the server is told to stop. Calling it again is safe.
        """
        self._sessions.close()
        connections = [call.connection for call in self._runs.values() if call.connection is not None]
        tasks = {asyncio.ensure_future(connection.close(CloseCode.GOING_AWAY)) for connection in connections}
        tasks.update(run for run, call in self._runs.items() if call.is_on_its_own)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=SHUTDOWN_TIMEOUT)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=SHUTDOWN_TIMEOUT)


class _Client(NamedTuple):
    """A client, as the server and then the application see it."""

    scope: Scope
    receive: Receive
    send: Send
    offer: Offer


def _late_call(
    connect: Message,
    offer: Offer,
    accepted: Callable[[], object] = lambda: None,
    close: Send | None = None,
) -> Call:
    """The application is asked when the handshake has been answered: its refusal becomes a close."""

    async def end(code: int, reason: str) -> None:
        await (call.send if close is None else close)(closing(code, reason))

    async def accept(message: Message) -> None:
        chosen, agreed = message.get("subprotocol"), (offer.subprotocol or "").removeprefix(SUBPROTOCOL)[1:]
        if offer.subprotocol is not None and chosen and chosen != agreed:
            await end(CloseCode.PROTOCOL_ERROR, f"{chosen!r} was chosen behind {offer.subprotocol!r}")
        else:
            accepted()

    async def refuse(message: Message) -> None:
        code = message.get("code", CloseCode.NORMAL_CLOSURE)
        if code == CloseCode.NORMAL_CLOSURE:
            code = CloseCode.POLICY_VIOLATION
        await end(code, message.get("reason") or "refused")
        call.mute()

    call = Call(connect, accept, refuse)
    return call


def _ahead(receive: Receive) -> asyncio.Task[Message]:
    """Receive a message before it is asked for."""

    async def received() -> Message:
        return await receive()

    first = asyncio.get_running_loop().create_task(received())
    first.add_done_callback(lambda task: task.cancelled() or task.exception())  # who receives it is told
    return first


def _hello(first: asyncio.Task[Message]) -> Hello | None:
    return hello_in(first.result()) if first.done() and first.exception() is None else None
