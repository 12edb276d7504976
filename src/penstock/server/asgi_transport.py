"""A socket of an ASGI server as a transport: whole messages in and out; all else is the server's business."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Never
from uuid import uuid4

from penstock.connection.signal import Signal
from penstock.metrics.traffic import Arrivals, traffic_of
from penstock.server.asgi_application import Message, Receive, Scope, Send, closing
from penstock.transport.base import (
    Close,
    CloseCode,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Encode,
    LoggerLike,
    Owner,
    State,
)
from penstock.transport.endpoint import Unowned
from penstock.transport.inbox import Inbox
from penstock.transport.receiver import Receiver

CLOSE_TIMEOUT = 10.0
"""Seconds that a closing handshake may take."""
HIGH, LOW = 65_536, 16_384
"""Bytes that wait for the server, above which writing pauses, and at which it goes on."""
MAX_REASON = 123
"""Bytes in the reason of a CLOSE frame (RFC 6455 section 5.5)."""

_logger = logging.getLogger("penstock.server")


class Messages:
    """Stands where other transports build frames: the server builds them."""

    masked = False

    def one(self, first: int, payload: bytes) -> list[bytes]:
        return [payload]

    def many(self, first: int, payloads: Sequence[bytes]) -> list[bytes]:
        return list(payloads)


class AsgiTransport(Receiver):
    """A `penstock.transport.base.Transport`, as long as `carry` runs."""

    def __init__(self, scope: Scope) -> None:
        self.loop = asyncio.get_running_loop()
        super().__init__(Inbox(self.loop, None, None))
        self.id = uuid4()
        self.logger: LoggerLike = _logger
        self.frames: Any = Messages()
        self.encode: Encode | None = None
        self.owner: Owner = Unowned()
        self.traffic = traffic_of("server")
        self.arrived = Arrivals()
        self._opened_at = self.loop.time()
        self.close_timeout: float | None = CLOSE_TIMEOUT
        self.blocked = False
        self.state = State.OPEN
        self.request = self.response = self.subprotocol = self.transport = None
        self.latency = 0.0
        self.local_address, self.remote_address = scope.get("server"), scope.get("client")
        self.close_code: int | None = None
        self.close_reason: str | None = None
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._written = Signal(self.loop)
        self._closing: Close | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._cause: BaseException | None = None
        self._lost: asyncio.Future[None] = self.loop.create_future()

    # Carrying

    async def carry(self, receive: Receive, send: Send) -> None:
        """Read and write until the socket is gone, or has been dropped. Cancelling drops it."""
        tasks = self.loop.create_task(self._read(receive)), self.loop.create_task(self._write(send))
        try:
            await self.wait_closed()
        finally:
            self.abort()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _read(self, receive: Receive) -> None:
        try:
            while (message := await receive())["type"] == "websocket.receive":
                data = message.get("bytes")
                self.inbox.put(message["text"] if data is None else bytes(data))
            self._gone(message.get("code") or CloseCode.NO_STATUS_RCVD, message.get("reason") or "")
        except Exception as exc:
            self.logger.exception("cannot receive from %s", self.id)
            self.abort(exc)

    async def _write(self, send: Send) -> None:
        try:
            while True:
                if self._queue:
                    await self._write_first(send)
                elif self._closing is not None:
                    await send(closing(self._closing.code, self._closing.reason))
                    return
                else:
                    self._wake.clear()
                    self._written.fire()
                    await self._wake.wait()
        except Exception as exc:  # each server has its own; that the client is gone, `receive` tells as well
            self.logger.debug("cannot send to %s", self.id, exc_info=True)
            self._expect_end()
            self._cause = self._cause or exc

    async def _write_first(self, send: Send) -> None:
        message: Message = {"type": "websocket.send", "bytes": self._queue[0]}
        await send(message)
        if self._queue:  # else all was dropped meanwhile
            self._size -= len(self._queue.popleft())
        if self.blocked and self._size <= LOW:
            self.blocked = False
            self.owner.writable()

    def write(self, data: Any) -> None:
        if self.state is State.OPEN:
            self._queue += data
            self._size += sum(map(len, data))
            self.blocked = self.blocked or self._size > HIGH
            self._wake.set()

    async def drained(self) -> None:
        while self._queue:
            await self._written.wait()

    # The end

    def fail(self, code: int, reason: str, cause: BaseException | None = None) -> None:
        self._cause = self._cause or cause
        if self.state is State.OPEN:
            self.owner.closing()
            self.state = State.CLOSING
            self._closing = Close(code, reason.encode()[:MAX_REASON].decode(errors="ignore"))
            self._wake.set()
            self._expect_end()

    def _expect_end(self) -> None:
        if self._overdue is None and self.close_timeout is not None:
            self._overdue = self.loop.call_later(self.close_timeout, self.abort)

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        self.fail(code, reason)
        await self.wait_closed()

    def abort(self, cause: BaseException | None = None) -> None:
        self._cause = self._cause or cause
        self._gone(CloseCode.ABNORMAL_CLOSURE, "")

    def _gone(self, code: int, reason: str) -> None:
        if self.state is State.CLOSED:
            return
        if self.state is State.OPEN:
            self.owner.closing()
        self.state = State.CLOSED
        self.close_code, self.close_reason = code, reason
        if self._overdue is not None:
            self._overdue.cancel()
        self._queue.clear()
        self.blocked = False
        self.inbox.end()
        self._written.fire()
        self._lost.set_result(None)
        exc = self.close_exc
        self.traffic.closed(
            code, self.loop.time() - self._opened_at, None if isinstance(exc, ConnectionClosedOK) else exc
        )
        self.owner.closed()

    @property
    def close_received(self) -> int | None:
        return None if self.close_code == CloseCode.ABNORMAL_CLOSURE else self.close_code

    @property
    def close_exc(self) -> ConnectionClosed:
        code = self.close_received
        received = None if code is None else Close(code, self.close_reason or "")
        in_order = code in (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)
        sent = self._closing or received
        then = None if received is None else self._closing is None
        exc = (ConnectionClosedOK if in_order else ConnectionClosedError)(received, sent, then)
        exc.__cause__ = self._cause
        return exc

    async def wait_closed(self) -> None:
        await asyncio.shield(self._lost)

    async def raise_closed(self) -> Any:
        await self.wait_closed()
        raise self.close_exc

    # What ASGI does not have

    async def ping(self, data: Any = None) -> Awaitable[float]:
        raise NotImplementedError("pings are the ASGI server's business")

    async def pong(self, data: Any = b"") -> None:
        raise NotImplementedError("pongs are the ASGI server's business")

    def reject(self, status: int, text: str) -> Never:
        raise NotImplementedError("the application refuses handshakes, by itself")
