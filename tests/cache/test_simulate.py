"""What a cache would have done for a trace."""

from __future__ import annotations

import random
from array import array

import pytest

from penstock import EvictionPolicy, MessageCache
from penstock.cache.simulate import CHUNK, TraceError, ceiling, fitting_sizes, from_lines, from_u64, hits


def test_a_trace_is_a_key_a_line() -> None:
    assert list(from_lines(b"a\nb c\r\n\na\n")) == [b"a", b"b c", b"a"]
    assert list(from_lines(b"last line")) == [b"last line"]


def test_a_trace_is_64_bit_keys() -> None:
    assert list(from_u64(b"\x01" + bytes(7) + b"\x00\x01" + bytes(6))) == [1, 256]


def test_what_is_no_trace_is_told() -> None:
    with pytest.raises(TraceError, match="9 bytes are no whole number of 64-bit keys"):
        from_u64(bytes(9))
    for read in (from_u64, from_lines):
        with pytest.raises(TraceError, match="no request"):
            read(b"")


def test_the_ceiling_is_what_a_boundless_cache_hits() -> None:
    keys = [1, 2, 1, 1]
    assert ceiling(keys) == 0.5
    for policy in EvictionPolicy:
        assert list(hits(keys, policy, 10)) == [2]


def test_sizes_fit_the_keys_there_are() -> None:
    assert fitting_sizes(array("Q", range(12_345))) == [120, 250, 620, 1200, 2500, 6200]
    assert fitting_sizes([1]) == [1]


@pytest.mark.parametrize("policy", EvictionPolicy)
def test_a_simulation_hits_what_the_cache_does(policy: EvictionPolicy) -> None:
    chance = random.Random(1)
    keys = [int(chance.paretovariate(0.7)) % 500 for _ in range(CHUNK + 10_000)]
    cache = MessageCache(50, eviction_policy=policy, ttl=float("inf"))
    for key in keys:
        if cache.get(key) is None:
            cache.set(key, True)
    first, second = hits(keys, policy, 50)
    assert 0 < first < second == cache.get_cache_stats().hits
