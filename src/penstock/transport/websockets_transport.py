"""An open connection of ``websockets`` as a transport: it reads, we write many frames at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from websockets.asyncio import server
from websockets.asyncio.connection import Connection as WebsocketsConnection
from websockets.asyncio.messages import Assembler
from websockets.frames import Frame, Opcode
from websockets.protocol import Side

from penstock.metrics.traffic import traffic_of
from penstock.transport.base import (
    ConnectionClosed,
    ConnectionClosedOK,
    Data,
    Encode,
    LoggerLike,
    Owner,
    Request,
    Response,
    State,
    Subprotocol,
    encoder_of,
    frames_of,
)
from penstock.transport.endpoint import Unowned
from penstock.transport.keepalive import Keepalive


class WebsocketsReader:
    """See `penstock.transport.base.Reader`."""

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler
        self.items = assembler.frames.queue

    @property
    def busy(self) -> bool:
        return self._assembler.get_in_progress


class WebsocketsTransport:
    """An open connection of ``websockets``; see `penstock.transport.base.Transport`.

    Args:
        ws: may go on being used directly: it and penstock write whole frames.
        compress: apply the negotiated extensions to what is sent; else frames go uncompressed, which is always allowed.
    """

    def __init__(self, ws: WebsocketsConnection, *, compress: bool) -> None:
        self.ws = ws
        self.loop = ws.loop
        self.id = ws.id
        self.logger: LoggerLike = ws.logger
        self.close_timeout = ws.close_timeout
        self.frames = frames_of(client=ws.protocol.side is Side.CLIENT, loop=ws.loop)
        self.encode: Encode | None = encoder_of(ws.protocol.extensions) if compress else None
        self.owner: Owner = Unowned()
        self.traffic = traffic_of("client" if ws.protocol.side is Side.CLIENT else "server")
        self.arrived = self.traffic.received
        self._opened_at = self.loop.time()
        self._compress = compress
        self._keepalive: Keepalive | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sink: Callable[[Any], None]
        self._pump: asyncio.Task[None] | None = None

    def opened(self, ping_interval: float | None, ping_timeout: float | None) -> None:
        """The opening handshake is done."""
        self._opened_at = self.loop.time()
        self._listen_in()
        self._count()
        if self._compress:
            self.encode = encoder_of(self.ws.protocol.extensions)
        if ping_interval is not None:
            self._keepalive = Keepalive(
                self.loop,
                ping_interval,
                ping_timeout,
                ping=lambda: self._start(self._ping()),
                deaf_since=self.deaf_since,
                dead=lambda: self.fail(1011, "keepalive ping timeout"),
            )

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # ConnectionClosed: whoever uses the connection is told

    async def _ping(self) -> float:
        return await (await self.ws.ping())

    def _listen_in(self) -> None:
        """Let the owner know what happens, before it shows on the wire.

        A connection that is open already cannot be given a subclass's methods in another way; and whoever still uses
        ``ws`` itself writes in order with penstock.
        """
        ws = self.ws
        send_data, resume_writing, connection_lost = ws.send_data, ws.resume_writing, ws.connection_lost

        def sending() -> None:
            if ws.protocol.state is State.OPEN:
                self.owner.control()
            else:
                self._stop_keepalive()
                self.owner.closing()
            self.traffic.wire_bytes += sum(map(len, ws.protocol.writes))
            send_data()

        def writable() -> None:
            resume_writing()
            self.owner.writable()

        def lost(exc: Exception | None) -> None:
            connection_lost(exc)
            self._lost()

        ws.send_data, ws.resume_writing, ws.connection_lost = sending, writable, lost  # type: ignore[method-assign]

    def _count(self) -> None:
        """Count messages and pongs, in the same way."""
        ws, assembler = self.ws, self.ws.recv_messages
        put, acknowledge_pings = assembler.put, ws.acknowledge_pings

        def arrive(frame: Frame) -> None:
            self.arrived.messages += frame.fin
            self.arrived.bytes += len(frame.data)
            put(frame)

        def acknowledge(data: bytes) -> None:
            is_expected = data in ws.pending_pings
            acknowledge_pings(data)
            if is_expected:
                self.traffic.rtt.record(ws.latency)

        assembler.put, ws.acknowledge_pings = arrive, acknowledge  # type: ignore[method-assign]

    def _stop_keepalive(self) -> None:
        if self._keepalive is not None:
            self._keepalive.stop()
            self._keepalive = None

    def _lost(self) -> None:
        self._stop_keepalive()
        exc = self.close_exc
        self.traffic.closed(
            self.close_code,
            self.loop.time() - self._opened_at,
            None if isinstance(exc, ConnectionClosedOK) else exc,
        )
        self.owner.closed()

    @property
    def blocked(self) -> bool:
        return self.ws.paused

    def write(self, data: bytes) -> None:
        transport = self.ws.transport
        if transport.is_closing():
            return  # it would drop it with a warning; the owner is told in a moment
        self.traffic.wire_bytes += len(data)
        transport.write(data)

    async def drained(self) -> None:
        transport = self.ws.transport
        if transport.get_write_buffer_size() == 0:
            return
        transport.set_write_buffer_limits(0, 0)
        try:
            await self.ws.drain()
        finally:
            transport.set_write_buffer_limits(self.ws.write_limit_high, self.ws.write_limit_low)

    @property
    def state(self) -> State:
        return self.ws.protocol.state

    @property
    def request(self) -> Request | None:
        return self.ws.request

    @property
    def response(self) -> Response | None:
        return self.ws.response

    @property
    def subprotocol(self) -> Subprotocol | None:
        return self.ws.subprotocol

    @property
    def latency(self) -> float:
        return self.ws.latency

    @property
    def local_address(self) -> Any:
        return self.ws.local_address

    @property
    def remote_address(self) -> Any:
        return self.ws.remote_address

    @property
    def close_code(self) -> int | None:
        return self.ws.close_code

    @property
    def close_reason(self) -> str | None:
        return self.ws.close_reason

    @property
    def close_received(self) -> int | None:
        received = self.ws.protocol.close_rcvd
        return None if received is None else received.code

    @property
    def close_exc(self) -> ConnectionClosed:
        return self.ws.close_exc

    @property
    def transport(self) -> Any:
        return self.ws.transport

    @property
    def reader(self) -> WebsocketsReader:
        return WebsocketsReader(self.ws.recv_messages)

    def discard_unread(self) -> int:
        assembler = self.ws.recv_messages
        if assembler.get_in_progress:
            return 0
        frames = assembler.frames.queue
        before = len(frames)
        rest: list[Frame] = []
        while frames and not frames[-1].fin:
            rest.insert(0, frames.pop())
        frames.clear()
        frames.extend(rest)
        assembler.maybe_resume()
        return before - len(rest)

    def on_full(self, make_room: Callable[[], bool]) -> None:
        assembler = self.ws.recv_messages
        pause = assembler.pause

        def pause_unless_room_is_made() -> None:
            if not make_room():
                pause()

        assembler.pause = pause_unless_room_is_made

    def divert(self, sink: Callable[[Any], None]) -> None:
        self._sink = sink
        if self._pump is None:
            self._pump = self._start(self._pump_all())

    async def _pump_all(self) -> None:
        while True:
            self._sink(await self.ws.recv())

    def put_back(self, message: Data) -> None:
        text = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else message
        self.ws.recv_messages.frames.queue.appendleft(Frame(Opcode.TEXT if text else Opcode.BINARY, data))

    def deaf_since(self, when: float) -> bool:
        return self.ws.recv_messages.paused

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]:
        return self.ws.recv(decode)

    async def messages(self) -> AsyncIterator[Data]:
        try:
            while True:
                yield await self.ws.recv()
        except ConnectionClosedOK:
            return

    async def recv_many(self, max: int | None = None) -> list[Data]:  # noqa: A002
        if max is not None and max < 1:
            raise ValueError(f"max={max!r}: must be at least 1, or None for all that is here")
        messages = [await self.ws.recv()]
        frames = self.ws.recv_messages.frames.queue
        while frames and frames[0].fin and len(messages) != max:
            frame = frames[0]
            data = await self.ws.recv(decode=False)  # does not wait: the message is whole
            try:
                messages.append(data.decode() if frame.opcode is Opcode.TEXT else data)
            except UnicodeDecodeError:
                frames.appendleft(frame)  # the next call's business
                break
        return messages

    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        return self.ws.recv_streaming(decode)

    def ping(self, data: Any = None) -> Coroutine[Any, Any, Awaitable[float]]:
        return self.ws.ping(data)

    def pong(self, data: Any = b"") -> Coroutine[Any, Any, None]:
        return self.ws.pong(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._read_on()
        if self.state is State.CLOSED:
            await self.ws.wait_closed()  # its close() aborts the asyncio transport, which may fail when that is gone
        else:  # in a task of its own, which minds the deadline though the caller may be cancelled
            await asyncio.shield(self._start(self.ws.close(code, reason)))

    def fail(self, code: int, reason: str) -> None:
        self._read_on()
        if self.ws.state is State.OPEN:
            self.ws.protocol.fail(code, reason)
            self.ws.send_data()
            self._start(self.ws.close())  # minds the deadline

    def _read_on(self) -> None:
        """Do not let unread messages keep the peer's CLOSE from being seen."""
        assembler = self.ws.recv_messages
        assembler.high = assembler.low = None
        if assembler.paused:
            assembler.paused = False
            assembler.resume()

    def abort(self, cause: BaseException | None = None) -> None:
        self.ws.set_connection_exc(cause)
        if self.state is not State.CLOSED:
            self.ws.transport.abort()

    async def wait_closed(self) -> None:
        await self.ws.wait_closed()

    def reject(self, status: int, text: str) -> Response:
        assert isinstance(self.ws, server.ServerConnection)
        return self.ws.respond(status, text)
