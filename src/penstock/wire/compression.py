"""Bodies of many messages, compressed as one; and whether that is worth trying. Pure."""

from __future__ import annotations

import zlib
from enum import IntFlag

import zstandard

_LEVEL = 1
_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_WINDOW_BYTES = 8 * 1024 * 1024
"""What a decoder should support at least (RFC 8878 section 3.1.1.1.2), and all that a peer can make this one hold."""

_WORTHWHILE_MESSAGES = 10
_LONGEST_PAUSE = 64
_LEAST_SAVING = 16
"""A compressed body is used if it saves at least a sixteenth."""


class Codec(IntFlag):
    """What compresses; as bits, so that a set of them is one number."""

    ZLIB = 1
    ZSTD = 2


AVAILABLE = Codec.ZLIB | Codec.ZSTD
"""What this side can compress and decompress."""


class BadCompression(ValueError):  # noqa: N818 - as its siblings in penstock.errors
    """A compressed body that is not what it says to be."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return self.what


# A context is set up twice as slowly as 2 KB are compressed, and serves one thread at a time: each call borrows one.
_compressors: list[zstandard.ZstdCompressor] = []
_decompressors: list[zstandard.ZstdDecompressor] = []


def compress(codec: Codec, data: bytes) -> bytes:
    """``data`` in one zlib stream or zstd frame, the fast way.

    Raises:
        BadCompression: ``codec`` is none, or several.
    """
    if codec == Codec.ZSTD:
        compressor = _compressors.pop() if _compressors else zstandard.ZstdCompressor(level=_LEVEL)
        compressed = compressor.compress(data)
        _compressors.append(compressor)
        return compressed
    if codec == Codec.ZLIB:
        return zlib.compress(data, _LEVEL)
    raise BadCompression(f"codec {int(codec)} is unknown")


def decompress(codec: Codec, data: bytes | memoryview, size: int) -> bytes:
    """The ``size`` bytes that ``data`` holds, in memory for at most one more.

    Raises:
        BadCompression: ``data`` is damaged, truncated, more than one stream or frame, or not ``size`` bytes long when
            decompressed; or ``codec`` is none, or several.
    """
    if codec == Codec.ZSTD:
        return _decompress_zstd(data, size)
    if codec == Codec.ZLIB:
        return _decompress_zlib(data, size)
    raise BadCompression(f"codec {int(codec)} is unknown")


def _decompress_zlib(data: bytes | memoryview, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(data, size + 1)
    except zlib.error as exc:
        raise BadCompression(f"the zlib stream is damaged: {exc}") from exc
    if len(raw) > size:
        raise BadCompression(f"the zlib stream holds more than {size} bytes")
    if not stream.eof:
        raise BadCompression(f"the zlib stream is truncated after {len(raw)} of {size} bytes")
    if stream.unused_data:
        raise BadCompression(f"{len(stream.unused_data)} bytes trail the zlib stream")
    if len(raw) != size:
        raise BadCompression(f"the zlib stream holds {len(raw)} bytes, not {size}")
    return raw


def _decompress_zstd(data: bytes | memoryview, size: int) -> bytes:
    if data[:4] != _MAGIC:  # a skippable frame has parameters too, and they mean something else
        raise BadCompression("the body is no zstd frame")
    if size == 0:
        if data != compress(Codec.ZSTD, b""):  # the library looks at nothing behind a declared size of 0
            raise BadCompression("the zstd frame is not an empty one")
        return b""
    try:
        # The library makes room for the declared size, whatever it is told about the greatest: so look first.
        declared = zstandard.get_frame_parameters(data).content_size
        if declared not in {size, zstandard.CONTENTSIZE_UNKNOWN}:
            raise BadCompression(f"the zstd frame declares {declared} bytes, not {size}")
        decompressor = (
            _decompressors.pop() if _decompressors else zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        )
        raw = decompressor.decompress(data, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise BadCompression(f"the zstd frame does not hold {size} bytes: {exc}") from exc
    _decompressors.append(decompressor)
    if len(raw) != size:
        raise BadCompression(f"the zstd frame holds {len(raw)} bytes, not {size}")
    return raw


class Trials:
    """Whether to try to compress the next batch, by how many messages it has and how earlier attempts ended.

    After an attempt that did not shrink its batch the next 1, 2, 4, … and at most 64 batches are left as they are; a
    success starts over.
    """

    __slots__ = ("_pause", "_skip")

    def __init__(self) -> None:
        self._pause = 1
        self._skip = 0

    def may_try(self, messages: int) -> bool:
        """Whether a batch of so many messages should be compressed; below ten it is not. Ask once a batch."""
        if messages < _WORTHWHILE_MESSAGES:
            return False
        if self._skip:
            self._skip -= 1
            return False
        return True

    def tried(self, raw: int, compressed: int) -> bool:
        """Take note of an attempt, in bytes before and after; return whether its result should be used."""
        if raw - compressed >= raw // _LEAST_SAVING and compressed < raw:
            self._pause = 1
            return True
        self._skip = self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return False
