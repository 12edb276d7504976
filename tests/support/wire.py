"""What was written, read by the parser of ``websockets``."""

from __future__ import annotations

from collections.abc import Iterable

from websockets.frames import Frame
from websockets.streams import StreamReader


def parse(data: bytes, *, masked: bool) -> list[Frame]:
    """All frames in ``data``, which has to end with one."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    while True:
        at_end = reader.at_eof()
        try:
            next(at_end)
        except StopIteration as answer:
            if answer.value:
                return frames
        parser = Frame.parse(reader.read_exact, mask=masked)
        try:
            next(parser)
        except StopIteration as whole:
            frames.append(whole.value)
        else:
            raise AssertionError("a frame is cut off")


def payloads(data: bytes, *, masked: bool) -> list[bytes]:
    """The payloads of the frames in ``data``."""
    return [bytes(frame.data) for frame in parse(data, masked=masked)]


def masks(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    """The keys of masked frames in ``data`` whose payloads have ``sizes``."""
    keys, position = [], 0
    for size in sizes:
        position += 2 if size < 126 else 4 if size < 65_536 else 10
        keys.append(data[position : position + 4])
        position += 4 + size
    assert position == len(data)
    return keys
