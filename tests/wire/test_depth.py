"""msgpack that could end the process."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import Ext, encode

from penstock.wire.depth import MAX_DEPTH, is_deep

LOOKS_LIKE_ARRAYS = st.sampled_from([0, 1, 2, 4, 8, 16, 17, 31, 32, 255, 256, 70_000]).map(lambda size: b"\x91" * size)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.sampled_from([31, 32, 255, 256, 70_000]).map(lambda size: size * "a")
    | LOOKS_LIKE_ARRAYS
    | st.builds(Ext, st.integers(-128, 127), LOOKS_LIKE_ARRAYS)
)
WIDE = st.sampled_from([15, 16]).flatmap(
    lambda size: st.sampled_from([[[]] + (size - 1) * [0], {number: [] for number in range(size)}])
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: WIDE | st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)

READING = """
import sys
sys.setrecursionlimit(1_000_000)

from penstock.wire.envelope import BadFrame, read, unpack

for nested in (b"\\x91" * 1_000_000, b"\\xdc\\x00\\x01" * 1_000_000, b"\\x81\\xa1a" * 1_000_000):
    for frame in (
        nested,
        b"\\x93\\x00\\x01" + nested,  # in the place of messages
        b"\\x93\\x00\\x01\\x91" + nested,  # of a message
        b"\\x94\\x03\\x01\\x01" + nested,  # a field of a later version
        b"\\x92\\x20" + nested,  # a frame of one
    ):
        try:
            print(read(frame))
        except BadFrame:
            print("refused")
    for array in (nested, b"\\x92\\xa1a" + nested):  # as what was compressed
        try:
            print(unpack(array))
        except BadFrame:
            print("refused")
"""


def depth_of(value: Any) -> int:
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 1 + max(map(depth_of, value.values()), default=0) if isinstance(value, dict) else 0


@given(value=VALUES, beside=LEAVES, in_maps=st.booleans())
def test_how_deep_something_is_does_not_depend_on_what_it_holds(value: Any, beside: Any, in_maps: bool) -> None:
    for _ in range(MAX_DEPTH - depth_of(value)):
        value = {0: beside, 1: value} if in_maps else [beside, value]
    assert not is_deep(encode(value))
    assert is_deep(encode([beside, value]))


@pytest.mark.parametrize(
    "head", [b"\x92\0", b"\xdc\0\2\0", b"\xdd\0\0\0\2\0", b"\x81\0", b"\xde\0\1\0", b"\xdf\0\0\0\1\0"]
)
@pytest.mark.parametrize("innermost", [b"\0", b"\xc0", b"\x90"])
def test_each_way_to_write_a_container_counts(head: bytes, innermost: bytes) -> None:
    depth = MAX_DEPTH - (innermost == b"\x90")
    assert not is_deep(depth * head + innermost)
    assert is_deep((depth + 1) * head + innermost)
    assert not is_deep(b"\x93" + 2 * ((depth - 1) * head + innermost) + b"\0")


def test_what_ends_too_soon_is_as_deep_as_what_there_is_of_it() -> None:
    assert not is_deep(MAX_DEPTH * b"\x91")
    assert is_deep((MAX_DEPTH + 1) * b"\x91")
    assert not is_deep(MAX_DEPTH * b"\x91" + b"\xdb\xff\xff\xff\xff" + MAX_DEPTH * b"\x91")


def test_depth_does_not_end_a_process_whose_recursion_limit_somebody_has_raised() -> None:
    ended = subprocess.run([sys.executable, "-c", READING], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == 21 * ["refused"]
