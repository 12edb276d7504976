"""Entries and names of the shared tier, without a server."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Hashable, Iterator
from dataclasses import astuple
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import SerializationError
from penstock.cache.shared.entries import EntryDamaged, Packer, delete, head
from penstock.cache.shared.names import Names
from penstock.cache.shared.notes import Change
from penstock.cache.shared.rest import FAILURES, Rest

NUMBER = b"12345678"
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | st.binary(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)
KEYS: st.SearchStrategy[Any] = st.recursive(SCALARS | st.binary(), lambda inner: st.tuples(inner, inner), max_leaves=5)


READING = """
import sys
sys.setrecursionlimit(1_000_000)

from struct import pack
from zlib import crc32

from penstock.cache.shared.entries import EntryDamaged, Packer
from penstock.cache.shared.names import Names

for nested in (b"\\x91" * 1_000_000, b"\\x81\\xa1a" * 1_000_000):
    body = b"\\x92\\x90" + nested
    head = pack(">2sBB8sQQI", b"ps", 1, 1, b"12345678", 60_000, 0, len(body))
    try:
        print(Packer().unpack(head + crc32(body, crc32(head)).to_bytes(4, "big") + body, 60_000))
    except EntryDamaged as error:
        print(error)
    print(Names("app:").change(b"app:m" + nested))
"""


class Order(msgspec.Struct):
    number: int
    lines: tuple[str, ...] = ()


def packed(value: Any = "value", ttl: float = 60, stale_ttl: float = 0, tags: tuple[str, ...] = ()) -> bytes:
    return Packer().pack(value, ttl, stale_ttl, tags, NUMBER).content


@given(value=VALUES, tags=st.lists(st.text(), max_size=3).map(tuple), stamps=st.binary(max_size=24))
def test_a_value_comes_back_as_it_was(value: Any, tags: tuple[str, ...], stamps: bytes) -> None:
    kept = Packer().unpack(packed(value, tags=tags) + stamps, 60_000)
    assert kept is not None
    assert (kept.value, kept.tags, kept.left, kept.stamps) == (value, tags, 60.0, stamps)
    assert type(kept.value) is type(value)


@pytest.mark.parametrize("value", [(1, 2), {1, 2}, [(1,)], {"a": {"b": (1,)}}, {(1, 2): 3}, Order(1), object(), 2**70])
def test_a_value_that_would_come_back_as_another_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError, match=f"a value of type {type(value).__name__} cannot be shared"):
        packed(value)


def test_a_named_type_comes_back_as_it_was() -> None:
    packer = Packer(Order)
    order = Order(7, ("a", "b"))
    kept = packer.unpack(packer.pack(order, 1, 0, (), NUMBER).content, 1000)
    assert kept is not None
    assert kept.value == order
    with pytest.raises(SerializationError, match="a value of type str cannot be shared"):
        packer.pack("no order", 1, 0, (), NUMBER)


def test_what_another_type_was_stored_as_is_damaged() -> None:
    with pytest.raises(EntryDamaged):
        Packer(Order).unpack(packed("no order"), 1000)


@given(st.binary(max_size=100))
def test_garbage_is_damaged(garbage: bytes) -> None:
    with pytest.raises(EntryDamaged):
        Packer().unpack(garbage, 1000)


def test_every_bit_counts_and_every_byte() -> None:
    content = packed({"price": 2031.5}, tags=("gold",))
    for at in range(len(content)):
        with pytest.raises(EntryDamaged):
            Packer().unpack(content[:at], 1000)
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            with pytest.raises(EntryDamaged):
                Packer().unpack(bytes(damaged), 1000)


def test_its_time_is_what_the_server_says_less_what_it_may_be_stale() -> None:
    content = packed(ttl=60, stale_ttl=30)
    assert Packer().pack("value", 60, 30, (), NUMBER).lasts_ms == 90_000
    lefts = [getattr(Packer().unpack(content, left_ms), "left", None) for left_ms in (90_000, 31_000, 30_000, 10_000)]
    assert lefts == [60.0, 1.0, 0.0, -20.0]
    assert getattr(Packer().unpack(content, 10_000_000), "left", None) == 60.0  # somebody has lengthened it
    with pytest.raises(EntryDamaged, match="unlimited"):
        Packer().unpack(content, -1)


def test_what_lasts_for_ever_does() -> None:
    pack = Packer().pack
    assert pack("value", inf, 0, (), NUMBER).lasts_ms == 0
    assert pack("value", 1e11, 5, (), NUMBER).lasts_ms == 0
    assert pack("value", 0.0001, 0, (), NUMBER).lasts_ms == 1
    kept = Packer().unpack(packed(ttl=inf), -1)
    assert kept is not None
    assert kept.left == inf


def test_what_may_be_stale_for_ever_is_so_for_a_week() -> None:
    content, lasts_ms = astuple(Packer().pack("value", 5, inf, (), NUMBER))
    assert lasts_ms == 7 * 86_400_000 + 5000
    kept = Packer().unpack(content, lasts_ms)
    assert kept is not None
    assert kept.left == 5


def test_a_deleted_key_is_no_entry_and_not_damaged() -> None:
    raw = delete(b"name", NUMBER)[2]
    assert isinstance(raw, bytes)
    assert Packer().unpack(raw, 60_000) is None
    assert head(raw) == raw
    assert head(raw) != head(delete(b"name", b"other...")[2])  # type: ignore[arg-type]


@given(key=KEYS, prefix=st.text(min_size=1))
def test_a_name_leads_back_to_its_key(key: Hashable, prefix: str) -> None:
    try:
        names = Names(prefix)
        name = names.entry(key)
    except (SerializationError, UnicodeEncodeError):
        return
    assert name.startswith(names.prefix)
    change = names.change(name)
    assert change is not None
    assert change.what == key
    assert change.kind == "key"


def test_case_6_keys_that_differ_have_names_that_differ_and_equal_ones_have_one() -> None:
    names = Names("p:")
    different: list[Hashable] = ["1", b"1", 1, -1, -2, None, (1,), ("1",), (1, 1), "", b"", 1.5, "m", "k1"]
    assert len({names.entry(key) for key in different}) == len(different)
    assert names.entry(1) == names.entry(1.0) == names.entry(True)
    assert names.entry((2, 1)) == names.entry((2.0, True))


@pytest.mark.parametrize("key", [object(), frozenset({1}), (1, object()), 2**70, "\udc80"])
def test_a_key_that_means_nothing_elsewhere_is_refused_by_its_name(key: Hashable) -> None:
    with pytest.raises(SerializationError, match=r"the key .* cannot be shared"):
        Names("p:").entry(key)


def test_what_changed_is_told_by_its_name() -> None:
    names = Names("p:")
    assert names.change(names.tag("t")) == Change("tag", "t")
    assert names.change(names.beginning("be")) == Change("prefix", "be")
    assert names.change(names.all) == Change("all")
    for name in (names.beginnings, b"p:k\xff", b"p:m\xc1", b"p:m\x80", b"p:m", b"p:", b"p:zzz", b"p:gg"):
        assert names.change(name) is None


def test_a_pattern_means_itself() -> None:
    assert Names("a*:").entries_beginning("b[1]?\\") == rb"a\*:kb\[1\]\?\\" + b"*"


def test_after_some_failures_nobody_asks_then_one_does() -> None:
    rest = Rest(random.Random(1).random)
    for _ in range(FAILURES):
        assert not rest.refuses(10.0)
        rest.failed(10.0)
    assert rest.refuses(10.0)
    assert not rest.refuses(11.0)
    assert rest.refuses(11.0)
    rest.abandoned()
    assert not rest.refuses(11.0)
    for _ in range(100):  # those that were asked in the same moment
        rest.failed(11.0)
    assert rest.refuses(11.0)
    assert not rest.refuses(12.0)
    rest.succeeded()
    assert not rest.refuses(12.0)
    assert not rest.refuses(12.0)


def test_depth_does_not_end_a_process_whose_recursion_limit_somebody_has_raised() -> None:
    ended = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == 2 * ["nested too deep", "None"]


def test_what_some_could_not_read_is_not_shared() -> None:
    value: Any = "value"
    for _ in range(499):  # and in one array with the tags
        value = [value]
    assert packed(value)
    with pytest.raises(SerializationError, match="a value of type list cannot be shared: nested too deep"):
        packed([value])


@pytest.fixture
def _raised_limit() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(5_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("_raised_limit")
@pytest.mark.parametrize("depth", [501, 5_000])
def test_a_key_that_some_could_not_read_is_not_shared(depth: int) -> None:
    key: Any = "key"
    for _ in range(depth):
        key = (key,)
    with pytest.raises(SerializationError, match="a key of tuples in tuples is nested too deep"):
        Names("app:").entry(key)


@pytest.mark.parametrize("end", [b"", b"\0"])
def test_a_name_that_is_too_deep_for_a_key_is_none_of_ours(end: bytes) -> None:
    assert Names("app:").change(b"app:m" + 5_000 * b"\x91" + end) is None
