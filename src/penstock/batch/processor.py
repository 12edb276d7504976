"""What is done to the messages of a batch: repeats dropped, urgent ones first, all packed into one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

import msgspec

from penstock.batch.policy import check_seconds
from penstock.errors import SerializationError
from penstock.message import BATCH, Content, Message, content_of, not_unicode
from penstock.wire.compression import BadCompression, Codec, Trials, compress, decompress
from penstock.wire.envelope import MAX_MESSAGES, BadFrame, unpack

MAX_RAW_BYTES = 16 * 1024 * 1024

_STORED = 0
_MOST_RAW_BYTES = (1 << 32) - 1


class _Packed(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """``[codec, n, raw, z]``: z is n messages as a msgpack array of raw bytes, compressed unless codec is 0."""

    codec: int
    n: int
    raw: int
    z: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Packed).decode


class BatchProcessor:
    """Prepares a batch for the network, and takes it apart at the other end.

    Args:
        compression_enabled: let `compress_batch` try to compress; it packs the messages into one in any case.
        deduplication_enabled: drop messages that have the type and content of an earlier one in the same batch.
        ordering_enabled: put urgent messages first.
        dedup_window: seconds in which a batcher drops messages that repeat the type and content of an earlier one; 0
            for never. Those with a key are left alone.
        ageing: seconds that a level of priority is worth to a batcher: a message goes before those of the level above
            that came more than this later, so that none waits for ever.
        codec: what compresses.
        max_messages: what a batch may hold.
        max_raw_bytes: what a batch may hold before it is compressed, and so what expanding one may take.

    Raises:
        ValueError: an argument is out of bounds; the message names it, its value and the bound.
    """

    def __init__(
        self,
        compression_enabled: bool = True,
        deduplication_enabled: bool = False,
        ordering_enabled: bool = False,
        *,
        dedup_window: float = 0.0,
        ageing: float = 1.0,
        codec: Codec = Codec.ZSTD,
        max_messages: int = MAX_MESSAGES,
        max_raw_bytes: int = MAX_RAW_BYTES,
    ) -> None:
        for name, switch in (
            ("compression_enabled", compression_enabled),
            ("deduplication_enabled", deduplication_enabled),
            ("ordering_enabled", ordering_enabled),
        ):
            if not isinstance(switch, bool):
                raise ValueError(f"{name}={switch!r}: must be True or False")
        if codec not in {Codec.ZLIB, Codec.ZSTD}:
            raise ValueError(f"codec={codec!r}: must be Codec.ZLIB or Codec.ZSTD")
        for name, bound, most in (
            ("max_messages", max_messages, MAX_MESSAGES),
            ("max_raw_bytes", max_raw_bytes, _MOST_RAW_BYTES),
        ):
            if not isinstance(bound, int) or not 1 <= bound <= most:
                raise ValueError(f"{name}={bound!r}: must be a whole number of at least 1 and at most {most}")
        check_seconds("dedup_window", dedup_window)
        check_seconds("ageing", ageing)
        self.compression_enabled = compression_enabled
        self.deduplication_enabled = deduplication_enabled
        self.ordering_enabled = ordering_enabled
        self.dedup_window, self.ageing = dedup_window, ageing
        self.codec = Codec(codec)
        self.max_messages, self.max_raw_bytes = max_messages, max_raw_bytes
        self._trials = Trials()

    def optimize_batch(self, messages: Iterable[Message]) -> list[Message]:
        """The messages that are to be sent, in the order in which they are: as they came, if nothing is enabled.

        Of equal messages the first is kept; messages of one priority keep their order.
        """
        kept = list(messages)
        if self.ordering_enabled:
            kept.sort(key=attrgetter("priority"), reverse=True)
        if self.deduplication_enabled:
            first: dict[Content, Message] = {}
            for message in kept:
                first.setdefault(content_of(message), message)
            kept = list(first.values())
        return kept

    def compress_batch(self, messages: Sequence[Message]) -> Message:
        """All ``messages`` in one of type ``BATCH``, which keeps their data, not their priorities.

        It is compressed if there are ten at least and it shrinks. After some that do not, the next ones are not tried.

        Raises:
            SerializationError: there are none, too many or too large, or one is a batch itself, or is not Unicode.
        """
        n = len(messages)
        if not n:
            raise SerializationError("a batch of no messages", "do not send it")
        if n > self.max_messages:
            raise self._too_many(n)
        if any(message.message_type is BATCH for message in messages):
            raise SerializationError("a batch within a batch", "expand it before it is packed again")
        try:
            raw = _encode([message.data for message in messages])
        except UnicodeEncodeError as exc:
            raise not_unicode(exc) from exc
        if len(raw) > self.max_raw_bytes:
            raise self._too_large(len(raw))
        codec, body = _STORED, raw
        if self.compression_enabled and self._trials.may_try(n):
            compressed = compress(self.codec, raw)
            if self._trials.tried(len(raw), len(compressed)):
                codec, body = int(self.codec), compressed
        return Message(_encode(_Packed(codec, n, len(raw), body)), BATCH)

    def expand_batch(self, message: Message) -> list[Message]:
        """The messages that `compress_batch` made one of, whichever codec it took.

        Whatever the bytes are, it takes no more memory than ``max_messages`` and ``max_raw_bytes`` allow.

        Raises:
            SerializationError: the bytes are no batch, or one beyond the bounds.
        """
        if isinstance(message.data, str):
            raise SerializationError("text is no batch", "expand what compress_batch has made")
        try:
            packed = _decode(message.data)
        except msgspec.DecodeError as exc:
            raise _damaged(f"no batch: {exc}") from exc
        if packed.n > self.max_messages:
            raise self._too_many(packed.n)
        if packed.raw > self.max_raw_bytes:
            raise self._too_large(packed.raw)
        if packed.n < 1:
            raise _damaged(f"a batch of {packed.n} messages")
        try:
            return [Message(data) for data in unpack(_decompressed(packed), packed.n)]
        except BadFrame as exc:
            raise _damaged(f"a batch of something else: {exc.reason}") from exc
        except RecursionError as exc:
            raise _damaged("a batch of nested arrays") from exc

    def _too_many(self, n: int) -> SerializationError:
        return SerializationError(
            f"a batch of {n} messages, more than max_messages={self.max_messages}",
            "make smaller batches, or raise max_messages at both ends",
        )

    def _too_large(self, raw: int) -> SerializationError:
        return SerializationError(
            f"a batch of {raw} bytes, more than max_raw_bytes={self.max_raw_bytes}",
            "make smaller batches, or raise max_raw_bytes at both ends",
        )


def _decompressed(packed: _Packed) -> bytes:
    if packed.codec == _STORED:
        if len(packed.z) != packed.raw:
            raise _damaged(f"a batch of {len(packed.z)} bytes that says to have {packed.raw}")
        return packed.z
    if packed.raw < 0 or packed.codec not in {Codec.ZLIB, Codec.ZSTD}:
        raise _damaged(f"a batch of {packed.raw} bytes with codec {packed.codec}")
    try:
        return decompress(Codec(packed.codec), packed.z, packed.raw)
    except BadCompression as exc:
        raise _damaged(f"a batch that does not decompress: {exc}") from exc


def _damaged(what: str) -> SerializationError:
    return SerializationError(what, "the peer sent something else, or it was damaged on the way")
