"""One end of a connection whose frames arrive one by one: messages, pings, the closing handshake.

The rules of RFC 6455 are those of the Sans-I/O protocol of ``websockets``, which sees every frame but the whole,
uncompressed data messages. Those, nearly all there are, go straight to the inbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import DATA_OPCODES, PONG, Frame, Opcode
from websockets.protocol import Protocol, Side
from websockets.server import ServerProtocol

from penstock.metrics.traffic import traffic_of
from penstock.transport.base import (
    CloseCode,
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedOK,
    Encode,
    Options,
    Owner,
    Request,
    Response,
    State,
    Subprotocol,
    encoder_of,
    frames_of,
)
from penstock.transport.inbox import BadText, Inbox, Item, Part
from penstock.transport.keepalive import Keepalive
from penstock.transport.pings import Pings, ping_payload
from penstock.transport.receiver import Receiver


class Unowned:
    """Stands in until somebody writes through the transport."""

    def writable(self) -> None: ...
    def control(self) -> None: ...
    def closing(self) -> None: ...
    def closed(self) -> None: ...


class Endpoint(Receiver):
    """A `penstock.transport.base.Transport` but for how frames come in.

    Args:
        protocol: with its opening handshake done, or about to be.
    """

    def __init__(self, protocol: Protocol, options: Options) -> None:
        self.loop = asyncio.get_running_loop()
        super().__init__(Inbox(self.loop, *options.queue_limits))
        self.protocol = protocol
        self.id = protocol.id
        self.logger = protocol.logger
        self.request: Request | None = None
        self.response: Response | None = None
        self.blocked = False
        self.encode: Encode | None = None
        self.owner: Owner = Unowned()
        self.close_timeout = options.close_timeout
        self.frames = frames_of(client=protocol.side is Side.CLIENT, loop=self.loop)
        self.straight = False
        """Whole data messages may go straight to the inbox: none is arriving in parts, and CLOSE has not come."""
        self.traffic = traffic_of("client" if protocol.side is Side.CLIENT else "server")
        self.arrived = self.traffic.received
        self.transport: asyncio.Transport
        self._opened_at: float
        self._options = options
        self._cause: BaseException | None = None
        self._pings = Pings(self.loop, self.traffic.rtt)
        self._lost: asyncio.Future[None] = self.loop.create_future()
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._keepalive: Keepalive | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._owed_pong: bytes | None = None
        self.discarding = False

    def opened(self, transport: asyncio.Transport) -> None:
        """The opening handshake is done; ``transport`` carries frames from now on."""
        self.transport = transport
        self._opened_at = self.loop.time()
        transport.set_write_buffer_limits(*self._options.write_limits)
        self.inbox.connect(transport.pause_reading, transport.resume_reading)
        if self._options.asked_for_extensions:
            self.encode = encoder_of(self.protocol.extensions)
        self.straight = True
        if self._options.ping_interval is not None:
            self._keepalive = Keepalive(
                self.loop,
                self._options.ping_interval,
                self._options.ping_timeout,
                ping=lambda: self._send_ping(self._pings.draw()),
                deaf_since=self.inbox.deaf_since,
                dead=lambda: self.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout"),
            )

    # What the connection is

    @property
    def state(self) -> State:
        return self.protocol.state

    @property
    def latency(self) -> float:
        return self._pings.latency

    @property
    def subprotocol(self) -> Subprotocol | None:
        return self.protocol.subprotocol

    @property
    def close_code(self) -> int | None:
        return self.protocol.close_code

    @property
    def close_reason(self) -> str | None:
        return self.protocol.close_reason

    @property
    def close_received(self) -> int | None:
        return None if self.protocol.close_rcvd is None else self.protocol.close_rcvd.code

    @property
    def close_exc(self) -> ConnectionClosed:
        exc = self.protocol.close_exc
        if self._cause is not None:
            exc.__cause__ = self._cause
        return exc

    @property
    def local_address(self) -> Any:
        return self.transport.get_extra_info("sockname")

    @property
    def remote_address(self) -> Any:
        return self.transport.get_extra_info("peername")

    # Frames in

    def receive(self, frame: Frame) -> None:
        """Take any frame that does not go straight to the inbox."""
        if self.discarding:
            return
        protocol = self.protocol
        if frame.opcode is Opcode.PING and self.blocked:
            self._owed_pong = bytes(frame.data)  # the latest is answer enough (RFC 6455 section 5.5.3)
            return
        if frame.opcode is Opcode.CLOSE and protocol.state is State.OPEN:
            self.owner.closing()
        try:
            for extension in reversed(protocol.extensions):
                frame = extension.decode(frame, max_size=self.room())
            frame.check()
            self._check_size(frame)
            protocol.recv_frame(frame)
            protocol.events_received()  # which it would keep otherwise
        except (ProtocolError, PayloadTooBig, UnicodeDecodeError) as exc:
            self.refuse(exc)
        else:
            self._received(frame)
            self._write_answers()

    def refuse(self, exc: ProtocolError | PayloadTooBig | UnicodeDecodeError) -> None:
        """The peer broke the rules: close for that reason."""
        match exc:
            case ProtocolError():
                self.broken(CloseCode.PROTOCOL_ERROR, str(exc), exc)
            case UnicodeDecodeError():
                self.broken(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}", exc)
            case PayloadTooBig():
                exc.set_current_size(self.protocol.current_size)
                self.broken(CloseCode.MESSAGE_TOO_BIG, str(exc), exc)

    def broken(self, code: int, reason: str, exc: Exception) -> None:
        """What arrives can no longer be understood: close with ``code``."""
        self.owner.closing()
        self._discard()
        self.protocol.fail(code, reason)
        self.protocol.parser_exc = exc
        self._write_answers()

    def room(self) -> int | None:
        """Bytes that the next frame may have: of its message's limit, and of a fragment's."""
        message, fragment = self._options.size_limits
        limits = [] if fragment is None else [fragment]
        if message is not None:
            limits.append(message - (self.protocol.current_size or 0))
        return min(limits, default=None)

    def _check_size(self, frame: Frame) -> None:
        room = self.room()
        if room is not None and len(frame.data) > room and frame.opcode in DATA_OPCODES:
            raise PayloadTooBig(len(frame.data), room)

    def _discard(self) -> None:
        """Look at nothing that still comes (RFC 6455 sections 1.4 and 7.1.7), but read on, to see the end."""
        self.discarding = True
        self.straight = False
        self._owed_pong = None
        self._stop_keepalive()
        self.inbox.close()

    def _stop_keepalive(self) -> None:
        if self._keepalive is not None:
            self._keepalive.stop()
            self._keepalive = None

    def _received(self, frame: Frame) -> None:
        if frame.opcode in DATA_OPCODES:
            self.arrived.messages += frame.fin
            self.arrived.bytes += len(frame.data)
            self.inbox.put(_item(frame))
        elif frame.opcode is PONG:
            self._pings.acknowledge(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            self._discard()
        self.straight = self.protocol.current_size is None and not self.discarding

    def _write_answers(self) -> None:
        """Write what the protocol has to say; half-close where it asks for it; mind the deadline for closing."""
        for data in self.protocol.data_to_send():
            if data:
                self.owner.control()
                self.write(data)
            elif self.transport.can_write_eof():
                try:
                    self.transport.write_eof()
                except (OSError, RuntimeError):  # the peer was faster
                    self.transport.close()
            else:
                self.transport.close()
        if self.protocol.close_expected() and self._overdue is None and self.close_timeout is not None:
            self._overdue = self.loop.call_later(self.close_timeout, self._closing_overdue)

    def _closing_overdue(self) -> None:
        self.abort(TimeoutError("timed out while closing connection"))

    # Frames out

    def write(self, data: bytes) -> None:
        transport = self.transport
        if transport.is_closing():
            return  # it would drop it with a warning; the owner is told in a moment
        self.traffic.wire_bytes += len(data)
        transport.write(data)

    def pause_writing(self) -> None:
        self.blocked = True

    def resume_writing(self) -> None:
        self.blocked = False
        owed, self._owed_pong = self._owed_pong, None
        if owed is not None and self.state is State.OPEN:
            self.protocol.send_pong(owed)
            self._write_answers()
        if self._drain_waiters:
            waiters, self._drain_waiters = self._drain_waiters, []
            self.transport.set_write_buffer_limits(*self._options.write_limits)
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        self.owner.writable()

    async def drained(self) -> None:
        if self.transport.get_write_buffer_size() == 0 or self._lost.done():
            return
        waiter = self.loop.create_future()
        self._drain_waiters.append(waiter)
        self.transport.set_write_buffer_limits(0, 0)
        try:
            await waiter
        except asyncio.CancelledError:
            self._forget_drain_waiter(waiter)
            raise

    def _forget_drain_waiter(self, waiter: asyncio.Future[None]) -> None:
        if waiter in self._drain_waiters:
            self._drain_waiters.remove(waiter)
            if not self._drain_waiters:
                self.transport.set_write_buffer_limits(*self._options.write_limits)

    # The interface of websockets

    async def ping(self, data: Any = None) -> Awaitable[float]:
        payload = self._pings.draw() if data is None else ping_payload(data)
        await self._usable()
        if payload in self._pings:
            raise ConcurrencyError("already waiting for a pong with the same data")
        return self._send_ping(payload)

    def _send_ping(self, payload: bytes) -> asyncio.Future[float]:
        self.protocol.send_ping(payload)
        pong = self._pings.expect(payload)
        self._write_answers()
        return pong

    async def pong(self, data: Any = b"") -> None:
        payload = ping_payload(data)
        await self._usable()
        self.protocol.send_pong(payload)
        self._write_answers()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self.state is State.OPEN:
            self.owner.closing()
            self._stop_keepalive()
            self.protocol.send_close(code, reason)
            self.inbox.close()
            self._write_answers()
        await self.wait_closed()

    def abort(self, cause: BaseException | None = None) -> None:
        self._set_cause(cause)
        self.transport.abort()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._lost)

    def reject(self, status: int, text: str) -> Response:
        assert isinstance(self.protocol, ServerProtocol)
        return self.protocol.reject(status, text)

    # The end

    async def _usable(self) -> None:
        if self.state is not State.OPEN:
            await self.raise_closed()

    async def raise_closed(self) -> Any:
        await self.wait_closed()
        raise self.close_exc

    def fail(self, code: int, reason: str, cause: BaseException | None = None) -> None:
        self._set_cause(cause)
        if self.state is State.OPEN:
            self.owner.closing()
        if self.state is not State.CLOSED:
            self._discard()
            self.protocol.fail(code, reason)
            self._write_answers()

    def _set_cause(self, cause: BaseException | None) -> None:
        if self._cause is None:
            self._cause = cause

    def lost(self, cause: BaseException | None = None) -> None:
        """The asyncio transport is gone: everybody who waits for something is told."""
        self.protocol.receive_eof()
        self._set_cause(cause)
        self.straight = False
        self.blocked = False
        self._stop_keepalive()
        if self._overdue is not None:
            self._overdue.cancel()
        self.inbox.end()
        exc = self.close_exc
        self.traffic.closed(
            self.close_code,
            self.loop.time() - self._opened_at,
            None if isinstance(exc, ConnectionClosedOK) else exc,
        )
        self._pings.fail(exc)
        for waiter in self._drain_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._drain_waiters.clear()
        self._lost.set_result(None)
        self.owner.closed()


def _item(frame: Frame) -> Item:
    data = bytes(frame.data)
    if not frame.fin or frame.opcode is Opcode.CONT:
        return Part(frame.opcode is Opcode.TEXT, data, frame.fin)
    return data if frame.opcode is Opcode.BINARY else text_item(data)


def text_item(data: bytes) -> Item:
    """A whole text message as it waits in the inbox: decoded, unless it cannot be."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return BadText(data)
