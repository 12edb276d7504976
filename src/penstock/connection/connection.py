"""A live link: the asyncio connection of ``websockets``, with messages that travel together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from threading import get_ident
from types import TracebackType
from typing import Any, Literal, Self, overload
from uuid import UUID

from penstock.batch.policy import BatchConfig
from penstock.connection.fragments import send_fragments
from penstock.connection.gate import LONE
from penstock.connection.many import offer, send_many
from penstock.connection.messages import DataLike, Fragments, encode, is_whole
from penstock.connection.outbox import Outbox
from penstock.errors import EnvelopeRefused
from penstock.transport.base import (
    Close,
    CloseCode,
    Data,
    LoggerLike,
    ProtocolError,
    Request,
    Response,
    State,
    Subprotocol,
    Transport,
)
from penstock.transport.liveness import silence
from penstock.wire.frames import BINARY, FIN, TEXT

MAX_CONTROL = 125
"""Bytes in a control frame (RFC 6455 section 5.5)."""

_TEXT, _BINARY = FIN | TEXT, FIN | BINARY


class Connection:
    """An open WebSocket connection; made by `connect`, `serve` and `accelerate`.

    Methods, properties and exceptions are those of the asyncio connection of ``websockets``; `send_many`, `recv_many`
    and `flush` come besides. A connection belongs to the event loop that opened it.
    """

    def __init__(self, transport: Transport, batch: BatchConfig, *, optimize: bool) -> None:
        self.carry(transport, batch, optimize=optimize)

    def carry(self, transport: Transport, batch: BatchConfig, *, optimize: bool) -> None:
        """Be a connection over ``transport`` from now on; penstock's own."""
        self._transport = transport
        self.outbox = self._gather(batch, optimize=optimize)
        """What gathers outgoing messages; penstock's own."""
        self.reader = transport.reader
        """What has arrived, and whether somebody receives; penstock's own."""

    def _gather(self, batch: BatchConfig, *, optimize: bool) -> Outbox:
        return Outbox(self._transport, batch, gather=optimize)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.name} {self.id}>"

    # Sending

    async def send(self, message: DataLike | Fragments, *, text: bool | None = None) -> None:
        """Accept a message for sending.

        It is written at once if it is the first of this loop iteration, else with others at the iteration's end.
        ``str`` is sent as text, bytes-like objects as binary, unless ``text`` says otherwise; ``bytearray`` and
        ``memoryview`` are copied. An iterable or asynchronous iterable of either is sent as the fragments of one
        message.

        Waits while more is gathered than the socket takes (`BatchConfig.max_pending_bytes`), without limit of its own:
        bound it with ``asyncio.timeout``. Cancelling is safe: a message whose ``send`` was cancelled was not sent; only
        when some fragments have been sent, cancelling closes the connection, because the rest is missing.

        Raises:
            ConnectionClosed: the connection is closed, or closing.
            MessageTypeError: ``message`` is neither text nor bytes, nor an iterable of either.
            SerializationError: text with a lone surrogate.
            WrongLoop: called from another event loop or thread.
        """
        outbox = self.outbox
        if text is None and get_ident() == outbox.thread:
            # Nearly every message ends here: what is spared here is spared a million times.
            first = 0
            if type(message) is str:
                try:
                    payload = message.encode()
                    first = _TEXT
                except UnicodeEncodeError:
                    pass  # told below, in full
            elif type(message) is bytes:
                first, payload = _BINARY, message
            if first and outbox.gate is LONE:
                outbox.begin(first, payload)
                return
            if first == outbox.first and outbox.quick:
                size = outbox.size + len(payload)
                if size < outbox.max_size and len(outbox.run) < outbox.room:
                    outbox.size = size
                    outbox.run.append(payload)
                    return
        if is_whole(message):
            await outbox.accept(*encode(message, text))  # type: ignore[arg-type]
        else:
            await send_fragments(outbox, message, text)

    async def send_many(self, messages: Iterable[DataLike]) -> None:
        """Accept messages for sending, in order, as if each had been given to `send`.

        Cancelling is safe: a first part of them has been accepted, the rest not. A message that cannot be sent raises
        as in `send`; those before it have been accepted.
        """
        await send_many(self.outbox, messages)

    def offer(self, texts: Sequence[str]) -> int:
        """Accept as many texts, in order, as can be at once, and tell how many; the next is for `send`.

        Nothing is raised for one that cannot be sent, nor when the connection is closed: `send` does.

        Raises:
            WrongLoop: called from another event loop or thread.
        """
        return offer(self.outbox, texts)

    async def flush(self) -> None:
        """Wait until everything accepted so far is written to the socket.

        Cancelling is safe. It says nothing about what the peer has read. With TLS on the ``websockets`` transport it
        ends when the TLS layer has taken it.

        Raises:
            ConnectionClosed: the connection is, or was closed meanwhile.
        """
        await self.outbox.flush()

    @property
    def is_reliable(self) -> bool:
        """Whether both ends speak the envelope, so that messages are acknowledged, and survive a break."""
        return False

    async def delivered(self) -> None:
        """Wait until the peer's application has taken everything accepted so far.

        Cancelling is safe. It waits through breaks, for as long as the session lives.

        Raises:
            EnvelopeRefused: the connection is not reliable (see `is_reliable`).
            DeliveryUnknown: the peer closed before it told.
            SessionLost: the connection broke, and could not be resumed.
        """
        raise EnvelopeRefused

    # Receiving

    @overload
    def recv(self, decode: Literal[True]) -> Coroutine[Any, Any, str]: ...
    @overload
    def recv(self, decode: Literal[False]) -> Coroutine[Any, Any, bytes]: ...
    @overload
    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]: ...
    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Any]:
        """Receive the next message: ``str`` if it is text, ``bytes`` if binary, or what ``decode`` asks for.

        What arrived before the connection closed can still be received. Cancelling is safe: the next call gets the
        message.

        Raises:
            ConnectionClosed: nothing is left, and the connection is closed.
            ConcurrencyError: somebody else is receiving.
        """
        return self._transport.recv(decode)

    @property
    def unread(self) -> int:
        """Frames that have arrived, and wait to be received."""
        return len(self.reader.items)

    def discard_unread(self) -> int:
        """Drop the whole messages that have arrived, and tell of how many frames.

        A message whose rest is still to come stays, and nothing is dropped while somebody receives.
        """
        return self._transport.discard_unread()

    @property
    def is_detached(self) -> bool:
        """Whether there is no socket at present, though there may be one again; never without `is_reliable`."""
        return False

    def watch(
        self,
        *,
        on_end: Callable[[], None],
        on_full: Callable[[], bool],
        on_detached: Callable[[], None] | None = None,
    ) -> None:
        """Be told once that the connection closes or is lost, and asked to make room when too many frames wait.

        None of these may block or raise; ``on_full`` returns True if it made room, else reading pauses;
        ``on_detached`` is called whenever a reliable connection has lost its socket.
        """
        self.outbox.on_end = on_end
        self._transport.on_full(on_full)

    def deaf_since(self, when: float) -> bool:
        """Whether reading was paused at any time since an instant of the loop's clock, so that a pong may be unread."""
        return self._transport.deaf_since(when)

    def silence(self) -> float | None:
        """Seconds since the peer was heard; None where the platform does not tell."""
        return silence(self._transport.transport)

    def fail(self, code: int, reason: str) -> None:
        """Close for a reason, and be gone within ``close_timeout``, whether the peer answers or not."""
        self._transport.fail(code, reason)

    def abort(self) -> None:
        """Drop the connection, without a closing handshake."""
        self._transport.abort()

    def recv_many(self, max: int | None = None) -> Coroutine[Any, Any, list[Data]]:  # noqa: A002
        """Receive what is here, one message at least, at most ``max``; waits only for the first.

        Cancelling is safe, and errors are those of `recv`.
        """
        return self._transport.recv_many(max)

    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        """Receive the next message frame by frame; the iterator has to be used up.

        Cancelling before the first frame is safe; after it, the connection has to be closed.
        """
        return self._transport.recv_streaming(decode)

    def __aiter__(self) -> AsyncIterator[Data]:
        """Receive messages until the connection is closed in order; raise ConnectionClosedError if otherwise."""
        return self._transport.messages()

    # Control

    async def ping(self, data: DataLike | None = None) -> Awaitable[float]:
        """Send a ping behind all messages accepted so far; the result can be awaited for its latency in seconds.

        Waits while the socket takes nothing. Cancelling is safe.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: a ping with the same ``data`` has no pong yet.
        """
        await self._written()
        return await self._transport.ping(data)

    async def pong(self, data: DataLike = b"") -> None:
        """Send a pong that nobody asked for, behind all messages accepted so far. Cancelling is safe."""
        await self._written()
        await self._transport.pong(data)

    async def _written(self) -> None:
        self.outbox.check_loop()
        if self._transport.blocked:
            await self.outbox.flush()

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Write what was accepted and what senders wait for, then do the closing handshake.

        Returns when the connection is gone, at the latest after twice ``close_timeout``: once for messages that the
        peer does not take, once for its answer. What arrives meanwhile can still be received as far as it fits into the
        queue. Cancelling it while messages are being written drops the connection; later, closing goes on by itself.

        Raises:
            ProtocolError: ``code`` or ``reason`` cannot be sent.
        """
        try:
            size = len(Close(code, reason).serialize())
        except UnicodeEncodeError as exc:
            raise ProtocolError(f"close reason holds a lone surrogate at position {exc.start}") from exc
        if size > MAX_CONTROL:
            raise ProtocolError(f"close reason of {len(reason.encode())} bytes: must be at most {MAX_CONTROL - 2}")
        transport, outbox = self._transport, self.outbox
        outbox.check_loop()
        if outbox.fragmenting:
            transport.fail(CloseCode.INTERNAL_ERROR, "close during fragmented message")
        elif transport.state is not State.OPEN:
            await transport.close()
        elif not outbox.ending:
            await self._drain()
            await transport.close(code, reason)
        await transport.wait_closed()

    async def _drain(self) -> None:
        transport = self._transport
        try:
            async with asyncio.timeout(transport.close_timeout):
                await self.outbox.drain()
        except TimeoutError:
            transport.abort(TimeoutError("timed out while closing connection: the peer does not read"))
        except asyncio.CancelledError:
            transport.abort()
            raise

    async def wait_closed(self) -> None:
        """Wait until the connection is gone. Cancelling is safe."""
        await self._transport.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    # What it is

    @property
    def id(self) -> UUID:
        """Unique; in log records."""
        return self._transport.id

    @property
    def logger(self) -> LoggerLike:
        """Where the connection logs."""
        return self._transport.logger

    @property
    def transport(self) -> Any:
        """The asyncio transport below."""
        return self._transport.transport

    @property
    def request(self) -> Request | None:
        """The opening handshake's request."""
        return self._transport.request

    @property
    def response(self) -> Response | None:
        """The opening handshake's response."""
        return self._transport.response

    @property
    def subprotocol(self) -> Subprotocol | None:
        """What was negotiated, if anything."""
        return self._transport.subprotocol

    @property
    def state(self) -> State:
        """Of the closing handshake, as RFC 6455 names it."""
        return self._transport.state

    @property
    def latency(self) -> float:
        """Seconds that the last answered ping took; 0 before the first."""
        return self._transport.latency

    @property
    def local_address(self) -> Any:
        """As the socket's ``getsockname`` gives it."""
        return self._transport.local_address

    @property
    def remote_address(self) -> Any:
        """As the socket's ``getpeername`` gives it."""
        return self._transport.remote_address

    @property
    def close_code(self) -> int | None:
        """What the peer closed with; 1006 without a CLOSE frame, None while open."""
        return self._transport.close_code

    @property
    def close_reason(self) -> str | None:
        """What the peer gave as its reason; None while open."""
        return self._transport.close_reason

    @property
    def close_received(self) -> int | None:
        """The code in the peer's CLOSE frame, as soon as that has arrived; None before, or without one."""
        return self._transport.close_received
