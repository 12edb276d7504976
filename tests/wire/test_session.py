"""Both halves of one end: whether it can go on after a break, and with what limits."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from penstock.wire.compression import AVAILABLE, Codec
from penstock.wire.envelope import (
    MAX_INTEGER,
    BadFrame,
    Content,
    Data,
    Hello,
    Welcome,
    pack,
    read,
)
from penstock.wire.incoming import Incoming
from penstock.wire.limits import LEAST_FRAME, Limits, choose_codec, limits_of, limits_within
from penstock.wire.session import Session

LIMITS = Limits()


def receive(incoming: Incoming, frames: list[bytes]) -> list[Content]:
    return [message for frame in frames for message in incoming.receive(read(frame), len(frame))]  # type: ignore[arg-type]


def data(seq: int, *messages: Content) -> Data:
    return Data(seq, Raw(pack(list(messages))))


def hello(rx: int, first: int) -> Hello:
    return Hello(b"", rx, first, LEAST_FRAME, 1, 0, 0)


# After a break


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
