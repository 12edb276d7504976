"""A peer that writes whatever bytes a test wants, and shows every frame that comes back."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Any, NamedTuple

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    enable_client_permessage_deflate,
    enable_server_permessage_deflate,
)
from websockets.frames import Close
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri
from websockets.utils import apply_mask

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10

_MASK = b"\x37\xfa\x21\x3d"


def frame(first: int, payload: bytes = b"", *, masked: bool, width: int | None = None, mask: bytes = _MASK) -> bytes:
    """Bytes of a frame, sane or not.

    Args:
        first: its first byte: FIN, RSV and opcode bits.
        width: bytes of the length field (1, 2 or 8), the smallest that does by default.
    """
    size = len(payload)
    if width is None:
        width = 1 if size < 126 else 2 if size < 65_536 else 8
    bit = 0x80 if masked else 0
    if width == 1:
        head = struct.pack("!BB", first, bit | size)
    elif width == 2:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    return head + (mask + apply_mask(payload, mask) if masked else payload)


class Seen(NamedTuple):
    """A frame that came."""

    first: int
    payload: bytes
    mask: bytes | None

    @property
    def opcode(self) -> int:
        return self.first & 0x0F

    @property
    def fin(self) -> bool:
        return bool(self.first & FIN)

    @property
    def close(self) -> Close:
        """What a CLOSE frame says."""
        assert self.opcode == CLOSE, self
        return Close.parse(self.payload)


def cut(buffer: bytearray) -> Seen | None:
    """Take the first frame out of ``buffer``, if it is whole."""
    if len(buffer) < 2:
        return None
    first, size = buffer[0], buffer[1] & 0x7F
    masked = bool(buffer[1] & 0x80)
    start = 2
    if size >= 126:
        start = 4 if size == 126 else 10
        if len(buffer) < start:
            return None
        size = int.from_bytes(buffer[2:start], "big")
    mask = bytes(buffer[start : start + 4]) if masked else None
    start += 4 if masked else 0
    if len(buffer) < start + size:
        return None
    payload = bytes(buffer[start : start + size])
    del buffer[: start + size]
    return Seen(first, payload if mask is None else apply_mask(payload, mask), mask)


class RawPeer(asyncio.Protocol):
    """The other end of a connection, below all rules.

    Args:
        client: it is the client's end, and masks its frames.
        url: the client's end does an opening handshake with it.
        deflate: negotiates permessage-deflate; frames are shown, and sent, as they are on the wire all the same.
        handshake: there is one.
    """

    def __init__(self, *, client: bool, url: str = "", deflate: bool = False, handshake: bool = True) -> None:
        self.client = client
        self.hangs_up = True
        """It ends the stream when a CLOSE frame has come."""
        self.transport: Any = None
        self.frames: deque[Seen] = deque()
        self.ended = False
        self.deflate: PerMessageDeflate
        """What compresses, once it is negotiated."""
        self._url, self._deflate = url, deflate
        self._data = bytearray()
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        if not handshake:
            self.opened.set_result(None)
        self._gone: asyncio.Future[None] = loop.create_future()

    # Told by the transport

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self.client and not self.opened.done():
            extensions = enable_client_permessage_deflate(None) if self._deflate else None
            self._protocol: Any = ClientProtocol(parse_uri(self._url), extensions=extensions)
            self._protocol.send_request(self._protocol.connect())
            self._say()

    def _say(self) -> None:
        for data in self._protocol.data_to_send():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self.opened.done() and not self._shake_hands():
            return
        while (seen := cut(self._data)) is not None:
            self.frames.append(seen)
            if seen.opcode == CLOSE and self.hangs_up:
                self.transport.close()
        self._changed.set()

    def _shake_hands(self) -> bool:
        head, found, rest = bytes(self._data).partition(b"\r\n\r\n")
        if not found:
            return False
        self._data = bytearray(rest)
        if not self.client:
            extensions = enable_server_permessage_deflate(None) if self._deflate else None
            self._protocol = ServerProtocol(extensions=extensions)
        self._protocol.receive_data(head + found)
        [event] = self._protocol.events_received()
        if isinstance(event, Request):
            self._protocol.send_response(self._protocol.accept(event))
            self._say()
        assert self._protocol.handshake_exc is None
        if self._protocol.extensions:
            [self.deflate] = self._protocol.extensions
        self.opened.set_result(None)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self._changed.set()
        self._gone.set_result(None)

    def lost(self) -> None:
        self.connection_lost(None)

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass

    # For tests

    def frame(self, first: int, payload: bytes = b"", **how: Any) -> bytes:
        """Bytes of a frame as this end makes them."""
        return frame(first, payload, **{"masked": self.client, **how})

    def send(self, first: int, payload: bytes = b"", **how: Any) -> None:
        """Write one frame."""
        self.transport.write(self.frame(first, payload, **how))

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def next(self) -> Seen:
        """The next frame that comes.

        Raises:
            EOFError: the stream ended.
        """
        while not self.frames:
            if self.ended:
                raise EOFError
            self._changed.clear()
            await self._changed.wait()
        return self.frames.popleft()

    async def rest(self) -> list[Seen]:
        """All frames until the stream ends."""
        await asyncio.shield(self._gone)
        frames, self.frames = list(self.frames), deque()
        return frames

    async def end(self) -> Seen:
        """The CLOSE frame that ends the stream; nothing but pongs may come before it."""
        frames = [seen for seen in await self.rest() if seen.opcode != PONG]
        assert [seen.opcode for seen in frames] == [CLOSE], frames
        return frames[0]

    async def settle(self) -> None:
        """Wait until the other end has seen everything that was written."""
        self.send(FIN | PING, b"settled?")
        earlier = []
        while (seen := await self.next()).payload != b"settled?":
            earlier.append(seen)
        self.frames.extendleft(reversed(earlier))

    def answer_close(self, payload: bytes | None = None) -> asyncio.Task[Seen]:
        """Do the closing handshake as the one who is asked, with the payload that came unless told otherwise."""
        self.hangs_up = False
        return asyncio.get_running_loop().create_task(self._answer_close(payload))

    async def _answer_close(self, payload: bytes | None) -> Seen:
        while (seen := await self.next()).opcode != CLOSE:
            assert seen.opcode == PONG, seen
        self.send(FIN | CLOSE, seen.payload if payload is None else payload)
        self.transport.close()
        return seen

    def close(self) -> None:
        """End the stream behind what was written."""
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._gone)
