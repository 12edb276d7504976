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
from penstock.server.asgi_transport import AsgiTransport
from penstock.server.negotiation import HELLO_TIMEOUT
from penstock.server.sessions import SessionConfig, Sessions
from penstock.transport.base import CloseCode
from penstock.wire.envelope import HEADER, SUBPROTOCOL, VERSION, BadFrame, Hello
from penstock.wire.session import Limits

SHUTDOWN_TIMEOUT = 10.0
"""Seconds that applications may take to return when the server shuts down; then they are cancelled."""

_HEADER = (HEADER.lower().encode(), VERSION.encode())

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
        self._sessions = Sessions(SessionConfig() if sessions is None else sessions, Limits(max_message=max_size))
        self._runs: dict[asyncio.Task[None], Call] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and (offer := offer_in(scope)) is not None:
            client = _Client(_for_application(scope), receive, send, offer)
            await (self._accept_first(client) if offer.is_early else self._ask_first(client))
        elif scope["type"] == "lifespan":
            await self.app(scope, self._until_shutdown(receive), send)
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
            await client.send({**message, "headers": [*(message.get("headers") or ()), _HEADER]})

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
                call.go(plain)
                await run
            else:
                call.is_on_its_own = True
                await self._open(client, hello, lambda: call)
        finally:
            call.go(Nowhere())
            first.cancel()
            if not call.is_on_its_own:
                run.cancel()

    async def _accept_first(self, client: _Client) -> None:
        """The client comes back, or cannot tell whether it does: the application is asked only if it has to be."""
        connect = await client.receive()
        headers = [] if client.offer.subprotocol else [_HEADER]
        await client.send({"type": "websocket.accept", "subprotocol": client.offer.subprotocol, "headers": headers})
        first = _ahead(client.receive)

        def begin() -> Call:
            call = _late_call(connect, client.offer)
            self._start(call, client.scope)
            return call

        try:
            await asyncio.wait({first}, timeout=HELLO_TIMEOUT)
            hello = _hello(first)
            if hello is not None:
                await self._open(client, hello, begin)
            elif not first.done() or first.result()["type"] == "websocket.receive":
                call = _late_call(connect, client.offer)
                call.go(Plain(first, client.receive, client.send))
                await self._start(call, client.scope)
        finally:
            first.cancel()

    # Sessions

    async def _open(self, client: _Client, hello: Hello, begin: Callable[[], Call]) -> None:
        """Begin a session, or go on with one, and carry it until the socket is gone."""
        inner = AsgiTransport(client.scope)

        def adopt(transport: SessionTransport) -> None:
            call = begin()
            call.is_on_its_own = True
            call.connection = ReliableConnection(transport, self._batch, optimize=True)
            call.go(OverSession(call.connection))

        try:
            principal = None if self._principal is None else self._principal(client.scope)
            if isinstance(principal, Awaitable):
                principal = await principal
            self._sessions.open(inner, hello, principal, adopt)
        except BadFrame as exc:
            inner.fail(exc.code, exc.reason)
        except Exception:
            _logger.exception("opening a session failed")
            inner.fail(CloseCode.INTERNAL_ERROR, "")
        await inner.carry(client.receive, client.send)

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

    def _until_shutdown(self, receive: Receive) -> Receive:
        async def received() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._shut_down()
            return message

        return received

    async def _shut_down(self) -> None:
        """End all sessions, and wait for what runs on them."""
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


class Offer(NamedTuple):
    """How a client offers the envelope."""

    subprotocol: str | None
    """One of the envelope's; None if it is offered by header."""
    resumes: bool
    """It says that it has a session."""

    @property
    def is_early(self) -> bool:
        """Whether HELLO has to be seen before it is known whether the application is to be asked."""
        return self.resumes or self.subprotocol is not None


class _Client(NamedTuple):
    """A client, as the server and then the application see it."""

    scope: Scope
    receive: Receive
    send: Send
    offer: Offer


def offer_in(scope: Scope) -> Offer | None:
    """What a client offers; the header goes before the subprotocol."""
    for name, value in scope["headers"]:
        if name == _HEADER[0]:
            version, *parameters = map(str.strip, value.decode("latin-1").split(";"))
            if version == VERSION:
                return Offer(None, any(parameter.startswith("node=") for parameter in parameters))
    subprotocol = next(filter(_is_ours, scope.get("subprotocols") or ()), None)
    return None if subprotocol is None else Offer(subprotocol, resumes=False)


def _is_ours(subprotocol: str) -> bool:
    return subprotocol == SUBPROTOCOL or subprotocol.startswith(SUBPROTOCOL + "+")


def _for_application(scope: Scope) -> Scope:
    """The scope, without the envelope's subprotocols."""
    offered = scope.get("subprotocols") or ()
    if not any(map(_is_ours, offered)):
        return scope
    return {**scope, "subprotocols": [name for name in offered if not _is_ours(name)]}


def _late_call(connect: Message, offer: Offer) -> Call:
    """The application is asked when the handshake has been answered: its refusal becomes a close."""

    async def accept(message: Message) -> None:
        chosen, agreed = message.get("subprotocol"), (offer.subprotocol or "").removeprefix(SUBPROTOCOL)[1:]
        if offer.subprotocol is not None and chosen and chosen != agreed:
            await end(CloseCode.PROTOCOL_ERROR, f"{chosen!r} was chosen behind {offer.subprotocol!r}")

    async def refuse(message: Message) -> None:
        code = message.get("code", CloseCode.NORMAL_CLOSURE)
        await end(
            CloseCode.POLICY_VIOLATION if code == CloseCode.NORMAL_CLOSURE else code, message.get("reason") or "refused"
        )

    async def end(code: int, reason: str) -> None:
        await call.send(closing(code, reason))
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
