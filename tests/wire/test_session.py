"""One end of a session, by the frames that it gives and takes: nothing is lost, doubled, or taken that breaks a rule."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from penstock.wire import session as session_module
from penstock.wire.compression import AVAILABLE, Codec, compress
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
    Frame,
    Hello,
    Part,
    Welcome,
    pack,
    read,
    unpack,
    write,
)
from penstock.wire.session import (
    ACK_FRAMES,
    LEAST_FRAME,
    REPLAY_BYTES,
    REPLAY_FRAMES,
    Incoming,
    Limits,
    Outgoing,
    Session,
    choose_codec,
    limits_of,
    limits_within,
)

LIMITS = Limits()
SMALL = Limits(max_frame=LEAST_FRAME)
ALIKE = [f"message {number}" for number in range(100)]
every_codec = pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.name)


def code_of(incoming: Incoming, frame: Any, size: int | None = None) -> int:
    with pytest.raises(BadFrame) as caught:
        incoming.receive(frame, len(write(frame)) if size is None else size)
    return caught.value.code


def receive(incoming: Incoming, frames: list[bytes]) -> list[Content]:
    return [message for frame in frames for message in incoming.receive(read(frame), len(frame))]  # type: ignore[arg-type]


def data(seq: int, *messages: Content) -> Data:
    return Data(seq, Raw(pack(list(messages))))


def sent(theirs: Limits, messages: list[Content], codec: Codec | None = None) -> list[bytes]:
    """All frames of ``messages``, written."""
    outgoing = Outgoing(theirs, codec)
    outgoing.add(messages)
    return outgoing.due()


def kinds(frames: list[bytes]) -> list[type[Frame]]:
    return [type(read(frame)) for frame in frames]


def hello(rx: int, first: int) -> Hello:
    return Hello(b"", rx, first, LEAST_FRAME, 1, 0, 0)


def of_size(size: int, seq: int = 1) -> bytes:
    """A message whose frame has ``size`` bytes."""
    empty = bytes(size - len(write(data(seq, bytes(size - 20)))) + size - 20)
    assert len(write(data(seq, empty))) == size
    return empty


# Numbering


def test_messages_added_together_go_in_one_frame() -> None:
    outgoing = Outgoing(LIMITS)
    outgoing.add(["a", b"b"])
    outgoing.add(["c"])
    assert outgoing.due() == [write(data(1, "a", b"b")), write(data(2, "c"))]
    assert outgoing.tx == 2
    assert outgoing.due() == []


def test_an_empty_batch_is_no_frame() -> None:
    assert sent(LIMITS, []) == []


@pytest.mark.parametrize("message", ["", b""])
def test_a_message_of_no_length_is_a_message(message: Content) -> None:
    frames = sent(LIMITS, [message])
    assert kinds(frames) == [Data]
    (received,) = receive(Incoming(LIMITS), frames)
    assert (type(received), received) == (type(message), message)


def test_a_frame_has_4096_messages_at_most() -> None:
    frames = sent(LIMITS, [""] * (2 * MAX_MESSAGES + 1))
    assert [len(unpack(read(frame).messages)) for frame in frames] == [MAX_MESSAGES, MAX_MESSAGES, 1]  # type: ignore[union-attr]


def test_a_frame_is_no_larger_than_the_peer_takes() -> None:
    messages: list[Content] = [f"{number}".zfill(100) for number in range(200)]
    frames = sent(SMALL, messages)
    assert kinds(frames) == [Data] * len(frames)
    assert max(map(len, frames)) <= LEAST_FRAME
    assert len(frames) < 3 * len(messages) * 100 / LEAST_FRAME
    assert receive(Incoming(SMALL), frames) == messages


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 300) | st.integers(3900, 4200) | st.integers(7900, 12_500), min_size=1, max_size=20),
    text=st.booleans(),
    codec=st.sampled_from([None, *Codec]),
)
def test_messages_of_every_size_arrive(sizes: list[int], text: bool, codec: Codec | None) -> None:
    messages: list[Content] = ["ä" * (size // 2) if text else bytes(size) for size in sizes]
    frames = sent(SMALL, messages, codec)
    assert max(map(len, frames)) <= LEAST_FRAME
    assert receive(Incoming(SMALL, codec), frames) == messages


def test_text_that_is_not_unicode_gets_no_number() -> None:
    outgoing = Outgoing(LIMITS)
    for message in ("\ud800", "\ud800" * 2 * LIMITS.max_frame):
        with pytest.raises(UnicodeEncodeError):
            outgoing.add([message])
    assert outgoing.tx == 0
    assert not outgoing.due()


# One message, at once


@pytest.mark.parametrize("message", ["", b"", "a", b"a" * 4000])
def test_one_message_is_the_frame_that_it_would_be_among_others(message: Content) -> None:
    outgoing = Outgoing(SMALL)
    assert outgoing.add_one(message) == write(data(1, message))
    assert outgoing.due() == []
    assert outgoing.add_one(message) == write(data(2, message))
    assert outgoing.unacknowledged() == [message] * 2
    assert outgoing.kept_bytes == len(write(data(1, message))) * 2


def test_one_message_does_not_overtake() -> None:
    outgoing = Outgoing(LIMITS)
    outgoing.add(["first"])
    assert outgoing.add_one("second") is None
    assert outgoing.due() == [write(data(1, "first")), write(data(2, "second"))]


def test_one_message_waits_for_the_window() -> None:
    outgoing = Outgoing(Limits(window=1))
    assert outgoing.add_one("first") is not None
    assert outgoing.add_one("second") is None
    assert outgoing.due() == []
    outgoing.acknowledged(1)
    assert outgoing.due() == [write(data(2, "second"))]


def test_one_message_that_is_large_goes_in_parts() -> None:
    outgoing = Outgoing(SMALL)
    assert outgoing.add_one("ä" * 4096) is None
    frames = outgoing.due()
    assert kinds(frames) == [Part] * 3
    assert receive(Incoming(SMALL), frames) == ["ä" * 4096]


# In parts


def test_a_large_message_goes_in_parts_and_its_neighbours_do_not() -> None:
    messages: list[Content] = ["before", "x" * 10_000, b"y" * 5_000, b"after"]
    frames = sent(SMALL, messages)
    assert kinds(frames) == [Data, Part, Part, Part, Part, Part, Data]
    assert [read(frame).flags for frame in frames if frame[1] == 2] == [TEXT, TEXT, TEXT | LAST, 0, LAST]  # type: ignore[union-attr]
    assert receive(Incoming(SMALL), frames) == messages


def test_a_character_may_be_cut_in_two() -> None:
    messages: list[Content] = [first + "ä" * 5_000 for first in ("", "a")]
    assert receive(Incoming(SMALL), sent(SMALL, messages)) == messages


@pytest.mark.parametrize(
    ("size", "pieces"),
    [(0, 1), (1, 1), (LEAST_FRAME - 64, 1), (LEAST_FRAME - 63, 2), (2 * (LEAST_FRAME - 64), 2), (50_000, 13)],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_piece_is_cut_into_smaller_ones_where_it_has_to_be(size: int, pieces: int, last: bool) -> None:
    outgoing, incoming = Outgoing(SMALL), Incoming(SMALL)
    outgoing.add_part(bytes(size), text=False, last=last)
    frames = outgoing.due()
    assert len(frames) == pieces
    assert max(map(len, frames)) <= LEAST_FRAME
    assert receive(incoming, frames) == ([bytes(size)] if last else [])
    if not last:
        outgoing.add_part(b"", text=False, last=True)
        assert receive(incoming, outgoing.due()) == [bytes(size)]


@pytest.mark.parametrize("text", [True, False])
def test_pieces_of_no_length_make_a_message_of_no_length(text: bool) -> None:
    outgoing = Outgoing(LIMITS)
    for last in (False, False, True):
        outgoing.add_part(b"", text=text, last=last)
    assert receive(Incoming(LIMITS), outgoing.due()) == ["" if text else b""]


def test_many_small_pieces_take_little_more_memory_than_their_bytes() -> None:
    incoming = Incoming(Limits(window=MAX_INTEGER))
    size = len(write(Part(1, 0, b"ab")))
    tracemalloc.start()
    try:
        for seq in range(1, 50_001):
            incoming.receive(Part(seq, 0, b"ab" if seq % 2 else b""), size)
            incoming.left(0)
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


@every_codec
def test_what_shrinks_is_compressed(codec: Codec) -> None:
    (frame,) = sent(LIMITS, list(ALIKE), codec)
    compressed = read(frame)
    assert isinstance(compressed, Compressed)
    assert (compressed.count, compressed.size) == (100, len(pack(list(ALIKE))))
    assert len(frame) < compressed.size / 2
    assert receive(Incoming(LIMITS, codec), [frame]) == ALIKE


@every_codec
def test_what_does_not_shrink_is_not(codec: Codec) -> None:
    noise = compress(Codec.ZLIB, "".join(ALIKE).encode())
    messages: list[Content] = [noise[start : start + 10] for start in range(0, 100, 10)]
    assert kinds(sent(LIMITS, messages, codec)) == [Data]
    assert kinds(sent(LIMITS, list(ALIKE[:9]), codec)) == [Data]


def test_nothing_is_compressed_unless_it_was_agreed_on() -> None:
    assert kinds(sent(LIMITS, list(ALIKE))) == [Data]


@every_codec
def test_no_more_is_compressed_than_the_peer_takes_inflated(codec: Codec) -> None:
    messages: list[Content] = ["x" * 1000] * 50
    frames = sent(SMALL, messages, codec)
    assert receive(Incoming(SMALL, codec), frames) == messages


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


# The window of the sender


def test_the_window_is_exceeded_by_one_frame_at_most() -> None:
    outgoing = Outgoing(Limits(window=1000))
    for _ in range(10):
        outgoing.add([bytes(300)])
    frames = outgoing.due()
    assert sum(map(len, frames[:-1])) < 1000 <= sum(map(len, frames))
    assert outgoing.is_held_up
    assert outgoing.due() == []


def test_what_is_acknowledged_makes_room() -> None:
    outgoing = Outgoing(Limits(window=1))
    outgoing.add(["a"])
    outgoing.add(["b"])
    assert outgoing.due() == [write(data(1, "a"))]
    assert outgoing.acknowledged(1)
    assert outgoing.due() == [write(data(2, "b"))]
    assert outgoing.acknowledged(2)
    assert outgoing.kept_bytes == 0
    assert not outgoing.is_held_up


def test_no_more_is_asked_for_when_a_replay_would_have_too_much() -> None:
    window = Limits(window=MAX_INTEGER)
    by_bytes, by_frames = Outgoing(window), Outgoing(window)
    by_bytes.add([bytes(2**19)] * (REPLAY_BYTES // 2**19 - 1))
    by_bytes.due()
    assert not by_bytes.is_held_up
    by_bytes.add([bytes(2**19)])
    by_bytes.due()
    assert by_bytes.is_held_up
    for _ in range(REPLAY_FRAMES):
        assert not by_frames.is_held_up
        by_frames.add([""])
        by_frames.due()
    assert by_frames.is_held_up
    by_frames.acknowledged(1)
    assert not by_frames.is_held_up


# Acknowledgements that arrive


def test_a_stale_acknowledgement_is_ignored() -> None:
    outgoing = Outgoing(LIMITS)
    outgoing.add(["a"])
    outgoing.add(["b"])
    outgoing.due()
    assert outgoing.acknowledged(2)
    for stale in (2, 1, 0):
        assert not outgoing.acknowledged(stale)
    assert (outgoing.acked, outgoing.kept_bytes) == (2, 0)


def test_what_was_not_written_cannot_be_acknowledged() -> None:
    outgoing = Outgoing(Limits(window=1))
    with pytest.raises(BadFrame, match="4900: frame 1 acknowledged, 0 was the last"):
        outgoing.acknowledged(1)
    outgoing.add(["written"])
    outgoing.add(["numbered"])
    outgoing.due()
    with pytest.raises(BadFrame, match="4900: frame 2"):
        outgoing.acknowledged(2)
    with pytest.raises(BadFrame, match="4900"):
        outgoing.acknowledged(MAX_INTEGER)
    assert outgoing.acked == 0


# What is kept


@every_codec
def test_what_was_not_acknowledged_is_known(codec: Codec) -> None:
    outgoing = Outgoing(SMALL, codec)
    outgoing.add(["taken"])
    outgoing.add([*ALIKE, "", b"", "ä" * 4000, b"x" * 5000])
    outgoing.due()
    outgoing.acknowledged(1)
    assert outgoing.unacknowledged() == [*ALIKE, "", b"", "ä" * 4000, b"x" * 5000]
    assert outgoing.unacknowledged() == [*ALIKE, "", b"", "ä" * 4000, b"x" * 5000]
    outgoing.acknowledged(outgoing.tx)
    assert outgoing.unacknowledged() == []


@pytest.mark.parametrize("acked", [0, 1, 2, 3])
def test_a_message_of_which_some_parts_were_taken_is_known_whole(acked: int) -> None:
    outgoing = Outgoing(SMALL)
    outgoing.add(["x" * 10_000, "next"])
    assert len(outgoing.due()) == 4
    outgoing.acknowledged(acked)
    assert outgoing.unacknowledged() == (["x" * 10_000, "next"] if acked < 3 else ["next"])
    outgoing.acknowledged(4)
    assert outgoing.unacknowledged() == []
    assert outgoing.kept_bytes == 0


def test_parts_that_were_taken_hold_nothing_up() -> None:
    outgoing = Outgoing(LIMITS)
    for _ in range(2 * REPLAY_BYTES // 2**19):
        outgoing.add_part(bytes(2**19), text=False, last=False)
        outgoing.due()
        outgoing.acknowledged(outgoing.tx)
    assert outgoing.kept_bytes > REPLAY_BYTES
    assert not outgoing.is_held_up
    outgoing.add_part(b"", text=False, last=True)
    outgoing.due()
    assert outgoing.unacknowledged() == [bytes(2 * REPLAY_BYTES)]
    outgoing.acknowledged(outgoing.tx)
    assert outgoing.kept_bytes == 0


def test_a_message_without_its_last_part_is_none_yet() -> None:
    outgoing = Outgoing(SMALL)
    outgoing.add(["whole"])
    outgoing.add_part(b"begun", text=True, last=False)
    assert outgoing.unacknowledged() == ["whole"]


# After a break


def test_a_lost_frame_is_written_again_as_it_was() -> None:
    outgoing, incoming = Outgoing(SMALL, Codec.ZSTD), Incoming(SMALL, Codec.ZSTD)
    outgoing.add([*ALIKE])
    outgoing.add(["x" * 10_000, "last"])
    frames = outgoing.due()
    received = receive(incoming, frames[:2])
    outgoing.go_on_at(incoming.rx)
    assert outgoing.due() == frames[2:]
    assert received + receive(incoming, frames[2:]) == [*ALIKE, "x" * 10_000, "last"]


def test_the_window_goes_on_after_a_break() -> None:
    outgoing = Outgoing(Limits(window=1000))
    for number in range(1, 11):
        outgoing.add([of_size(400, number)])
    assert len(outgoing.due()) == 3
    outgoing.go_on_at(0)  # nothing has arrived
    assert len(outgoing.due()) == 3
    outgoing.go_on_at(3)  # everything has, and nothing was taken
    assert outgoing.due() == []
    outgoing.acknowledged(1)
    assert len(outgoing.due()) == 1
    outgoing.go_on_at(4)
    outgoing.acknowledged(4)
    assert len(outgoing.due()) == 3


def test_what_the_peer_has_may_be_acknowledged_and_no_more() -> None:
    outgoing = Outgoing(LIMITS)
    for message in ("a", "b", "c"):
        outgoing.add([message])
    outgoing.due()
    outgoing.go_on_at(2)
    with pytest.raises(BadFrame):
        outgoing.acknowledged(3)
    assert outgoing.acknowledged(2)
    outgoing.due()
    assert outgoing.acknowledged(3)


def pair(mine: int, acked: int, theirs: int) -> Session:
    """A session that has sent ``mine`` frames, of which ``acked`` were taken, and received ``theirs``."""
    session = Session(LIMITS, LIMITS)
    for number in range(mine):
        session.outgoing.add([str(number)])
    session.outgoing.due()
    session.outgoing.acknowledged(acked)
    for seq in range(1, theirs + 1):
        session.incoming.receive(data(seq, "a"), 9)
    return session


@pytest.mark.parametrize(
    ("rx", "first", "resumes"),
    [
        (5, 4, True),
        (4, 4, True),
        (2, 4, True),  # the first that is kept is the next
        (1, 4, False),  # it was acknowledged, and is gone
        (6, 4, False),  # it was never sent
        (5, 1, True),
        (5, 5, False),  # the peer has not kept frame 4
        (0, 0, False),
        (MAX_INTEGER, 4, False),
        (5, MAX_INTEGER, False),
    ],
)
def test_both_ends_need_what_the_other_has_not(rx: int, first: int, resumes: bool) -> None:
    session = pair(mine=5, acked=2, theirs=3)
    assert session.first == 3
    assert session.may_resume(hello(rx, first)) is resumes
    assert session.may_resume(Welcome(b"", 1, rx, first, 4096, 1, 0, 0, 0, "")) is resumes


def test_a_break_before_the_first_message_is_resumed() -> None:
    session = Session(LIMITS, LIMITS)
    assert session.first == 1
    assert session.may_resume(hello(0, 1))
    assert not session.may_resume(hello(1, 1))
    assert not session.may_resume(hello(0, 2))


def test_a_peer_that_says_less_than_it_has_gets_duplicates() -> None:
    client, server = pair(3, 0, 0), Session(LIMITS, LIMITS)
    client.outgoing.go_on_at(0)
    first = client.outgoing.due()
    receive(server.incoming, first)
    client.resume(hello(1, 1))
    again = client.outgoing.due()
    assert again == first[1:]
    assert receive(server.incoming, again) == []


def test_twice_resumed_is_as_once() -> None:
    session = pair(mine=3, acked=0, theirs=0)
    for _ in range(3):
        session.resume(hello(1, 1))
        assert [read(frame).seq for frame in session.outgoing.due()] == [2, 3]  # type: ignore[union-attr]


# Acknowledgements that are due


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


# The window of the receiver


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


# Limits


@pytest.mark.parametrize(
    "wrong", [{"max_frame": 4095}, {"window": 0}, {"max_message": -1}, {"window": MAX_INTEGER + 1}, {"window": 1.0}]
)
def test_limits_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


def test_a_peer_whose_limits_make_no_sense_is_refused() -> None:
    assert limits_of(Hello(b"", 0, 1, 4096, 1, 0, 0)) == Limits(4096, 1, 0)
    for max_frame, window in ((4095, 1), (4096, 0), (0, 0)):
        with pytest.raises(BadFrame, match="4900"):
            limits_of(Hello(b"", 0, 1, max_frame, window, 0, 0))


def test_an_end_whose_messages_are_tiny_speaks_no_envelope() -> None:
    assert limits_within(4095) is None
    assert limits_within(4096) == Limits(max_frame=4096, max_message=4096)
    assert limits_within(None) == Limits(max_frame=2**24, max_message=MAX_INTEGER)


@pytest.mark.parametrize(
    ("offered", "taken", "chosen"),
    [
        (0, AVAILABLE, None),
        (1, AVAILABLE, Codec.ZLIB),
        (2, AVAILABLE, Codec.ZSTD),
        (3, AVAILABLE, Codec.ZSTD),
        (3, Codec.ZLIB, Codec.ZLIB),
        (4, AVAILABLE, None),
        (MAX_INTEGER, AVAILABLE, Codec.ZSTD),
        (3, Codec(0), None),
    ],
)
def test_the_better_codec_is_chosen_that_both_know(offered: int, taken: Codec, chosen: Codec | None) -> None:
    assert choose_codec(offered, taken) == chosen


def test_only_parts_begin_as_parts_do() -> None:
    (compressed,) = sent(LIMITS, list(ALIKE), Codec.ZSTD)
    assert session_module._HEAD_OF_PART == write(Part(1, 0, b""))[0]
    assert session_module._HEAD_OF_PART not in {compressed[0], write(data(1, "a"))[0]}
