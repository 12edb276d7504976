"""What every transport offers: the asyncio connection of ``websockets``, and a way to write many frames at once.

The exceptions and small types of ``websockets`` that the rest of penstock uses are re-exported here and only here.
"""

from __future__ import annotations

import os
import sys
from asyncio import AbstractEventLoop, Task
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from struct import Struct
from typing import Any, Literal, Protocol, TypeAlias
from uuid import UUID
from weakref import WeakKeyDictionary

from websockets.client import process_exception as is_transient
from websockets.datastructures import Headers, HeadersLike
from websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
    ProtocolError,
    SecurityError,
)
from websockets.extensions.base import Extension
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.headers import validate_subprotocols
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.typing import Data, LoggerLike, Origin, Subprotocol
from websockets.uri import WebSocketURI, parse_uri

from penstock._version import __version__
from penstock.errors.urls import shown_url
from penstock.metrics.traffic import Arrivals, Traffic
from penstock.wire.frames import ClientFrames, Frames, ServerFrames

try:
    from websockets.speedups import apply_mask
except ImportError:  # pragma: no cover - where websockets was built without its C extension
    from websockets.utils import apply_mask

__all__ = [
    "USER_AGENT",
    "ClientFrames",
    "ClientOptions",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Data",
    "Encode",
    "Frames",
    "Headers",
    "HeadersLike",
    "Incoming",
    "InvalidHandshake",
    "InvalidMessage",
    "InvalidStatus",
    "InvalidURI",
    "LoggerLike",
    "NegotiationError",
    "Options",
    "Origin",
    "Owner",
    "ProtocolError",
    "Request",
    "Response",
    "SecurityError",
    "ServerOptions",
    "State",
    "Subprotocol",
    "Transport",
    "WebSocketURI",
    "encoder_of",
    "frames_of",
    "is_transient",
    "parse_uri",
    "validate_subprotocols",
    "without_credentials",
]

USER_AGENT = f"Python/{sys.version_info[0]}.{sys.version_info[1]} penstock/{__version__}"
"""What a client and a server say they are."""

Limits: TypeAlias = "int | tuple[int | None, int | None] | None"
Encode: TypeAlias = Callable[[int, bytes], tuple[int, bytes]]
"""(first byte, payload) of a frame, as an extension such as permessage-deflate rewrites them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What both ends may set; names, meanings and defaults are those of ``websockets``, but for ``compression``."""

    compression: Literal["deflate"] | None = None
    """``"deflate"`` negotiates permessage-deflate; not offered unless asked for by name."""
    extensions: Sequence[Any] | None = None
    subprotocols: Sequence[Subprotocol] | None = None
    open_timeout: float | None = 10
    ping_interval: float | None = 20
    ping_timeout: float | None = 20
    close_timeout: float | None = 10
    max_size: Limits = 2**20
    max_queue: Limits = 16
    write_limit: int | tuple[int, int | None] = 2**15
    logger: LoggerLike | None = None
    network: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the event loop's ``create_connection`` or ``create_server``."""

    def __post_init__(self) -> None:
        if self.compression not in (None, "deflate"):
            raise ValueError(f"unsupported compression: {self.compression!r}; use 'deflate' or None")
        for name in ("open_timeout", "ping_interval", "ping_timeout", "close_timeout"):
            seconds = getattr(self, name)
            if seconds is not None and not (isinstance(seconds, int | float) and seconds >= 0):
                raise ValueError(f"{name}={seconds!r}: must be a number of seconds, at least 0, or None for no limit")
        for name in ("max_size", "max_queue", "write_limit"):
            value = getattr(self, name)
            limits = value if isinstance(value, tuple) else (value,)
            if not all(limit is None or (isinstance(limit, int | float) and limit >= 0) for limit in limits):
                raise ValueError(f"{name}={value!r}: must be at least 0, or None for no limit")
        high, low = self.write_limits
        if high is None or high < (low or 0):
            raise ValueError(f"write_limit={self.write_limit!r}: must be bytes, or (high, low) with 0 <= low <= high")
        assert self.queue_limits

    @property
    def asked_for_extensions(self) -> bool:
        return self.compression is not None or self.extensions is not None

    @property
    def queue_limits(self) -> tuple[int | None, int | None]:
        """Frames at which reading pauses, and at which it goes on."""
        if isinstance(self.max_queue, tuple):
            high, low = self.max_queue
        else:
            high, low = self.max_queue, None
        if high is not None and low is None:
            low = high // 4
        if high is None and low is not None:
            high = low * 4
        if high is not None and low is not None and not 0 <= low <= high:
            raise ValueError(f"max_queue={self.max_queue!r}: must be (high, low) with 0 <= low <= high")
        return high, low

    @property
    def size_limits(self) -> tuple[int | None, int | None]:
        """Bytes in a message, and in a fragment of one."""
        return self.max_size if isinstance(self.max_size, tuple) else (self.max_size, None)

    @property
    def max_frame(self) -> int | None:
        """Bytes in a frame."""
        return min((limit for limit in self.size_limits if limit is not None), default=None)

    @property
    def write_limits(self) -> tuple[int, int | None]:
        """Bytes in the socket's write buffer at which writing pauses, and at which it goes on."""
        return self.write_limit if isinstance(self.write_limit, tuple) else (self.write_limit, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions(Options):
    """What a client may set besides."""

    origin: Origin | None = None
    additional_headers: HeadersLike | None = None
    user_agent_header: str | None = USER_AGENT
    proxy: str | Literal[True] | None = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions(Options):
    """What a server may set besides; the hooks receive the penstock connection that is being opened."""

    origins: Sequence[Any] | None = None
    select_subprotocol: Callable[[Any, Sequence[Subprotocol]], Subprotocol | None] | None = None
    process_request: Callable[[Any, Request], Awaitable[Response | None] | Response | None] | None = None
    process_response: Callable[[Any, Request, Response], Awaitable[Response | None] | Response | None] | None = None
    server_header: str | None = USER_AGENT


class Owner(Protocol):
    """Who writes through a transport; told of what happens to it. None of these may block or raise."""

    def writable(self) -> None:
        """The socket takes data again after it had not."""

    def control(self) -> None:
        """A control frame goes out next: what has gathered goes before it."""

    def closing(self) -> None:
        """A CLOSE frame goes out next: the last chance to write, and no more messages may be accepted."""

    def closed(self) -> None:
        """The connection is gone."""


class Reader(Protocol):
    """What waits to be received, at a glance."""

    @property
    def items(self) -> Sized:
        """Frames that have arrived."""

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a message, or has received one in part."""


class Transport(Protocol):
    """An open connection. Everything but `write` and what it needs is the interface of ``websockets``.

    A transport belongs to one event loop.
    """

    loop: AbstractEventLoop
    id: UUID
    logger: LoggerLike
    frames: Frames
    """Builds the frames of this end."""
    encode: Encode | None
    """Applies the negotiated extensions to a frame; None where there are none, or they were not asked for."""
    owner: Owner
    close_timeout: float | None
    traffic: Traffic
    """Counts what happens here."""
    arrived: Arrivals
    """Counts messages as they arrive: `Traffic.received`, unless they may be frames of an envelope."""

    @property
    def blocked(self) -> bool:
        """The write buffer is above its limit; `Owner.writable` tells when it no longer is."""

    @property
    def state(self) -> State: ...
    @property
    def request(self) -> Request | None: ...
    @property
    def response(self) -> Response | None: ...
    @property
    def subprotocol(self) -> Subprotocol | None: ...
    @property
    def latency(self) -> float: ...
    @property
    def local_address(self) -> Any: ...
    @property
    def remote_address(self) -> Any: ...
    @property
    def close_code(self) -> int | None: ...
    @property
    def close_reason(self) -> str | None: ...
    @property
    def close_received(self) -> int | None:
        """The code in the peer's CLOSE frame, as soon as that has arrived."""

    @property
    def close_exc(self) -> ConnectionClosed:
        """What to raise once `state` is CLOSED."""

    @property
    def transport(self) -> Any:
        """The asyncio transport below."""

    def write(self, data: bytes) -> None:
        """Write whole frames; never blocks. What cannot be sent at once is buffered below."""

    async def drained(self) -> None:
        """Wait until the write buffer is empty, or the connection gone."""

    @property
    def reader(self) -> Reader:
        """What has arrived; the same object as long as the connection lives."""

    def discard_unread(self) -> int:
        """Drop the whole messages that have arrived, and tell of how many frames.

        A message whose rest is still to come stays, and nothing is dropped while somebody receives.
        """

    def on_full(self, make_room: Callable[[], bool]) -> None:
        """Have something called when too many frames wait, before reading pauses: it returns True if it made room."""

    def divert(self, sink: Callable[[Any], None]) -> None:
        """Give every message that is here or comes to ``sink``: text, bytes, or a `penstock.transport.inbox.Part`."""

    def put_back(self, message: Data) -> None:
        """Have a message received again that was received whole."""

    def deaf_since(self, when: float) -> bool:
        """Whether reading was paused at any time since an instant: a pong may be unread in the socket."""

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]: ...
    def messages(self) -> AsyncIterator[Data]:
        """Until the connection is closed in order; ConnectionClosedError if otherwise."""

    def recv_many(self, max: int | None = None) -> Coroutine[Any, Any, list[Data]]: ...  # noqa: A002
    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]: ...
    async def ping(self, data: Any = None) -> Awaitable[float]: ...
    async def pong(self, data: Any = b"") -> None: ...
    async def close(self, code: int = 1000, reason: str = "") -> None: ...
    def fail(self, code: int, reason: str) -> None:
        """Send CLOSE, and be gone within `close_timeout`, whether the peer answers or not."""

    def abort(self, cause: BaseException | None = None) -> None:
        """Drop the connection without a closing handshake."""

    async def wait_closed(self) -> None: ...
    def reject(self, status: int, text: str) -> Response:
        """A server's HTTP response that refuses the handshake."""


class Incoming(Protocol):
    """Who takes the connections that a listening transport accepts."""

    def connecting(self, transport: Transport) -> Any:
        """A client asks: make the connection that the handshake's hooks are shown."""

    def answering(self, request: Request, response: Response) -> None:
        """The handshake is about to succeed: add to its answer what there is to add."""

    def refusing(self) -> bool:
        """The server is closing: answer 503."""

    def opened(self, connection: Any) -> Task[None]:
        """The handshake is done: a task now runs the handler, and closes the connection after it."""


_split = Struct("4s" * 1024).unpack
_masks: WeakKeyDictionary[AbstractEventLoop, Iterator[bytes]] = WeakKeyDictionary()


def _draw_masks() -> Iterator[bytes]:
    # The kernel's generator, 1024 keys at a time: a key costs 25 ns instead of a system call of 460.
    while True:
        yield from _split(os.urandom(4096))


def frames_of(*, client: bool, loop: AbstractEventLoop) -> Frames:
    """The builder of frames for one end of a connection.

    Masks are drawn for each event loop, so that no two threads, nor a process and its fork, share them.
    """
    if not client:
        return ServerFrames()
    masks = _masks.get(loop)
    if masks is None:
        masks = _masks[loop] = _draw_masks()
    return ClientFrames(masks, apply_mask)


def without_credentials(uri: WebSocketURI) -> str:
    """The URI as it may be shown and logged."""
    host = f"[{uri.host}]" if ":" in uri.host else uri.host
    return shown_url(f"{'wss' if uri.secure else 'ws'}://{host}:{uri.port}{uri.resource_name}")


def encoder_of(extensions: Sequence[Extension]) -> Encode | None:
    """What applies the negotiated ``extensions`` to outgoing frames, in the order in which they are sent."""
    if not extensions:
        return None

    def encode(first: int, payload: bytes) -> tuple[int, bytes]:
        frame = Frame(Opcode(first & 0x0F), payload, bool(first & 0x80))
        for extension in extensions:
            frame = extension.encode(frame)
        reserved = frame.rsv1 << 6 | frame.rsv2 << 5 | frame.rsv3 << 4
        return first & 0x8F | reserved, bytes(frame.data)

    return encode
