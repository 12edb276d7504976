"""What one end sends: numbered, in frames of the right size, and kept until it was taken."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from penstock.wire import outgoing as outgoing_module
from penstock.wire.compression import Codec, compress
from penstock.wire.envelope import (
    LAST,
    MAX_INTEGER,
    MAX_MESSAGES,
    TEXT,
    BadFrame,
    Compressed,
    Content,
    Data,
    Frame,
    Part,
    pack,
    read,
    unpack,
    write,
)
from penstock.wire.incoming import Incoming
from penstock.wire.limits import LEAST_FRAME, Limits
from penstock.wire.outgoing import REPLAY_BYTES, REPLAY_FRAMES, Outgoing

LIMITS = Limits()
SMALL = Limits(max_frame=LEAST_FRAME)
ALIKE = [f"message {number}" for number in range(100)]
every_codec = pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.name)


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


def test_only_parts_begin_as_parts_do() -> None:
    (compressed,) = sent(LIMITS, list(ALIKE), Codec.ZSTD)
    assert write(Part(1, 0, b""))[0] == outgoing_module._HEAD_OF_PART
    assert outgoing_module._HEAD_OF_PART not in {compressed[0], write(data(1, "a"))[0]}


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


# The window


def test_the_window_is_exceeded_by_one_frame_at_most() -> None:
    outgoing = Outgoing(Limits(window=1000))
    for _ in range(10):
        outgoing.add([bytes(300)])
    frames = outgoing.due()
    assert sum(map(len, frames[:-1])) < 1000 <= sum(map(len, frames))
    assert outgoing.is_held_up
    assert outgoing.due() == []


@every_codec
def test_compressed_frames_count_as_what_the_peer_will_have_to_keep(codec: Codec) -> None:
    messages: list[Content] = [bytes(1000)] * 100
    size = len(pack(messages))
    outgoing = Outgoing(Limits(window=2 * size), codec)
    for _ in range(6):
        outgoing.add(messages)
    frames = outgoing.due()
    assert kinds(frames) == [Compressed] * 2
    assert outgoing.due() == []
    outgoing.acknowledged(1)
    assert len(outgoing.due()) == 1
    outgoing.go_on_at(2)
    assert len(outgoing.due()) == 1
    outgoing.acknowledged(3)
    assert len(outgoing.due()) == 2
    outgoing.acknowledged(5)
    assert len(outgoing.due()) == 1
    assert outgoing.kept_bytes < 1000


def test_no_more_frames_are_written_than_may_be_kept() -> None:
    outgoing = Outgoing(LIMITS)
    for _ in range(REPLAY_FRAMES + 10):
        outgoing.add([""])
    assert len(outgoing.due()) == REPLAY_FRAMES
    assert outgoing.due() == []
    outgoing.acknowledged(3)
    assert len(outgoing.due()) == 3


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


# Acknowledgements


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
    for _ in range(10):
        outgoing.add([bytes(390)])
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


@every_codec
def test_what_is_written_again_is_counted_in_messages(codec: Codec) -> None:
    outgoing = Outgoing(SMALL, codec)
    outgoing.add(ALIKE)  # compressed
    outgoing.add(["one", "two"])
    outgoing.add(["x" * 2 * LEAST_FRAME])  # in three parts
    assert outgoing.written_since(0) == 0
    assert len(outgoing.due()) == outgoing.tx
    outgoing.add(["waits"])
    last = outgoing.tx
    counts = [outgoing.written_since(seq) for seq in range(last + 1)]
    assert (counts[0], counts[-6:]) == (103, [3, 1, 1, 1, 0, 0])
