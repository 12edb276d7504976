"""An application's side of ASGI: what it receives and sends while others see to the socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from penstock.connection.reliable import ReliableConnection
from penstock.errors import SessionLost
from penstock.transport.base import CloseCode, ConnectionClosed
from penstock.wire.envelope import BAD_FRAME, BadFrame, Hello, read

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

YIELD_EVERY = 256
"""Messages after which the event loop gets a turn: a frame may bring thousands, and none of them is waited for."""

_logger = logging.getLogger("penstock.server")


class ClientGone(ConnectionResetError):  # noqa: N818 - as the errors of penstock
    """The application sent something, and there is no client any more; an OSError, as ASGI asks for."""


class Way(Protocol):
    """How messages go once the handshake is answered."""

    def receive(self) -> Awaitable[Message]: ...
    def send(self, message: Message, /) -> Awaitable[None]: ...


class Plain:
    """As the server has it: the client does not speak the envelope.

    Args:
        first: waits for the first message, or has it: it was looked at before the application asked for it.
    """

    def __init__(self, first: asyncio.Future[Message], receive: Receive, send: Send) -> None:
        self._first: asyncio.Future[Message] | None = first
        self._receive, self._send = receive, send
        self._closing: asyncio.Task[None] | None = None

    def refuse_hello(self) -> None:
        """Close as soon as the first message comes, if that is HELLO: by silence its client was told otherwise."""
        if self._first is not None:
            self._first.add_done_callback(self._look_at)

    def _look_at(self, first: asyncio.Future[Message]) -> None:
        if not first.cancelled() and first.exception() is None and hello_in(first.result()) is not None:
            self._closing = first.get_loop().create_task(self._close())

    async def _close(self) -> None:
        try:
            await self._send(closing(BAD_FRAME, "HELLO came too late"))
        except Exception:  # each server has its own
            _logger.debug("the client is gone, whose HELLO came too late", exc_info=True)

    async def receive(self) -> Message:
        if self._first is None:
            return await self._receive()
        message = await asyncio.shield(self._first)
        self._first = None
        if self._closing is not None:
            await asyncio.wait({self._closing})
            return await self._receive()
        return message

    async def send(self, message: Message) -> None:
        if self._closing is not None:
            raise ClientGone("the client said HELLO too late")
        await self._send(message)


class OverSession:
    """Through a session: messages are taken when the application receives them, and sent when the client has room."""

    def __init__(self, connection: ReliableConnection) -> None:
        self._connection = connection
        self._received = 0

    async def receive(self) -> Message:
        self._received += 1
        if self._received % YIELD_EVERY == 0:
            await asyncio.sleep(0)
        try:
            message = await self._connection.recv()
        except ConnectionClosed as exc:
            return self._disconnect(exc)
        return {"type": "websocket.receive", "text" if isinstance(message, str) else "bytes": message}

    def _disconnect(self, exc: ConnectionClosed) -> Message:
        if isinstance(exc, SessionLost):
            return disconnect(CloseCode.ABNORMAL_CLOSURE, exc.why)
        code = self._connection.close_received or self._connection.close_code
        return disconnect(code or CloseCode.ABNORMAL_CLOSURE, self._connection.close_reason or "")

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.send":
                data = message.get("bytes")
                try:
                    await self._connection.send(message["text"] if data is None else data)
                except ConnectionClosed as exc:
                    raise ClientGone("the session has ended") from exc
            case "websocket.close":
                code = message.get("code") or CloseCode.NORMAL_CLOSURE
                await self._connection.close(code, message.get("reason") or "")
            case other:
                raise RuntimeError(f"expected 'websocket.send' or 'websocket.close', not {other!r}")


class Nowhere:
    """The application was asked in vain: its client is gone before it said anything."""

    async def receive(self) -> Message:
        return disconnect(CloseCode.ABNORMAL_CLOSURE)

    async def send(self, message: Message) -> None:
        raise ClientGone("the client is gone")


class Call:
    """One run of the application: what it is called with.

    Args:
        connect: what it receives first.
        accept: told of the message with which it accepts, before anything else goes.
        refuse: told of the message with which it refuses.
    """

    def __init__(
        self,
        connect: Message,
        accept: Callable[[Message], Awaitable[None]],
        refuse: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._connect: Message | None = connect
        self._accept, self._refuse = accept, refuse
        self._way: asyncio.Future[Way] = asyncio.get_running_loop().create_future()
        self._is_answered = self._is_muted = False
        self.connection: ReliableConnection | None = None
        """What carries it, if the client speaks the envelope."""
        self.is_on_its_own = False
        """It may outlive the call of the server that began it."""

    def go(self, way: Way) -> None:
        """Let it receive and send."""
        if not self._way.done():
            self._way.set_result(way)

    def mute(self) -> None:
        """Drop what it still sends."""
        self._is_muted = True

    async def receive(self) -> Message:
        if self._connect is not None:
            message, self._connect = self._connect, None
            return message
        return await (await self._known()).receive()

    async def send(self, message: Message) -> None:
        if not self._is_answered:
            self._is_answered = True
            if message["type"] == "websocket.accept":
                await self._accept(message)
                await self._known()  # or it might be through before the client has said what it speaks
            else:
                await self._refuse(message)
        elif not self._is_muted:
            await (await self._known()).send(message)

    async def _known(self) -> Way:
        return self._way.result() if self._way.done() else await asyncio.shield(self._way)


def hello_in(message: Message) -> Hello | None:
    """The HELLO in what was received, if it is one."""
    data = message.get("bytes")
    if data is None:
        return None
    try:
        frame = read(bytes(data))
    except BadFrame:
        return None
    return frame if isinstance(frame, Hello) else None


def closing(code: int, reason: str = "") -> Message:
    """What closes."""
    return {"type": "websocket.close", "code": int(code), "reason": reason}


def disconnect(code: int, reason: str = "") -> Message:
    """What tells that it is closed."""
    return {"type": "websocket.disconnect", "code": int(code), "reason": reason}
