"""Frames from ``picows`` to an endpoint, once the opening handshake is done."""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64encode
from typing import Any

import picows
from picows import WSFrame, WSListener, WSMsgType, WSTransport
from picows.picows import WSProtocol  # type: ignore[attr-defined]  # absent from its stubs
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.utils import accept_key, apply_mask

from penstock.transport.base import Close, CloseCode, Options, State
from penstock.transport.endpoint import Endpoint
from penstock.transport.inbox import BadText

READ_BUFFER_BYTES = 2048
"""What a connection starts with, the least that ``picows`` allows; it grows with what arrives."""

_NO_LIMIT = 2**62
_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_KEY = re.compile(rb"^Sec-WebSocket-Key: (.*?)\r$", re.MULTILINE | re.IGNORECASE)
_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: penstock\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: %b\r\n\r\n" % b64encode(bytes(16))
)
_RESPONSE = (
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n"
)

# An adapter, because picows makes a logger of its own for each connection out of a logger. What it has to report, an
# exception tells.
_logger = logging.LoggerAdapter(logging.getLogger("penstock.picows"), {})
_logger.logger.setLevel(logging.CRITICAL)
_looking: set[asyncio.Task[None]] = set()


def attach(endpoint: Endpoint, transport: asyncio.Transport, options: Options, rest: bytes) -> None:
    """Let ``picows`` read frames from ``transport`` for ``endpoint``; the opening handshake is done.

    Args:
        rest: what has been read behind the handshake.
    """
    client = endpoint.frames.masked
    mute = Mute(transport)
    listener = Listener(endpoint)
    protocol = WSProtocol(
        "penstock",
        "/",
        client,
        lambda *_: listener,
        _logger,
        True,  # disconnect_on_exception: `Mute` hears of it
        None,  # websocket_handshake_timeout
        False,  # enable_auto_ping
        None,
        None,
        picows.WSAutoPingStrategy.PING_WHEN_IDLE,
        False,  # enable_auto_pong
        min((limit for limit in options.size_limits if limit is not None), default=_NO_LIMIT),
        None,  # extra_headers
        READ_BUFFER_BYTES,
    )
    protocol.connection_made(mute)
    _feed(protocol, _response_to(mute.said) if client else _REQUEST)
    mute.heard_by = listener
    endpoint.opened(transport)
    transport.set_protocol(protocol)
    _feed(protocol, rest)


def _response_to(request: bytes) -> bytes:
    key = _KEY.search(request)
    assert key is not None
    return _RESPONSE.format(accept_key(key[1].decode())).encode()


def _feed(protocol: Any, data: bytes) -> None:
    while data:
        buffer = protocol.get_buffer(-1)
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        protocol.buffer_updated(size)
        data = data[size:]


class Mute:
    """What ``picows`` believes to be its transport. It shakes hands with nobody, and writes only when it gives up."""

    __slots__ = ("_transport", "heard_by", "said")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.said = b""
        self.heard_by: Listener | None = None

    def write(self, data: bytes) -> None:
        if self.heard_by is None:
            self.said = bytes(data)
        else:
            self.heard_by.gave_up(bytes(data))

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return _NoSocket if name == "socket" else self._transport.get_extra_info(name)

    def close(self) -> None: ...
    def abort(self) -> None: ...


class _NoSocket:
    """The options of a socket are its transport's business; one that is no TCP socket would refuse them."""

    @staticmethod
    def fileno() -> int:
        return -1

    @staticmethod
    def setsockopt(*_: object) -> None: ...
    @staticmethod
    def getsockopt(*_: object) -> int:
        return 0


class Listener(WSListener):
    """Gets the frames of one connection from ``picows``."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._put = endpoint.inbox.put
        self._transport: WSTransport
        self._complaint: bytes | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind, endpoint = frame.msg_type, self._endpoint
        if not frame.fin or frame.rsv1 or frame.rsv2 or frame.rsv3 or not endpoint.straight:
            endpoint.receive(_copied(frame))
        elif kind is _TEXT:
            arrived = endpoint.arrived
            arrived.messages += 1
            arrived.bytes += frame.payload_size
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self._put(BadText(frame.get_payload_as_bytes()))
            else:
                self._put(text)
        elif kind is _BINARY:
            arrived = endpoint.arrived
            arrived.messages += 1
            arrived.bytes += frame.payload_size
            self._put(frame.get_payload_as_bytes())
        else:
            endpoint.receive(_copied(frame))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._complain()
        self._endpoint.lost()

    def pause_writing(self) -> None:
        self._endpoint.pause_writing()

    def resume_writing(self) -> None:
        self._endpoint.resume_writing()

    def gave_up(self, close_frame: bytes) -> None:
        """``picows`` has found a frame that is none, and wants to send CLOSE for it.

        It may still deliver the frame before that one, and, not having understood where the bad one ends, others; so
        it is told on a moment later, and from now on every frame is looked at.
        """
        if self._complaint is None:
            self._complaint = close_frame
            self._endpoint.straight = False
            _look_at(self._transport)
            self._endpoint.loop.call_soon(self._complain)

    def _complain(self) -> None:
        endpoint = self._endpoint
        if self._complaint is None or endpoint.discarding or endpoint.state is State.CLOSED:
            return
        close = Close.parse(_payload(self._complaint))
        if close.code == CloseCode.MESSAGE_TOO_BIG:
            size = re.search(r"(\d+) >", close.reason)
            endpoint.refuse(PayloadTooBig(int(size[1]) if size else None, endpoint.room()))
        else:
            endpoint.broken(close.code, close.reason, ProtocolError(close.reason))


def _payload(frame: bytes) -> bytes:
    """Of a control frame, masked or not."""
    return apply_mask(frame[6:], frame[2:6]) if frame[1] & 0x80 else frame[2:]


def _copied(frame: WSFrame) -> Frame:
    return Frame(
        Opcode(frame.msg_type.value),
        frame.get_payload_as_bytes(),
        bool(frame.fin),
        bool(frame.rsv1),
        bool(frame.rsv2),
        bool(frame.rsv3),
    )


def _look_at(transport: WSTransport) -> None:
    """Await the exception that ``picows`` keeps for its user, so that it is not reported as never retrieved."""

    async def look() -> None:
        try:
            await transport.wait_disconnected()
        except Exception as exc:  # noqa: BLE001 - whatever it is, the endpoint has told it
            _logger.debug("closed by picows: %s", exc)

    task = asyncio.get_running_loop().create_task(look())
    _looking.add(task)
    task.add_done_callback(_looking.discard)
