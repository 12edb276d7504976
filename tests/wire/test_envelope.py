"""Frames mean what they say, in every encoding that msgpack has for it; all else is refused, and cheaply."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.wire.envelope import (
    BAD_FRAME,
    BAD_TEXT,
    LAST,
    MAX_INTEGER,
    MAX_MESSAGES,
    TEXT,
    TOO_BIG,
    Ack,
    BadFrame,
    Bye,
    Compressed,
    Data,
    Frame,
    Hello,
    Part,
    Unknown,
    Welcome,
    pack,
    read,
    unpack,
    write,
)

SID = bytes(range(32))
FRAMES: list[Frame] = [
    Data(1, Raw(pack(["text", b"binary", "", b""]))),
    Compressed(2, 10, 300, b"packed"),
    Part(3, LAST | TEXT, b"the end"),
    Ack(4, 5),
    Hello(SID, 1, 2, 4096, 65536, 3, 2**20),
    Welcome(SID, 1, 2, 3, 4096, 65536, 2, 90_000, 2**20, "node-1"),
    Bye(1000, "done", 7),
]
MIB = 1024 * 1024
MAPS = b"\xdd" + MIB.to_bytes(4) + b"\x80" * MIB
NESTED = b"\x91" * 100_000 + b"\x90"

every_frame = pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
not_integers = pytest.mark.parametrize(
    "value",
    [b"\xff", b"\xc0", b"\xc3", b"\xa11", b"\xc4\x011", b"\x90", b"\x80", b"\xd4\x01\0", b"\xca" + bytes(4)],
    ids=["negative", "nil", "true", "text", "binary", "array", "map", "ext", "float"],
)


def array(*items: bytes) -> bytes:
    """A msgpack array of encoded items."""
    return bytes([0x90 | len(items)]) + b"".join(items)


def uint64(value: int) -> bytes:
    return b"\xcf" + value.to_bytes(8)


def code_of(frame: str | bytes, how: Callable[[Any], object] = read) -> int:
    with pytest.raises(BadFrame) as caught:
        how(frame)
    assert str(caught.value).startswith(f"{caught.value.code}: ")
    assert len(caught.value.reason.encode()) <= 123, "more than a close frame holds"
    return caught.value.code


def peak(how: Callable[[bytes], object], data: bytes) -> int:
    """Bytes that reading takes at most."""
    tracemalloc.start()
    try:
        with suppress(BadFrame):
            how(data)
    finally:
        taken = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return taken


@every_frame
def test_what_is_written_is_read(frame: Frame) -> None:
    assert write(read(write(frame))) == write(frame)
    if not isinstance(frame, Data):  # of which a part stays as it is
        assert read(write(frame)) == frame


def test_a_frame_is_an_array_that_begins_with_its_type() -> None:
    assert [write(frame)[1] for frame in FRAMES] == [0, 1, 2, 3, 4, 5, 6]
    assert write(Ack(1, 0)) == b"\x93\x03\x01\0"
    assert write(Data(1, Raw(pack(["a", b"b"])))) == b"\x93\0\x01\x92\xa1a\xc4\x01b"


# Fields


@every_frame
def test_trailing_fields_are_ignored(frame: Frame) -> None:
    data = write(frame)
    more = bytes([data[0] + 2]) + data[1:] + b"\x81\xc0\xcb" + bytes(8) + b"\xa1\xff"
    assert write(read(more)) == data


@every_frame
def test_a_missing_field_is_refused(frame: Frame) -> None:
    data = write(frame)
    for fields in range(data[0] & 0x0F):
        assert code_of(bytes([0x90 | fields]) + data[1:]) == BAD_FRAME  # all that follows trails
    assert code_of(array(bytes([data[1]]))) == BAD_FRAME


@every_frame
def test_every_cut_is_refused(frame: Frame) -> None:
    data = write(frame)
    for size in range(len(data)):
        assert code_of(data[:size]) == BAD_FRAME


@every_frame
@pytest.mark.parametrize("more", [b"\0", b"\xc1", b"\x93\x03\x01\0"])
def test_trailing_bytes_are_refused(frame: Frame, more: bytes) -> None:
    assert code_of(write(frame) + more) == BAD_FRAME


def with_integer(value: bytes) -> list[bytes]:
    """Every frame, with ``value`` in turn for each integer that it has."""
    sid, nothing = b"\xc4\0", b"\0"
    layouts = [
        (b"\0", None, b"\x91\xa0"),
        (b"\1", None, None, None, b"\xc4\0"),
        (b"\2", None, None, b"\xc4\0"),
        (b"\3", None, None),
        (b"\4", sid, None, None, None, None, None, None),
        (b"\5", sid, None, None, None, None, None, None, None, None, b"\xa0"),
        (b"\6", None, b"\xa0", None),
    ]
    return [
        array(*(value if at == place else item or nothing for at, item in enumerate(layout)))
        for layout in layouts
        for place, field in enumerate(layout)
        if field is None
    ]


def test_integers_have_53_bits() -> None:
    for frame in with_integer(uint64(MAX_INTEGER)) + with_integer(b"\0"):
        read(frame)
    for value in (MAX_INTEGER + 1, 2**63, 2**64 - 1):
        for frame in with_integer(uint64(value)):
            assert code_of(frame) == BAD_FRAME


@not_integers
def test_an_integer_is_nothing_else(value: bytes) -> None:
    for frame in with_integer(value):
        assert code_of(frame) == BAD_FRAME


@pytest.mark.parametrize(
    "one", [b"\x01", b"\xcc\x01", b"\xcd\0\x01", b"\xce\0\0\0\x01", uint64(1), b"\xd0\x01", b"\xd1\0\x01"]
)
@pytest.mark.parametrize("head", [b"\x93", b"\xdc\0\x03", b"\xdd\0\0\0\x03"])
def test_an_encoding_may_be_longer_than_it_needs_to_be(head: bytes, one: bytes) -> None:
    three = one[:-1] + b"\x03"
    assert read(head + three + one + one) == Ack(1, 1)
    assert read(head.replace(b"\x93", b"\x92").replace(b"\x03", b"\x02") + uint64(16) + one) == Unknown()


@pytest.mark.parametrize("sid", [b"\xa1a", b"\xc0", b"\x91\x01"])
def test_bytes_are_not_text(sid: bytes) -> None:
    assert code_of(array(b"\4", sid, *[b"\0"] * 6)) == BAD_FRAME
    assert code_of(array(b"\1", b"\1", b"\1", b"\1", sid)) == BAD_FRAME
    assert code_of(array(b"\2", b"\1", b"\1", sid)) == BAD_FRAME


def test_a_reason_is_text() -> None:
    assert code_of(array(b"\6", b"\1", b"\xc4\1a", b"\0")) == BAD_FRAME
    for wrong in (b"\xa1\xff", b"\xa3\xed\xa0\x80", b"\xa2\xc0\x80"):
        assert code_of(array(b"\6", b"\1", wrong, b"\0")) == BAD_TEXT


# Types


def test_a_text_frame_is_refused() -> None:
    assert code_of("") == BAD_FRAME
    assert code_of(write(Ack(1, 0)).decode("latin1")) == BAD_FRAME


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x01", b"\xa1a", b"\xc4\0", b"\x80", b"\x83\0\3\1\1\2\2", b"\x90"])
def test_what_is_no_array_with_a_type_is_refused(data: bytes) -> None:
    assert code_of(data) == BAD_FRAME


@pytest.mark.parametrize("number", range(7, 16))
def test_types_that_this_version_has_left_free_are_refused(number: int) -> None:
    assert code_of(array(bytes([number]))) == BAD_FRAME
    assert code_of(array(bytes([number]), b"\1", b"\x91\xa0")) == BAD_FRAME


@pytest.mark.parametrize("number", [b"\x10", b"\x7f", b"\xcc\x80", uint64(16), uint64(MAX_INTEGER)])
@pytest.mark.parametrize("fields", [[], [b"\x81\x01\x02", b"\xc0", b"\xa1\xff", b"\xd4\1\0", b"\x91\x91\x90"]])
def test_types_of_later_versions_are_ignored_whatever_they_hold(number: bytes, fields: list[bytes]) -> None:
    assert read(array(number, *fields)) == Unknown()


def test_a_later_version_may_have_any_number_of_fields() -> None:
    assert read(b"\xdc\x04\0\x10" + b"\x01" * 1023) == Unknown()


@pytest.mark.parametrize("data", [b"\x91\x10\0", b"\x92\x10", b"\x92\x10\xc1", b"\x92\x10\xa2a"])
def test_a_later_version_is_msgpack_still(data: bytes) -> None:
    assert code_of(data) == BAD_FRAME


@not_integers
def test_a_type_is_an_integer(value: bytes) -> None:
    assert code_of(array(value, b"\1", b"\0")) == BAD_FRAME
    assert code_of(array(uint64(MAX_INTEGER + 1))) == BAD_FRAME


# Messages


@given(st.lists(st.text() | st.binary(), min_size=1))
def test_messages_come_back(messages: list[str | bytes]) -> None:
    assert unpack(pack(messages)) == messages
    assert unpack(Raw(pack(messages)), len(messages)) == messages


@pytest.mark.parametrize("messages", [[""], [b""], ["", b""], [b"", ""], ["", ""], ["a", b"a"]])
def test_text_and_binary_of_no_length_stay_what_they_are(messages: list[str | bytes]) -> None:
    (*found,) = unpack(pack(messages))
    assert [(type(message), message) for message in found] == [(type(message), message) for message in messages]


def test_messages_may_be_encoded_longer_than_they_need_to_be() -> None:
    texts = [b"\xa1a", b"\xd9\1a", b"\xda\0\1a", b"\xdb\0\0\0\1a"]
    binaries = [b"\xc4\1a", b"\xc5\0\1a", b"\xc6\0\0\0\1a"]
    assert unpack(array(*texts)) == ["a"] * 4
    assert unpack(array(*binaries)) == [b"a"] * 3
    assert unpack(b"\xdc\0\7" + b"".join(texts + binaries)) == ["a"] * 4 + [b"a"] * 3
    assert unpack(b"\xdd\0\0\0\7" + b"".join(texts + binaries)) == ["a"] * 4 + [b"a"] * 3


@pytest.mark.parametrize("others", [[], [b"\xa1a"], [b"\xc4\1a"], [b"\xa1a", b"\xc4\1a"]])
@pytest.mark.parametrize(
    "item",
    [
        *(b"\x01", b"\xc0", b"\xc2", b"\x90", b"\x91\xa0", b"\x80", b"\xca" + bytes(4), struct.pack(">Bd", 0xCB, 1)),
        *(b"\xd4\1\0", b"\xd6\xff\0\0\0\0", b"\xd8\1" + bytes(16), b"\xc7\0\1"),  # extensions
    ],
)
def test_a_message_is_text_or_binary_and_nothing_else(item: bytes, others: list[bytes]) -> None:
    for at in range(len(others) + 1):
        assert code_of(array(*others[:at], item, *others[at:]), unpack) == BAD_FRAME


@pytest.mark.parametrize("others", [[], [b"\xa1a"], [b"\xc4\1a"]])
@pytest.mark.parametrize("text", [b"\xa1\xff", b"\xa1\x80", b"\xa2\xc3a", b"\xa2\xc0\x80", b"\xa3\xed\xa0\x80"])
def test_text_that_is_not_utf8_has_a_code_of_its_own(text: bytes, others: list[bytes]) -> None:
    assert code_of(array(*others, text), unpack) == BAD_TEXT
    assert code_of(array(text, *others), unpack) == BAD_TEXT


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\xa1a", b"\xc0", b"\x92\xa0", b"\x91\xa0\xa0", b"\xdc\0", b"\xdd\0\0\0", b"\xdc\0\2\xa0"]
)
def test_what_is_no_array_of_messages_is_refused(data: bytes) -> None:
    assert code_of(data, unpack) == BAD_FRAME


@pytest.mark.parametrize("head", [b"\x90", b"\xdc\0\0", b"\xdd\0\0\0\0"])
def test_an_empty_batch_is_refused(head: bytes) -> None:
    assert code_of(head, unpack) == BAD_FRAME
    assert code_of(head, lambda data: unpack(data, 0)) == BAD_FRAME


def test_there_are_as_many_messages_as_was_said() -> None:
    two = pack(["a", "b"])
    assert unpack(two, 2) == ["a", "b"]
    for count in (0, 1, 3, MAX_MESSAGES):
        assert code_of(two, lambda data, count=count: unpack(data, count)) == BAD_FRAME  # type: ignore[misc]


@pytest.mark.parametrize("message", ["", b"", "a"])
def test_a_frame_has_4096_messages_at_most(message: str | bytes) -> None:
    assert len(unpack(pack([message] * MAX_MESSAGES))) == MAX_MESSAGES
    assert code_of(pack([message] * (MAX_MESSAGES + 1)), unpack) == TOO_BIG


# What it costs


@pytest.mark.parametrize(
    "frame",
    [
        b"\x93\0\1" + MAPS,  # as messages
        b"\x94\3\1\0" + MAPS,  # in a field that is ignored
        b"\x92\x10" + MAPS,  # in a frame that is ignored
        b"\x92\x09" + MAPS,  # in a frame that is refused
        MAPS[:5] + b"\3\0\0" + MAPS[8:],  # as fields that are ignored
        MAPS[:5] + b"\x10" + MAPS[6:],  # as fields of a frame that is ignored
        MAPS[:5] + b"\x09" + MAPS[6:],  # as fields of a frame that is refused
        b"\x93\0\1\xdd\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff\x10",
    ],
)
def test_a_mebibyte_of_empty_maps_is_not_made(frame: bytes) -> None:
    assert peak(read, frame) < 16 * 1024


def test_too_many_messages_are_not_made() -> None:
    assert code_of(MAPS, unpack) == TOO_BIG
    assert peak(unpack, MAPS) < 16 * 1024
    assert peak(unpack, b"\xdd\xff\xff\xff\xff" + b"\xc0" * 4000) < MIB // 2


def test_what_is_nested_in_messages_is_not_made() -> None:
    maps = b"\xdc\1\0" + b"\x80" * 256
    many = b"\xdc\x10\0\xc4\0" + maps * (MAX_MESSAGES - 1)
    assert code_of(many, unpack) == BAD_FRAME
    assert peak(unpack, many) < 3 * len(many)


@pytest.mark.parametrize(
    "head",
    [b"", b"\x92\x09", b"\x92\x10", b"\x93\0\1", b"\x94\3\1\0", b"\x95\3\1\0\0", b"\x94\2\1\1", b"\x94\6\1"],
)
@pytest.mark.parametrize("depth", [10, 500, 2_000, 100_000])
def test_deep_nesting_breaks_nothing(head: bytes, depth: int) -> None:
    for bracket in (b"\x91", b"\x81\0"):
        with suppress(BadFrame):
            assert isinstance(read(head + bracket * depth + b"\x90"), Data | Ack | Unknown)
    assert code_of(head + b"\x91" * depth) == BAD_FRAME


@pytest.mark.parametrize("depth", [1, 10, 2_000, 100_000])
def test_deep_nesting_among_messages_is_refused(depth: int) -> None:
    nested = b"\x91" * depth + b"\x90"
    for data in (nested, array(b"\xa0", nested), array(b"\xc4\0", nested), array(b"\xa0", b"\xc4\0", nested)):
        assert code_of(data, unpack) == BAD_FRAME
        assert code_of(data[:-1], unpack) == BAD_FRAME


def test_no_representation_shows_the_secret_of_a_session() -> None:
    sid = bytes(range(32))
    for frame in (Hello(sid, 0, 0, 1, 1, 1, 1), Welcome(sid, 0, 0, 0, 1, 1, 0, 1, 1, "")):
        assert repr(sid)[2:20] not in repr(frame)
