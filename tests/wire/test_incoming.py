"""What one end receives: each message once and in order, or a refusal; and when the peer is told."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from msgspec import Raw

from penstock.wire.compression import Codec, compress
from penstock.wire.envelope import (
    BAD_FRAME,
    BAD_TEXT,
    GAP,
    LAST,
    MAX_INTEGER,
    MAX_MESSAGES,
    TEXT,
    TOO_BIG,
    Ack,
    BadFrame,
    Compressed,
    Content,
    Data,
    Part,
    pack,
    read,
    write,
)
from penstock.wire.incoming import ACK_FRAMES, MAX_FRAMES, Incoming
from penstock.wire.limits import LEAST_FRAME, Limits
from penstock.wire.outgoing import Outgoing

LIMITS = Limits()
SMALL = Limits(max_frame=LEAST_FRAME)
ALIKE = [f"message {number}" for number in range(100)]


def code_of(incoming: Incoming, frame: Any, size: int | None = None) -> int:
    with pytest.raises(BadFrame) as caught:
        incoming.receive(frame, len(write(frame)) if size is None else size)
    return caught.value.code


def data(seq: int, *messages: Content) -> Data:
    return Data(seq, Raw(pack(list(messages))))


def sent(theirs: Limits, messages: list[Content], codec: Codec | None = None) -> list[bytes]:
    """All frames of ``messages``, written."""
    outgoing = Outgoing(theirs, codec)
    outgoing.add(messages)
    return outgoing.due()


# In order, once


def test_a_gap_is_refused() -> None:
    incoming = Incoming(LIMITS)
    assert code_of(incoming, data(2, "a")) == GAP
    incoming.receive(data(1, "a"), 9)
    assert code_of(incoming, data(3, "a")) == GAP
    assert code_of(incoming, data(MAX_INTEGER, "a")) == GAP


@pytest.mark.parametrize(
    "again", [data(1, "a"), Data(1, Raw(b"\xc0")), Compressed(1, 1, MAX_INTEGER, b"bomb"), Part(1, 0, b"a"), data(0)]
)
def test_a_duplicate_is_dropped_unopened_and_acknowledged_again(again: Data | Compressed | Part) -> None:
    incoming = Incoming(LIMITS)
    incoming.receive(data(1, "a"), 9)
    incoming.left(0)
    incoming.ack()
    assert not incoming.left(0)
    assert incoming.receive(again, MAX_INTEGER) == []
    assert incoming.left(0)
    assert incoming.ack() == Ack(1, 0)
    assert not incoming.left(0)
    assert incoming.receive(data(2, "b"), 9) == ["b"]


# In parts


def test_many_small_pieces_take_little_more_memory_than_their_bytes() -> None:
    incoming = Incoming(Limits(window=MAX_INTEGER))
    size = len(write(Part(1, 0, b"ab")))
    tracemalloc.start()
    try:
        for seq in range(1, 50_001):
            incoming.receive(Part(seq, 0, b"ab" if seq % 2 else b""), size)
            incoming.left(0)
            if seq % 4096 == 0:
                incoming.ack()
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_a_message_in_parts_is_no_larger_than_the_limit() -> None:
    incoming = Incoming(Limits(max_message=10))
    assert incoming.receive(Part(1, 0, b"12345"), 9) == []
    assert incoming.receive(Part(2, LAST, b"67890"), 9) == [b"1234567890"]
    incoming.receive(Part(3, 0, b"12345"), 9)
    assert code_of(incoming, Part(4, 0, b"678901")) == TOO_BIG


def test_the_limit_of_a_message_is_in_bytes() -> None:
    incoming = Incoming(Limits(max_message=3))
    assert incoming.receive(data(1, "äa", b"abc"), 9) == ["äa", b"abc"]
    assert code_of(incoming, data(2, "ää")) == TOO_BIG
    assert code_of(Incoming(Limits(max_message=0)), data(1, b"", b"a")) == TOO_BIG


def test_a_message_among_the_parts_of_another_is_refused() -> None:
    compressed = read(sent(LIMITS, list(ALIKE), Codec.ZLIB)[0])
    assert isinstance(compressed, Compressed)
    for frame in (data(2, "a"), Compressed(2, compressed.count, compressed.size, compressed.packed)):
        for piece in (b"", b"a"):
            incoming = Incoming(LIMITS, Codec.ZLIB)
            incoming.receive(Part(1, 0, piece), 9)
            assert code_of(incoming, frame) == BAD_FRAME


def test_parts_that_are_not_utf8_together_are_refused() -> None:
    incoming = Incoming(LIMITS)
    incoming.receive(Part(1, TEXT, b"\xc3"), 9)
    assert code_of(incoming, Part(2, TEXT | LAST, b"a")) == BAD_TEXT


# Compressed


def compressed_as(seq: int = 1, count: int = 100, size: int | None = None, more: bytes = b"") -> Compressed:
    body = pack(list(ALIKE))
    return Compressed(seq, count, len(body) if size is None else size, compress(Codec.ZSTD, body) + more)


def test_a_compressed_frame_is_what_it_says() -> None:
    assert Incoming(LIMITS, Codec.ZSTD).receive(compressed_as(), 9) == ALIKE
    size = len(pack(list(ALIKE)))
    for frame in (
        compressed_as(count=99),
        compressed_as(count=0),
        compressed_as(count=MAX_MESSAGES),
        compressed_as(size=size - 1),
        compressed_as(size=size + 1),
        compressed_as(size=0),
        compressed_as(more=b"\0"),
        compressed_as(more=compress(Codec.ZSTD, b"")),
        Compressed(1, 100, size, compressed_as().packed[:-1]),
        Compressed(1, 100, size, b""),
        Compressed(1, 1, 2, compress(Codec.ZSTD, b"\x91\xc0")),
        Compressed(1, 1, 1, compress(Codec.ZSTD, b"\xa0")),
        Compressed(1, 0, 0, compress(Codec.ZSTD, b"")),
    ):
        assert code_of(Incoming(LIMITS, Codec.ZSTD), frame) == BAD_FRAME
    assert code_of(Incoming(LIMITS, Codec.ZSTD), Compressed(1, 1, 3, compress(Codec.ZSTD, b"\x91\xa1\xff"))) == BAD_TEXT


@pytest.mark.parametrize("codec", [None, Codec.ZLIB])
def test_another_codec_than_was_agreed_on_is_refused(codec: Codec | None) -> None:
    assert code_of(Incoming(LIMITS, codec), compressed_as()) == BAD_FRAME


def test_a_compressed_frame_that_says_too_much_is_refused_before_it_is_inflated() -> None:
    incoming = Incoming(SMALL, Codec.ZSTD)
    assert code_of(incoming, Compressed(1, 1, LEAST_FRAME + 1, b"never looked at")) == TOO_BIG
    assert code_of(incoming, Compressed(1, MAX_MESSAGES + 1, 4096, b"never looked at")) == TOO_BIG
    assert code_of(incoming, Compressed(1, MAX_INTEGER, MAX_INTEGER, b"never looked at")) == TOO_BIG


# The window


def test_a_window_that_is_exceeded_by_more_than_a_frame_is_refused() -> None:
    incoming = Incoming(Limits(window=1000))
    incoming.receive(data(1, "a"), 999)
    incoming.receive(data(2, "a"), 5000)
    assert code_of(incoming, data(3, "a")) == TOO_BIG


def test_what_was_taken_fills_the_window_until_the_peer_is_told() -> None:
    incoming = Incoming(Limits(window=1000))
    incoming.receive(data(1, "a"), 2000)
    incoming.left(0)
    assert code_of(incoming, data(2, "a")) == TOO_BIG
    incoming.ack()
    assert incoming.receive(data(2, "a"), 9) == ["a"]


def test_a_frame_that_is_too_big_is_refused() -> None:
    assert Incoming(SMALL).receive(data(1, "a"), LEAST_FRAME) == ["a"]
    assert code_of(Incoming(SMALL), data(1, "a"), LEAST_FRAME + 1) == TOO_BIG


# Taken


def test_a_frame_is_taken_when_its_last_message_is() -> None:
    incoming = Incoming(LIMITS)
    incoming.receive(data(1, "a", "b"), 9)
    incoming.receive(data(2, "c"), 9)
    taken = []
    for left in (3, 2, 1, 0):
        incoming.left(left)
        taken.append(incoming.taken)
    assert taken == [0, 0, 1, 2]
    assert incoming.rx == 2


def test_messages_left_from_another_session_count_for_no_frame() -> None:
    incoming = Incoming(LIMITS, unread=2)
    incoming.left(2)
    assert incoming.taken == 0
    incoming.receive(data(1, "a"), 9)
    incoming.receive(data(2, "b"), 9)
    taken = []
    for left in (4, 3, 2, 1, 0):
        incoming.left(left)
        taken.append(incoming.taken)
    assert taken == [0, 0, 0, 1, 2]


def test_the_window_counts_what_is_inflated() -> None:
    body = pack([bytes(1000)] * 100)
    incoming = Incoming(Limits(window=3 * len(body) - 1), Codec.ZSTD)
    frames = [Compressed(seq, 100, len(body), compress(Codec.ZSTD, body)) for seq in range(1, 7)]
    for frame in frames[:3]:
        incoming.receive(frame, len(write(frame)))
    assert incoming.waiting_bytes == 3 * len(body)
    assert code_of(incoming, frames[3]) == TOO_BIG
    incoming.left(0)
    incoming.ack()
    assert incoming.waiting_bytes == 0
    incoming.receive(frames[3], len(write(frames[3])))


def test_a_compressed_frame_that_is_larger_than_its_messages_counts_as_it_is() -> None:
    packed = compress(Codec.ZSTD, pack(["a"]))
    incoming = Incoming(LIMITS, Codec.ZSTD)
    incoming.receive(Compressed(1, 1, 3, packed), len(packed) + 9)
    assert incoming.waiting_bytes == len(packed) + 9


def test_no_more_than_so_many_frames_may_be_unacknowledged_however_small() -> None:
    incoming = Incoming(LIMITS)
    for seq in range(1, MAX_FRAMES + 1):
        incoming.receive(data(seq, ""), 1)
    assert code_of(incoming, data(MAX_FRAMES + 1, ""), 1) == TOO_BIG
    incoming.left(MAX_FRAMES - 1)
    assert code_of(incoming, data(MAX_FRAMES + 1, ""), 1) == TOO_BIG  # the peer does not know yet
    incoming.ack()
    incoming.receive(data(MAX_FRAMES + 1, ""), 1)


def test_a_part_that_is_not_the_last_is_taken_when_it_is_stored() -> None:
    incoming = Incoming(LIMITS)
    incoming.receive(Part(1, 0, b"a"), 9)
    incoming.left(0)
    assert incoming.taken == 1
    incoming.receive(Part(2, LAST, b"b"), 9)
    incoming.left(1)
    assert incoming.taken == 1
    incoming.left(0)
    assert incoming.taken == 2


def test_a_part_is_not_taken_before_the_messages_ahead_of_it() -> None:
    incoming = Incoming(LIMITS)
    incoming.receive(data(1, "a"), 9)
    incoming.receive(Part(2, 0, b"a"), 9)
    incoming.left(1)
    assert incoming.taken == 0
    incoming.left(0)
    assert incoming.taken == 2


def test_it_is_known_whether_the_peer_knows_all() -> None:
    incoming = Incoming(LIMITS)
    assert not incoming.is_behind
    incoming.receive(data(1, "a"), 9)
    assert incoming.is_behind
    incoming.left(0)
    assert incoming.is_behind
    incoming.ack()
    assert not incoming.is_behind


# Acknowledgements


def test_the_peer_is_told_after_32_frames() -> None:
    incoming = Incoming(LIMITS)
    for seq in range(1, 2 * ACK_FRAMES + 1):
        incoming.receive(data(seq, "a"), 9)
        assert incoming.left(0) is (seq % ACK_FRAMES == 0)
        if seq % ACK_FRAMES == 0:
            assert incoming.ack() == Ack(seq, 0)


def test_the_peer_is_told_after_a_quarter_of_the_window() -> None:
    incoming = Incoming(Limits(window=4000))
    incoming.receive(data(1, "a"), 999)
    assert not incoming.left(0)
    incoming.receive(data(2, "a"), 1)
    assert incoming.left(0)
    assert incoming.ack() == Ack(2, 0)
    assert not incoming.left(0)


def test_the_peer_is_told_as_soon_as_it_wants_to_be() -> None:
    incoming = Incoming(LIMITS)
    incoming.wanted(2)
    incoming.receive(data(1, "a"), 9)
    assert not incoming.left(0)
    incoming.receive(data(2, "b"), 9)
    assert not incoming.left(1)
    assert incoming.left(0)
    assert incoming.ack() == Ack(2, 0)
    assert not incoming.left(0)
    incoming.wanted(1)
    assert not incoming.left(0)


def test_what_was_taken_before_it_was_wanted_is_told() -> None:
    incoming = Incoming(LIMITS)
    incoming.receive(data(1, "a"), 9)
    assert not incoming.left(0)
    incoming.wanted(1)
    assert incoming.left(0)


def test_a_wish_that_never_comes_true_does_not_hide_the_next() -> None:
    incoming = Incoming(LIMITS)
    incoming.wanted(MAX_INTEGER)
    incoming.receive(data(1, "a"), 9)
    assert not incoming.left(0)
    incoming.wanted(1)
    assert incoming.left(0)


def test_the_peer_is_told_anew_after_a_break() -> None:
    incoming = Incoming(LIMITS)
    incoming.receive(data(1, "a"), 9)
    incoming.left(0)
    incoming.ack()
    incoming.resumed()
    assert incoming.left(0)
    assert incoming.ack(want=7) == Ack(1, 7)
    assert not incoming.left(0)
