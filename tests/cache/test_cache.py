"""Storing, asking, dropping, and what is counted."""

from __future__ import annotations

import gc
import time
from dataclasses import FrozenInstanceError
from math import inf, nan
from typing import Any

import pytest

from penstock import CacheEntry, EvictionPolicy, MessageCache
from penstock.cache.entry import payload_bytes
from support.clocks import Clock


def test_an_expired_entry_is_a_miss() -> None:
    clock = Clock()
    cache = MessageCache(ttl=10, clock=clock)
    cache.set("a", 1)
    clock.now += 9.999
    assert cache.get("a") == 1
    clock.now += 0.001
    assert cache.get("a") is None
    stats = cache.get_cache_stats()
    assert (stats.hits, stats.misses, stats.expirations, stats.size) == (1, 1, 1, 0)


def test_an_entry_may_have_a_ttl_of_its_own() -> None:
    clock = Clock()
    cache = MessageCache(ttl=10, clock=clock)
    cache.set("short", 1, ttl=1)
    cache.set("long", 1, ttl=inf)
    clock.now += 1
    assert cache.get("short") is None
    clock.now += 1e9
    assert cache.get("long") == 1


def test_a_ttl_of_0_stores_nothing_and_drops_what_was_there() -> None:
    told: list[Any] = []
    cache = MessageCache(on_evict=lambda *what: told.append(what))
    cache.set("a", 1)
    cache.set("a", 2, ttl=0)
    assert cache.get("a") is None
    assert told == [("a", 1, "replaced")]
    assert MessageCache(ttl=0).get_cache_stats().refused == 0


def test_case_5_none_is_a_value() -> None:
    cache = MessageCache()
    cache.set("a", None)
    assert cache.get("a", "nothing") is None
    assert cache.get_cache_stats().hits == 1


def test_case_6_keys_that_look_alike_are_kept_apart() -> None:
    cache = MessageCache()
    keys = ["1", b"1", 1, -1, -2, ("1",), (1,), None, ""]
    for number, key in enumerate(keys):
        cache.set(key, number)
    assert [cache.get(key) for key in keys] == list(range(len(keys)))


@pytest.mark.parametrize("call", ["get", "set", "delete", "peek"])
def test_case_7_an_unhashable_key_is_a_type_error_and_counts_nothing(call: str) -> None:
    for options in ({}, {"max_size": 0}, {"ttl": 0}, {"max_bytes": 0}):
        cache = MessageCache(**options)  # type: ignore[arg-type]
        before = cache.get_cache_stats()
        with pytest.raises(TypeError, match="unhashable"):
            getattr(cache, call)(["a"], *["value"] * (call == "set"))
        assert cache.get_cache_stats() == before


def test_case_9_entries_go_by_key_tag_prefix_and_altogether() -> None:
    told: list[Any] = []
    cache = MessageCache(on_evict=lambda *what: told.append(what))

    def fill() -> None:
        told.clear()
        for key, tags in {"block:1": ["a", "b"], "block:2": ["b"], "price": ["a"], 7: ["c"], b"block:": ()}.items():
            cache.set(key, key, tags=tags)

    fill()
    assert cache.delete("price")
    assert not cache.delete("price")
    assert told == [("price", "price", "deleted")]
    assert cache.invalidate(tag="b") == 2
    assert cache.invalidate(tag="b") == 0
    assert sorted(told[1:]) == [(f"block:{n}", f"block:{n}", "invalidated") for n in (1, 2)]
    cache.clear()
    fill()
    assert cache.invalidate(prefix="block:") == 2
    assert cache.invalidate(prefix="block:") == 0
    assert len(cache) == 3
    told.clear()
    cache.clear()
    assert {cause for _, _, cause in told} == {"cleared"}
    assert len(told) == 3
    assert len(cache) == 0
    cache.set("block:3", 3)
    assert cache.get("block:3") == 3
    assert cache.invalidate(prefix="b") == 1


def test_an_entry_has_the_tags_that_it_was_stored_with_last() -> None:
    cache = MessageCache()
    cache.set("a", 1, tags=["old", "both"])
    cache.set("a", 2, tags=("both", "new"))
    assert cache.invalidate(tag="old") == 0
    assert cache.invalidate(tag="new") == 1
    cache.set("a", 3)
    assert cache.invalidate(tag="both") == 0


def test_tags_and_prefixes_of_what_went_are_forgotten() -> None:
    cache = MessageCache(2)
    cache.invalidate(prefix="k")
    for number in range(20):
        cache.set(f"k{number}", number, tags=["t"])
    cache.delete("k19")
    assert cache.invalidate(prefix="k") == 1
    assert cache.invalidate(tag="t") == 0
    assert cache._store.tags._keys == {}


def test_a_set_without_tags_forgets_those_of_what_it_replaces_or_drops() -> None:
    cache = MessageCache(2)
    cache.set("a", 1, tags=["t"])
    cache.set("b", 2, tags=["t"])
    cache.set("b", 3)
    entry = cache.peek("b")
    assert entry is not None
    assert (entry.value, entry.tags) == (3, ())
    cache.set("c", 4)
    assert cache._store.tags.of == {}
    assert cache.invalidate(tag="t") == 0


def test_what_is_set_after_a_prefix_was_asked_for_is_found_by_it() -> None:
    cache = MessageCache(2)
    assert cache.invalidate(prefix="k") == 0
    for number in range(3):
        cache.set(f"k{number}", number)
    assert cache.invalidate(prefix="k") == 2
    assert len(cache) == 0


def test_what_is_set_for_no_time_takes_no_room() -> None:
    cache = MessageCache(1)
    cache.set("a", 1)
    cache.set("b", 2, ttl=0)
    assert (len(cache), cache.get("a")) == (1, 1)
    cache.set("a", 3, ttl=0)
    assert (len(cache), cache.get_cache_stats().evictions) == (0, 0)


def test_invalidating_takes_a_tag_or_a_prefix() -> None:
    for arguments in ({}, {"tag": "a", "prefix": "b"}):
        with pytest.raises(TypeError, match="one of both"):
            MessageCache().invalidate(**arguments)  # type: ignore[arg-type]


def test_case_13_the_wall_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = MessageCache(ttl=60)
    cache.set("a", 1)
    real = time.time()
    for shift in (3600.0, -3600.0):
        monkeypatch.setattr(time, "time", lambda shift=shift: real + shift)
        assert cache.get("a") == 1
        cache.set("b", 2, ttl=1)
        assert cache.get("b") == 2


def test_case_15_a_callback_may_call_the_cache() -> None:
    told: list[Any] = []

    def on_evict(key: Any, value: Any, cause: str) -> None:
        told.append((key, value, cause))
        if key == "a":
            assert cache.get(key) is None
            cache.set("archive", value)  # takes the place of "b"
            cache.delete("archive")

    cache = MessageCache(1, on_evict=on_evict)
    cache.set("a", 1)
    cache.set("b", 2)
    assert [cause for _, _, cause in told] == ["capacity", "capacity", "deleted"]


@pytest.mark.parametrize("policy", EvictionPolicy)
def test_case_15_a_finalizer_may_call_the_cache(policy: EvictionPolicy) -> None:
    class Value:
        def __del__(self) -> None:
            cache.get("a")
            cache.set("from a finalizer", len(cache))
            cache.invalidate(prefix="b")

    cache = MessageCache(2, eviction_policy=policy)
    for number in range(10):
        cache.set(number, Value())
    cache.clear()
    cache.set("last", Value())
    cache.clear()
    assert cache.peek("from a finalizer") is not None


def test_case_15_a_finalizer_in_the_middle_of_a_change_is_heard_when_that_ends() -> None:
    class Meddling(str):
        __slots__ = ()

        def __hash__(self) -> int:  # as the garbage collector may run finalizers wherever memory is allocated
            cache.set("late", 1)
            cache.delete("early")
            assert cache.get("late") in (None, 1)
            return 5

    cache = MessageCache()
    cache.set("early", 1)
    cache.delete(Meddling("x"))
    assert cache.get("late") == 1
    assert cache.get("early") is None


def test_a_callback_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no")

    cache = MessageCache(1, on_evict=fail)
    cache.set("a", 1)
    cache.set("b", 2)
    cache.set("c", 3)
    assert [record.message for record in caplog.records] == ["on_evict failed"] * 2
    assert cache.get("c") == 3


def test_what_was_dropped_is_freed() -> None:
    freed: list[int] = []

    class Value:
        def __init__(self, number: int) -> None:
            self.number = number

        def __del__(self) -> None:
            freed.append(self.number)

    cache = MessageCache(2)
    for number in range(4):
        cache.set(number, Value(number))
    cache.set(3, "another")
    cache.delete(2)
    gc.collect()
    assert freed == [0, 1, 3, 2]


def test_jitter_shortens_and_never_lengthens() -> None:
    for chance, lifetime in ((0.0, 100.0), (0.5, 90.0), (0.999, 80.02)):
        clock = Clock()
        cache = MessageCache(ttl=100, jitter=0.2, clock=clock, random=lambda chance=chance: chance)  # type: ignore[misc]
        cache.set("a", 1)
        entry = cache.peek("a")
        assert entry is not None
        assert entry.expires_in == pytest.approx(lifetime)


def test_an_entry_can_be_looked_at() -> None:
    clock = Clock()
    cache = MessageCache(max_bytes=100, clock=clock)
    cache.set("a", "text", ttl=5, tags=["t", "u", "t"])
    clock.now += 2
    assert cache.peek("a") == CacheEntry("a", "text", 3.0, 4, ("t", "u"))
    clock.now += 3
    assert cache.peek("a") is None
    assert cache.get_cache_stats().hits == cache.get_cache_stats().misses == 0


def test_statistics_are_a_snapshot() -> None:
    cache = MessageCache(5, max_bytes=50)
    before = cache.get_cache_stats()
    assert (before.size, before.capacity, before.size_bytes, before.max_bytes, before.hit_ratio) == (0, 5, 0, 50, 0.0)
    cache.set("a", b"12")
    for key in "aaab":
        cache.get(key)
    after = cache.get_cache_stats()
    assert (after.size, after.size_bytes, after.hits, after.misses, after.hit_ratio) == (1, 2, 3, 1, 0.75)
    assert before.hits == 0
    with pytest.raises(FrozenInstanceError):
        after.hits = 0  # type: ignore[misc]
    assert MessageCache().get_cache_stats().size_bytes is None


def test_values_weigh_what_their_payload_does() -> None:
    assert payload_bytes("text") == 4
    assert payload_bytes("äöü") == 6
    assert payload_bytes("\ud800") == 3
    assert payload_bytes(b"12345") == payload_bytes(bytearray(5)) == payload_bytes(memoryview(bytes(5))) == 5
    small, large = payload_bytes({"a": [1, 2]}), payload_bytes({"a": [1, 2, "x" * 1000]})
    assert 1000 < large - small < 1200
    endless: list[Any] = [1000]
    endless.append(endless)
    assert payload_bytes(endless) < 500


def test_values_weigh_what_the_user_says() -> None:
    cache = MessageCache(max_bytes=10, size_of=lambda value: value)
    cache.set("a", 6)
    cache.set("b", 6)
    assert cache.get("a") is None
    assert cache.get("b") == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_size": -1}, "max_size=-1: must be a whole number of at least 0"),
        ({"max_size": 1.5}, "max_size=1.5: must be a whole number"),
        ({"max_size": None}, "max_size=None: must be a whole number"),
        ({"max_bytes": -1}, "max_bytes=-1: must be"),
        ({"ttl": -1}, "ttl=-1: must be a number of seconds, at least 0; math.inf for no limit"),
        ({"ttl": nan}, "ttl=nan"),
        ({"ttl": None}, "ttl=None"),
        ({"stale_ttl": -1}, "stale_ttl=-1"),
        ({"jitter": 1.1}, "jitter=1.1: must be at least 0 and at most 1"),
        ({"negative_ttl": {ValueError: -1}}, r"negative_ttl\[ValueError\]=-1"),
    ],
)
def test_an_argument_out_of_bounds_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MessageCache(**options)


def test_what_is_no_exception_has_no_negative_ttl() -> None:
    with pytest.raises(TypeError, match="must be a class of exceptions"):
        MessageCache(negative_ttl={KeyboardInterrupt: 1})  # type: ignore[dict-item]


def test_wrong_arguments_of_set_store_nothing() -> None:
    cache = MessageCache()
    with pytest.raises(ValueError, match="ttl=-1"):
        cache.set("a", 1, ttl=-1)
    with pytest.raises(TypeError, match="must be a collection of texts"):
        cache.set("a", 1, tags="tag")
    assert len(cache) == 0
