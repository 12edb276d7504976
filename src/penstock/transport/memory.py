"""Both ends of a connection in one process: no sockets, no ports, the same rules. For tests.

::

    client, server = pair()
    await client.send("hello")
    assert await server.recv() == "hello"
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator
from typing import Any

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame
from websockets.protocol import Protocol, Side
from websockets.streams import StreamReader

from penstock.transport.base import Options
from penstock.transport.endpoint import Endpoint

CHUNK_BYTES = 65_536
"""What one read brings at most, as with a socket."""
MAX_CONTROL = 125
"""Bytes in a control frame (RFC 6455 section 5.5)."""


class Pipe(asyncio.Transport):
    """One end of a byte stream in memory: buffers, limits and half-close like a socket's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._buffer: deque[bytes] = deque()
        self._size = 0
        self._high, self._low = 65_536, 16_384
        self._paused_writing = self._reading_paused = self._pumping = False
        self._eof_written = self._eof_delivered = self._closing = self._dead = False
        self.peer: Pipe
        self.endpoint: MemoryEndpoint

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return "memory" if name in {"sockname", "peername"} else default

    def get_write_buffer_size(self) -> int:
        return self._size

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 65_536 if high is None else high
        self._low = self._high // 4 if low is None else low
        self._check_limits()

    def _check_limits(self) -> None:
        if not self._paused_writing and self._size > self._high:
            self._paused_writing = True
            self.endpoint.pause_writing()
        elif self._paused_writing and self._size <= self._low:
            self._paused_writing = False
            self.endpoint.resume_writing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self._eof_written:
            return
        self._buffer.append(bytes(data))
        self._size += len(data)
        self._pump_soon()
        self._check_limits()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._eof_written = True
        self._pump_soon()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        """Deliver what is buffered, then end both directions."""
        self._closing = self._eof_written = True
        self._pump_soon()

    def abort(self) -> None:
        """Drop what is buffered, and end both directions."""
        self._buffer.clear()
        self._size = 0
        self.close()

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        self._reading_paused = False
        self.peer._pump_soon()

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Carry a chunk to the other end, and the end of the stream behind the last one."""
        self._pumping = False
        if self.peer._dead:
            self._buffer.clear()
            self._size = 0
        elif not self.peer._reading_paused:
            chunk = self._take()
            if chunk:
                self.peer.endpoint.data_received(chunk)
        self._check_limits()
        if self._buffer:
            if not self.peer._reading_paused:
                self._pump_soon()
        elif self._eof_written and not self._eof_delivered:
            self._eof_delivered = True
            self.peer.close()
            if self._closing:
                self._die()
        elif self._closing:
            self._die()

    def _take(self) -> bytes:
        if not self._buffer:
            return b""
        data = self._buffer.popleft()
        if len(data) > CHUNK_BYTES:
            self._buffer.appendleft(data[CHUNK_BYTES:])
            data = data[:CHUNK_BYTES]
        self._size -= len(data)
        return data

    def _die(self) -> None:
        if not self._dead:
            self._dead = True
            self.endpoint.lost()


class MemoryEndpoint(Endpoint):
    """Frames cut out of the byte stream by the parser of ``websockets``."""

    def __init__(self, protocol: Protocol, options: Options) -> None:
        super().__init__(protocol, options)
        self._reader = StreamReader()
        self._parser = self._parse()

    def _parse(self) -> Generator[None, None, Frame]:
        masked = self.protocol.side is Side.SERVER
        room = self.room()
        if room is not None:
            room = max(room, MAX_CONTROL)  # limits are for data, which `receive` looks at again
        return Frame.parse(self._reader.read_exact, mask=masked, max_size=room)

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)
        while not self.discarding:
            try:
                next(self._parser)
            except StopIteration as whole:
                self.receive(whole.value)
                self._parser = self._parse()
            except (ProtocolError, PayloadTooBig) as exc:
                self.refuse(exc)
            else:
                return  # the rest of the frame is to come


def pair(options: Options | None = None) -> tuple[MemoryEndpoint, MemoryEndpoint]:
    """A client's end and a server's, connected.

    Raises:
        ValueError: ``options`` ask for extensions: there is no opening handshake to negotiate them in.
    """
    options = Options() if options is None else options
    if options.asked_for_extensions:
        raise ValueError("a pair in memory has no handshake to negotiate extensions in; open a connection to try them")
    loop = asyncio.get_running_loop()
    pipes = Pipe(loop), Pipe(loop)
    ends = [
        MemoryEndpoint(Protocol(side, max_size=options.max_size, logger=options.logger), options)
        for side in (Side.CLIENT, Side.SERVER)
    ]
    for pipe, peer, end in zip(pipes, reversed(pipes), ends, strict=True):
        pipe.peer, pipe.endpoint = peer, end
    for pipe, end in zip(pipes, ends, strict=True):
        end.opened(pipe)
    return ends[0], ends[1]
