"""Whatever a peer sends is a frame or is refused by its rule, in bounded memory and no time to speak of."""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from penstock.wire.compression import Codec
from penstock.wire.envelope import (
    BAD_FRAME,
    BAD_TEXT,
    GAP,
    LAST,
    MAX_INTEGER,
    NEW,
    TEXT,
    TOO_BIG,
    Ack,
    BadFrame,
    Bye,
    Compressed,
    Content,
    Data,
    Hello,
    Part,
    Unknown,
    Welcome,
    read,
    write,
)
from penstock.wire.limits import Limits, limits_of
from penstock.wire.outgoing import Outgoing
from penstock.wire.session import Session

LIMITS = Limits(max_frame=65_536, window=65_536, max_message=100_000)
NESTED = b"\x91" * 3000 + b"\x90"
MAPS = b"\xdc\x80\0" + b"\x80" * 0x8000
MOST_BYTES = 1024 * 1024
"""What one frame of 64 KiB may make: 4096 messages, which are objects."""
SLOWEST = 0.01
"""Seconds of the processor that a frame may take."""


def numbered_frames(codec: Codec) -> list[bytes]:
    """Frames of every kind that has a number, as a peer would send them one after the other."""
    outgoing = Outgoing(LIMITS, codec)
    batch: list[Content] = ["text", b"binary", "", b"", "\N{SNOWMAN}"]
    outgoing.add(batch)
    outgoing.add([f"message {number}" for number in range(40)])
    outgoing.add(["x" * 70_000, b"y" * 20])
    outgoing.add([""] * 4096)
    outgoing.add_part(b"", text=True, last=False)
    outgoing.add_part(b"piece", text=True, last=True)
    frames = outgoing.due()
    outgoing.acknowledged(len(frames))
    return frames + outgoing.due()


IN_TURN = {codec: numbered_frames(codec) for codec in Codec}
OTHERS = [
    write(Ack(1, 2)),
    write(Bye(1000, "reason", 1)),
    write(Hello(bytes(32), 3, 1, 4096, 65_536, 3, 2**20)),
    write(Welcome(bytes(32), NEW, 3, 1, 4096, 65_536, 2, 90_000, 2**20, "node")),
    write(Data(1, Raw(NESTED))),
    write(Data(1, Raw(MAPS))),
    write(Ack(MAX_INTEGER, MAX_INTEGER)),
    b"\x93\x10" + NESTED + MAPS,
]


def mutated(chance: random.Random, corpus: list[bytes]) -> bytes:
    """A frame with damage of one kind or another."""
    frame, others = bytearray(chance.choice(corpus)), OTHERS + corpus
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        # Most of what has a meaning is at the beginning.
        at = min(chance.randrange(len(frame) + 1), chance.choice((4, 16, len(frame))))
        match chance.randrange(7):
            case 0 if at < len(frame):
                frame[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(frame):
                frame[at] = chance.choice((0x00, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xC4, 0xCF, 0xD9, 0xDC, 0xDD, 0xFF))
            case 2:
                del frame[at:]
            case 3:
                frame[at:at] = chance.randbytes(chance.randrange(1, 20))
            case 4:
                del frame[at : at + chance.randrange(1, 20)]
            case 5:
                other = chance.choice(others)
                frame[at:] = other[min(at, chance.randrange(len(other) + 1)) :]
            case _:
                frame[at:at] = chance.choice(others)[:200]
    return bytes(frame) if chance.randrange(20) else chance.randbytes(chance.randrange(100))


class Receiver:
    """One end that a peer sends anything to; after what is refused comes another session."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.accepted = self.refused = 0
        self.codes: set[int] = set()
        self.begin()

    def begin(self) -> None:
        self.session = Session(LIMITS, LIMITS, self.codec)
        for _ in range(3):
            self.session.outgoing.add(["kept"])
        self.session.outgoing.due()

    def receive(self, data: bytes) -> None:
        """Take or refuse a frame; any other exception than a refusal is one of ours."""
        try:
            self.handle(data)
            self.accepted += 1
        except BadFrame as exc:
            self.codes.add(exc.code)
            self.refused += 1
            self.begin()

    def handle(self, data: bytes) -> None:
        session = self.session
        match read(data):
            case (Data() | Compressed() | Part()) as frame:
                before = session.incoming.rx
                messages = session.incoming.receive(frame, len(data))
                assert all(type(message) in {str, bytes} for message in messages)
                assert session.incoming.rx == before + 1 or not messages
                if session.incoming.left(0):
                    session.incoming.ack()
            case Ack(taken, want):
                session.outgoing.acknowledged(taken)
                session.incoming.wanted(want)
                session.incoming.left(0)
            case Bye(_, reason, taken):
                assert isinstance(reason, str)
                session.outgoing.acknowledged(taken)
                assert len(session.outgoing.unacknowledged()) == 3 - session.outgoing.acked
            case (Hello() | Welcome()) as peer:
                limits_of(peer)
                if session.may_resume(peer):
                    session.resume(peer)
                    session.outgoing.due()
            case other:
                assert isinstance(other, Unknown)


def fuzz(frames: int, seed: int, *, slowest: float | None = None) -> list[Receiver]:
    chance = random.Random(seed)
    receivers = [Receiver(codec) for codec in Codec]
    for number in range(frames):
        receiver = receivers[number // 5 % len(receivers)]
        in_turn = IN_TURN[receiver.codec]
        if not number % 5:
            receiver.begin()
            for valid in in_turn[: chance.randrange(len(in_turn))]:
                receiver.handle(valid)
        following = in_turn[receiver.session.incoming.rx :][:1]
        frame = mutated(chance, following if following and number % 2 else in_turn + OTHERS)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        began = time.thread_time()
        receiver.receive(frame)
        took = time.thread_time() - began
        made = tracemalloc.get_traced_memory()[1] - held
        assert made < MOST_BYTES + 4 * len(frame), f"{made} bytes made of {len(frame)}: {frame[:50]!r}"
        assert slowest is None or took < slowest, f"{took} s for {frame[:50]!r}"
    return receivers


@pytest.fixture
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("_traced")
def test_damaged_frames_are_taken_or_refused() -> None:
    for receiver in fuzz(5000, seed=1):
        assert receiver.accepted > 100, "damaged beyond recognition"
        assert receiver.refused > 250, "not damaged"
        assert receiver.codes == {BAD_FRAME, BAD_TEXT, GAP, TOO_BIG}


@pytest.mark.load
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("seed", range(4))
def test_many_more_damaged_frames_are_taken_or_refused(seed: int) -> None:
    gc.freeze()  # what the test has made before is not the frame's to collect
    fuzz(50_000, seed=seed, slowest=SLOWEST)
    gc.unfreeze()


def test_frames_that_are_not_damaged_are_taken() -> None:
    for codec in Codec:
        receiver = Receiver(codec)
        for frame in IN_TURN[codec]:
            receiver.handle(frame)
        assert {type(read(frame)) for frame in IN_TURN[codec]} == {Data, Compressed, Part}


def items() -> st.SearchStrategy[bytes]:
    """What msgpack can say, well formed or nearly."""
    leaves = st.one_of(
        st.sampled_from(
            [b"\xc0", b"\xc3", b"\xff", b"\xcb" + bytes(8), b"\xd4\1\0", b"\x80", b"\xc1", b"\xdd" + b"\xff" * 4]
        ),
        st.integers(0, 20).map(lambda number: bytes([number])),
        st.integers(0, 2**64 - 1).map(lambda number: b"\xcf" + number.to_bytes(8)),
        st.text(max_size=5).map(lambda text: bytes([0xD9, len(text.encode())]) + text.encode()),
        st.binary(max_size=5).map(lambda data: bytes([0xD9, len(data)]) + data),
        st.binary(max_size=20).map(lambda data: bytes([0xC4, len(data)]) + data),
    )
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4).map(array), max_leaves=8)


def array(parts: list[bytes]) -> bytes:
    return bytes([0x90 | len(parts)]) + b"".join(parts)


@settings(max_examples=200, deadline=None)
@given(frames=st.lists(st.lists(items(), max_size=11).map(array) | st.binary(max_size=30), max_size=3))
@example([write(Data(1, Raw(b"\x91\xa1\xff")))])
@example([write(Data(1, Raw(NESTED)))])
@example([write(Part(1, LAST | TEXT, b"\xff"))])
@example([write(Compressed(1, 1, 65_536, b"\x28\xb5\x2f\xfd"))])
def test_any_msgpack_is_taken_or_refused(frames: list[bytes]) -> None:
    receiver = Receiver(Codec.ZSTD)
    for frame in frames:
        receiver.receive(frame)


@settings(max_examples=300, deadline=None)
@given(
    data=st.data(),
    codec=st.sampled_from(list(Codec)),
    number=st.integers(0, 8),
    insert=st.binary(max_size=10),
    cut=st.integers(0, 10),
)
def test_what_is_damaged_in_its_turn_is_taken_or_refused(
    data: st.DataObject, codec: Codec, number: int, insert: bytes, cut: int
) -> None:
    receiver, in_turn = Receiver(codec), IN_TURN[codec]
    number %= len(in_turn)
    for frame in in_turn[:number]:
        receiver.handle(frame)
    at = data.draw(st.integers(0, min(len(in_turn[number]), 60)))
    receiver.receive(in_turn[number][:at] + insert + in_turn[number][at + cut :])
