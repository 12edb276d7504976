"""What every eviction policy keeps to, and in which order each lets go."""

from __future__ import annotations

import random
import weakref
from collections.abc import Hashable
from typing import Any

import pytest

from penstock import EvictionPolicy, MessageCache
from support.clocks import Clock

every_policy = pytest.mark.parametrize("policy", EvictionPolicy)


def cache_of(policy: EvictionPolicy, size: int = 3, **options: Any) -> MessageCache:
    return MessageCache(size, eviction_policy=policy, **options)


def kept(cache: MessageCache, *keys: Hashable) -> list[Hashable]:
    return [key for key in keys if cache.peek(key) is not None]


@every_policy
def test_what_was_stored_is_found(policy: EvictionPolicy) -> None:
    cache = cache_of(policy)
    for number in range(3):
        cache.set(number, str(number))
    assert [cache.get(number) for number in range(3)] == ["0", "1", "2"]
    assert cache.get(3) is None
    assert cache.get(3, "nothing") == "nothing"


@every_policy
def test_there_are_never_more_than_max_size(policy: EvictionPolicy) -> None:
    cache = cache_of(policy)
    for number in range(100):
        cache.set(number % 7, number)
        cache.get(number % 5)
        assert len(cache) <= 3
    stats = cache.get_cache_stats()
    assert stats.size == stats.capacity == 3
    assert stats.evictions > 0


@every_policy
def test_what_was_just_stored_is_found(policy: EvictionPolicy) -> None:
    cache = cache_of(policy)
    for number in range(50):
        cache.set(number, number)
        assert cache.get(number) == number


@every_policy
def test_every_value_that_leaves_is_told_once(policy: EvictionPolicy) -> None:
    told: list[tuple[Any, Any, str]] = []
    cache = cache_of(policy, on_evict=lambda *what: told.append(what))
    for number in range(10):
        cache.set(number, number)
    assert sorted(told) == [(number, number, "capacity") for number in sorted(set(range(10)) - set(kept_of(cache)))]
    assert cache.get_cache_stats().evictions == len(told) == 7


def kept_of(cache: MessageCache) -> list[int]:
    return [number for number in range(10) if cache.peek(number) is not None]


@every_policy
def test_weights_are_bounded(policy: EvictionPolicy) -> None:
    cache = cache_of(policy, 100, max_bytes=10)
    for number in range(40):
        cache.set(number % 13, "x" * (number % 6))
        cache.get(number % 3)
        stats = cache.get_cache_stats()
        assert stats.size_bytes is not None
        assert stats.size_bytes <= 10
        assert stats.size_bytes == sum(entry.size_bytes for key in range(13) if (entry := cache.peek(key)) is not None)


@every_policy
def test_a_value_that_grows_makes_room_for_itself(policy: EvictionPolicy) -> None:
    cache = cache_of(policy, 100, max_bytes=10)
    cache.set("a", b"12345")
    cache.set("b", b"12345")
    cache.set("a", b"123456789")
    assert cache.get("a") == b"123456789"
    assert cache.get("b") is None
    assert cache.get_cache_stats().size_bytes == 9


@every_policy
def test_case_11_a_cache_of_one_and_of_none(policy: EvictionPolicy) -> None:
    one = cache_of(policy, 1)
    for number in range(20):
        one.set(number % 2, number)
        assert one.get(number % 2) == number
        assert one.get((number + 1) % 2) is None
    assert one.get_cache_stats().evictions == 19
    none = cache_of(policy, 0)
    none.set("a", 1)
    assert none.get("a") is None
    assert len(none) == 0
    assert (none.get_cache_stats().refused, none.get_cache_stats().evictions) == (1, 0)


@every_policy
def test_case_12_a_value_over_max_bytes_is_refused_and_the_old_one_dropped(policy: EvictionPolicy) -> None:
    told: list[Any] = []
    cache = cache_of(policy, max_bytes=10, on_evict=lambda *what: told.append(what))
    cache.set("a", "small")
    cache.set("b", "b")
    cache.set("a", "more than ten bytes")
    assert cache.get("a") is None
    assert cache.get("b") == "b"
    assert told == [("a", "small", "replaced")]
    stats = cache.get_cache_stats()
    assert (stats.refused, stats.evictions, stats.size_bytes) == (1, 0, 1)


@every_policy
def test_what_expires_is_no_eviction(policy: EvictionPolicy) -> None:
    clock = Clock()
    told: list[str] = []
    cache = cache_of(policy, clock=clock, ttl=10, on_evict=lambda _key, _value, cause: told.append(cause))
    for number in range(3):
        cache.set(number, number)
    clock.now += 10
    assert cache.get(0) is None
    for number in range(3, 6):
        cache.set(number, number)
    stats = cache.get_cache_stats()
    assert (stats.expirations, stats.evictions, stats.size) == (3, 0, 3)
    assert told == ["expired"] * 3


@every_policy
def test_dropping_and_storing_again_forever_takes_no_more_room(policy: EvictionPolicy) -> None:
    clock = Clock()
    cache = cache_of(policy, 10, clock=clock, ttl=1000)
    for number in range(3000):
        cache.set(number % 10, number, ttl=1000 - number % 100)
        if number % 3:
            cache.delete(number % 10)
    order = cache._store.order
    for inside in ("_heap", "_gone", "_ranks"):
        assert len(getattr(order, inside, ())) < 200


@every_policy
def test_a_full_round_of_visited_entries_does_not_keep_a_set_busy(policy: EvictionPolicy) -> None:
    cache = cache_of(policy, 1000)
    for number in range(1000):
        cache.set(number, number)
    for _ in range(5):
        for number in range(1000):
            cache.get(number)
    for number in range(1000, 1100):
        cache.set(number, number)
    assert len(cache) == 1000
    assert cache.get(1099) == 1099


@every_policy
def test_who_holds_what_is_gone_holds_nothing_else(policy: EvictionPolicy) -> None:
    class Value:
        pass

    cache, values, held = cache_of(policy, 5), list[weakref.ref[Value]](), list[object]()
    for number in range(100):
        value = Value()
        cache.set(number, value)
        if number in {21, 46, 58, 72}:
            held.append(cache._store.nodes[number])  # as a load does that renews one
        else:
            values.append(weakref.ref(value))
        del value
        if number % 7 == 0:
            cache.delete(number)
    cache.clear()
    assert [ref() for ref in values] == [None] * 96
    assert len(held) == 4


def test_lru_drops_what_was_not_used_for_longest() -> None:
    cache = cache_of(EvictionPolicy.LRU)
    for key in "abc":
        cache.set(key, key)
    cache.get("a")
    cache.set("b", "again")
    cache.peek("c")
    cache.set("d", "d")
    assert kept(cache, *"abcd") == ["a", "b", "d"]


def test_lfu_drops_what_was_asked_for_least() -> None:
    cache = cache_of(EvictionPolicy.LFU)
    for key in "abc":
        cache.set(key, key)
    for key in "aaabbc":
        cache.get(key)
    cache.set("d", "d")
    assert kept(cache, *"abcd") == ["a", "b", "d"]


def test_lfu_forgets_what_was_asked_for_long_ago() -> None:
    cache = cache_of(EvictionPolicy.LFU)
    cache.set("old", 1)
    for _ in range(10):
        cache.get("old")
    for number in range(100):
        cache.set(number, number)
        cache.get(number)
    assert cache.get("old") is None


def test_ttl_drops_what_expires_soonest() -> None:
    clock = Clock()
    cache = cache_of(EvictionPolicy.TTL, clock=clock)
    cache.set("a", 1, ttl=30)
    cache.set("b", 2, ttl=10)
    cache.set("c", 3, ttl=20)
    cache.get("b")
    cache.set("d", 4, ttl=15)
    assert kept(cache, *"abcd") == ["a", "c", "d"]
    cache.set("d", 5, ttl=100)
    cache.set("a", 5, ttl=5)
    cache.set("e", 6, ttl=50)
    assert kept(cache, *"acde") == ["c", "d", "e"]


@pytest.mark.parametrize("seed", range(6))
def test_ttl_drops_what_expires_soonest_in_whatever_order_it_came(seed: int) -> None:
    chance, clock, soonest = random.Random(seed), Clock(), dict[int, float]()
    cache = cache_of(EvictionPolicy.TTL, 20, clock=clock)
    for _ in range(5000):
        clock.now += 0.001
        key, ttl = chance.randrange(60), chance.choice([100.0, 100.0, 1000.0, 10 + 100 * chance.random()])
        if chance.randrange(4) == 0:
            assert cache.delete(key) == (soonest.pop(key, None) is not None)
            continue
        if key not in soonest and len(soonest) == 20:
            victim = min(soonest, key=lambda one: soonest[one])
            del soonest[victim]
        soonest[key] = clock.now + ttl
        cache.set(key, key, ttl)
        assert {one for one in range(60) if cache.peek(one) is not None} == set(soonest)


def test_s3_fifo_drops_what_was_never_asked_for_first() -> None:
    cache = cache_of(EvictionPolicy.S3_FIFO, 4)
    for key in "abcd":
        cache.set(key, key)
    cache.get("a")
    cache.get("c")
    cache.set("e", "e")
    cache.set("f", "f")
    assert kept(cache, *"abcdef") == ["a", "c", "e", "f"]


def test_s3_fifo_knows_again_what_it_let_go_of() -> None:
    cache = cache_of(EvictionPolicy.S3_FIFO, 20)
    for number in range(21):
        cache.set(number, number)
    cache.set(0, "back")  # it had to go, and is not on trial any more
    for number in range(100, 130):
        cache.set(number, number)
    assert cache.get(0) == "back"


def test_s3_fifo_outlives_a_scan_that_lru_does_not() -> None:
    hot = list(range(50))

    def hits(policy: EvictionPolicy) -> int:
        cache, cold = cache_of(policy, 100), 1000
        for _ in range(30):
            for key in [*hot, *range(cold, cold + 100)]:
                if cache.get(key) is None:
                    cache.set(key, key)
            cold += 100
        return cache.get_cache_stats().hits

    assert hits(EvictionPolicy.LRU) == 0
    assert hits(EvictionPolicy.S3_FIFO) > 1000


def test_a_policy_may_be_named_by_its_value() -> None:
    assert MessageCache(eviction_policy=EvictionPolicy("s3-fifo")).get_cache_stats().size == 0
    with pytest.raises(
        ValueError, match="eviction_policy='fifo': must be an EvictionPolicy, or one of 'lru', 'lfu', 'ttl', 's3-fifo'"
    ):
        MessageCache(eviction_policy="fifo")  # type: ignore[arg-type]
