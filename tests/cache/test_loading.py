"""One load, however many ask."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from penstock import EvictionPolicy, LoadCycle, MessageCache
from support.clocks import Clock


class Source:
    """Where values come from: counts, and answers when it may."""

    def __init__(self, *, ready: bool = False) -> None:
        self.asked = self.cancelled = 0
        self.ready = asyncio.Event()
        self.error: Exception | None = None
        if ready:
            self.ready.set()

    async def load(self) -> str:
        self.asked += 1
        number = self.asked
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return f"value {number}"


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_case_1_a_thousand_callers_and_one_load() -> None:
    cache, source = MessageCache(), Source()
    callers = [asyncio.create_task(cache.get_or_load("a", source.load)) for _ in range(1000)]
    await settle()
    source.ready.set()
    assert await asyncio.gather(*callers) == ["value 1"] * 1000
    assert source.asked == 1
    stats = cache.get_cache_stats()
    assert (stats.hits, stats.misses, stats.coalesced, stats.loads, stats.size) == (0, 1000, 999, 1, 1)
    assert await cache.get_or_load("a", source.load) == "value 1"
    assert cache.get_cache_stats().hits == 1


async def test_case_2_cancelling_the_first_caller_hurts_nobody() -> None:
    cache, source = MessageCache(), Source()
    first, *others = [asyncio.create_task(cache.get_or_load("a", source.load)) for _ in range(5)]
    await settle()
    first.cancel()
    await settle()
    assert first.cancelled()
    source.ready.set()
    assert await asyncio.gather(*others) == ["value 1"] * 4
    assert (source.asked, source.cancelled) == (1, 0)


async def test_case_3_when_all_are_cancelled_the_loader_is_and_the_key_is_usable() -> None:
    cache, source = MessageCache(), Source()
    callers = [asyncio.create_task(cache.get_or_load("a", source.load)) for _ in range(5)]
    await settle()
    for caller in callers:
        caller.cancel()
    later = asyncio.create_task(cache.get_or_load("a", source.load))
    await settle()
    assert source.cancelled == 1
    source.ready.set()
    assert await later == "value 2"
    assert cache.get("a") == "value 2"
    assert cache.get_cache_stats().load_errors == 0


async def test_case_3_a_loader_that_will_not_be_cancelled_stores_nothing() -> None:
    cache = MessageCache()
    done = asyncio.Event()

    async def stubborn() -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            done.set()
        return "too late"

    caller = asyncio.create_task(cache.get_or_load("a", stubborn))
    await settle()
    caller.cancel()
    await done.wait()
    await settle()
    assert cache.get("a") is None


async def test_case_4_what_the_loader_raises_all_see_and_the_next_loads_again() -> None:
    cache, source = MessageCache(), Source()
    source.error = OSError("down")
    callers = [asyncio.create_task(cache.get_or_load("a", source.load)) for _ in range(10)]
    await settle()
    source.ready.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert answers == [source.error] * 10
    source.error = None
    assert await cache.get_or_load("a", source.load) == "value 2"
    assert cache.get_cache_stats().load_errors == 1


async def test_a_traceback_leads_to_the_loader_and_does_not_grow() -> None:
    cache, source = MessageCache(), Source()
    source.error = OSError("down")
    callers = [asyncio.create_task(cache.get_or_load("a", source.load)) for _ in range(50)]
    await settle()
    source.ready.set()
    await asyncio.gather(*callers, return_exceptions=True)
    frames, trace = [], source.error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-1] == "load"
    assert len(frames) < 8


async def test_a_loader_may_be_an_ordinary_function_or_raise_at_once() -> None:
    cache = MessageCache()
    assert await cache.get_or_load("a", lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_load("b", lambda: 1 // 0)
    assert await cache.get_or_load("b", lambda: None) is None
    assert cache.peek("b") is not None


async def test_case_5_none_that_was_loaded_is_a_hit() -> None:
    cache = MessageCache()
    assert await cache.get_or_load("a", lambda: None) is None
    assert await cache.get_or_load("a", lambda: "another") is None
    assert cache.get_cache_stats().hits == 1


async def test_case_7_an_unhashable_key_counts_nothing_and_loads_nothing() -> None:
    cache, source = MessageCache(), Source(ready=True)
    before = cache.get_cache_stats()
    with pytest.raises(TypeError, match="unhashable"):
        await cache.get_or_load([], source.load)
    assert (source.asked, cache.get_cache_stats()) == (0, before)


async def test_the_result_has_its_ttl_and_its_tags() -> None:
    clock = Clock()
    cache = MessageCache(ttl=100, clock=clock)
    await cache.get_or_load("a", lambda: 1, 5, tags=["t"])
    entry = cache.peek("a")
    assert entry is not None
    assert (entry.expires_in, entry.tags) == (5, ("t",))
    assert await cache.get_or_load("b", lambda: 1, ttl=0) == 1
    assert cache.peek("b") is None
    with pytest.raises(ValueError, match="ttl=-1"):
        await cache.get_or_load("c", lambda: 1, ttl=-1)


async def test_case_11_without_room_there_is_still_one_load_at_a_time() -> None:
    for cache in (MessageCache(0), MessageCache(max_bytes=3)):
        source = Source()
        callers = [asyncio.create_task(cache.get_or_load("a", source.load)) for _ in range(5)]
        await settle()
        source.ready.set()
        assert await asyncio.gather(*callers) == ["value 1"] * 5
        assert await cache.get_or_load("a", source.load) == "value 2"
        assert (len(cache), cache.get_cache_stats().refused) == (0, 2)


@pytest.mark.parametrize("policy", EvictionPolicy)
async def test_case_8_an_entry_that_was_evicted_while_it_was_refreshed_is_not_resurrected(
    policy: EvictionPolicy,
) -> None:
    clock, source = Clock(), Source()
    cache = MessageCache(1, ttl=10, eviction_policy=policy, clock=clock, stale_ttl=10)
    cache.set("a", "old")
    clock.now += 10
    assert await cache.get_or_load("a", source.load) == "old"
    await settle()
    cache.set("b", 1)
    source.ready.set()
    await settle()
    assert source.asked == 1
    assert cache.get("a") is None
    assert cache.get("b") == 1


CHANGES: dict[str, Callable[[MessageCache], object]] = {
    "delete": lambda cache: cache.delete("key"),
    "tag": lambda cache: cache.invalidate(tag="tag"),
    "prefix": lambda cache: cache.invalidate(prefix="ke"),
    "clear": lambda cache: cache.clear(),
    "ttl 0": lambda cache: cache.set("key", "new", ttl=0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_case_9_what_was_invalidated_while_it_was_loaded_is_not_stored(
    change: Callable[[MessageCache], object],
) -> None:
    cache, source = MessageCache(), Source()
    before = asyncio.create_task(cache.get_or_load("key", source.load, tags=["tag"]))
    other = asyncio.create_task(cache.get_or_load("other", source.load))
    await settle()
    change(cache)
    after = asyncio.create_task(cache.get_or_load("key", source.load, tags=["tag"]))
    await settle()
    assert source.asked == 3
    change(cache)
    source.ready.set()
    assert [await before, await other, await after] == ["value 1", "value 2", "value 3"]
    assert cache.peek("key") is None
    assert (cache.peek("other") is None) == (change is CHANGES["clear"])


async def test_case_9_what_was_set_while_it_was_loaded_stays() -> None:
    cache, source = MessageCache(), Source()
    caller = asyncio.create_task(cache.get_or_load("key", source.load))
    await settle()
    cache.set("key", "newer")
    source.ready.set()
    assert await caller == "value 1"
    assert cache.get("key") == "newer"


async def test_case_10_a_stale_value_is_served_while_one_load_refreshes_it() -> None:
    clock, source = Clock(), Source()
    cache = MessageCache(ttl=10, clock=clock, stale_ttl=10)
    cache.set("a", "old")
    clock.now += 10
    assert cache.get("a") is None
    assert [await cache.get_or_load("a", source.load) for _ in range(3)] == ["old"] * 3
    await settle()
    assert source.asked == 1
    source.ready.set()
    await settle()
    assert await cache.get_or_load("a", source.load) == "value 1"
    stats = cache.get_cache_stats()
    assert (stats.hits, stats.stale_hits, stats.misses, stats.loads) == (4, 3, 1, 1)


async def test_case_10_a_refresh_that_fails_keeps_the_value_to_its_hard_ttl(caplog: pytest.LogCaptureFixture) -> None:
    clock, source = Clock(), Source(ready=True)
    source.error = OSError("down")
    cache = MessageCache(ttl=10, clock=clock, stale_ttl=10, negative_ttl={OSError: 5})
    cache.set("a", "old")
    clock.now += 10
    for asked in (1, 2, 3):
        assert await cache.get_or_load("a", source.load) == "old"
        await settle()
        assert source.asked == asked
    assert [record.message for record in caplog.records] == ["a load that nobody waits for has failed"] * 3
    clock.now += 9.999
    assert await cache.get_or_load("a", source.load) == "old"
    await settle()
    clock.now += 0.001
    with pytest.raises(OSError, match="down"):
        await cache.get_or_load("a", source.load)
    stats = cache.get_cache_stats()
    assert (stats.load_errors, stats.stale_hits, stats.expirations) == (5, 4, 1)


async def test_who_asks_after_the_hard_ttl_joins_the_refresh_under_way() -> None:
    clock, source = Clock(), Source()
    cache = MessageCache(ttl=10, clock=clock, stale_ttl=10)
    cache.set("a", "old")
    clock.now += 15
    await cache.get_or_load("a", source.load)
    clock.now += 5
    late = asyncio.create_task(cache.get_or_load("a", source.load))
    await settle()
    source.ready.set()
    assert await late == "value 1"
    assert cache.get("a") == "value 1"
    assert source.asked == 1


async def test_named_exceptions_are_raised_again_for_a_while() -> None:
    clock, source = Clock(), Source(ready=True)
    source.error = LookupError("no such block")
    cache = MessageCache(clock=clock, negative_ttl={LookupError: 5, OSError: 0})
    for _ in range(3):
        with pytest.raises(LookupError, match="no such block"):
            await cache.get_or_load("a", source.load)
    assert source.asked == 1
    assert cache.get("a", "nothing") == "nothing"
    assert cache.peek("a") is None
    clock.now += 5
    source.error = OSError("down")
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            await cache.get_or_load("a", source.load)
    assert source.asked == 3
    stats = cache.get_cache_stats()
    assert (stats.hits, stats.misses, stats.load_errors, stats.size) == (2, 4, 3, 0)


async def test_a_failure_that_is_kept_gives_way_to_a_value_and_is_told_to_nobody() -> None:
    told: list[Any] = []
    source = Source(ready=True)
    source.error = LookupError()
    cache = MessageCache(negative_ttl={LookupError: 5}, on_evict=lambda *what: told.append(what))
    with pytest.raises(LookupError):
        await cache.get_or_load("a", source.load)
    cache.set("a", 1)
    assert await cache.get_or_load("a", source.load) == 1
    assert told == []


async def test_case_16_a_loader_that_asks_for_its_own_key_is_told_so() -> None:
    cache = MessageCache()

    async def load() -> Any:
        return await cache.get_or_load("a", load)

    with pytest.raises(LoadCycle, match="the loader of 'a'"):
        await cache.get_or_load("a", load)
    assert await cache.get_or_load("a", lambda: 1) == 1


async def test_case_16_loaders_that_wait_for_each_other_are_told_so() -> None:
    cache, other = MessageCache(), MessageCache()
    begun = asyncio.Event()

    async def load_a() -> Any:
        await begun.wait()
        return await other.get_or_load("b", load_b)

    async def load_b() -> Any:
        begun.set()
        await asyncio.sleep(0)
        return await cache.get_or_load("a", load_a)

    answers = await asyncio.gather(
        cache.get_or_load("a", load_a), other.get_or_load("b", load_b), return_exceptions=True
    )
    assert {type(answer) for answer in answers} == {LoadCycle}


async def test_a_loader_may_ask_for_other_keys() -> None:
    cache = MessageCache()

    async def load(number: int) -> int:
        if number == 0:
            return 0
        left, right = await asyncio.gather(*(cache.get_or_load(number - 1, lambda: load(number - 1)) for _ in range(2)))
        return left + right + 1

    assert await cache.get_or_load(10, lambda: load(10)) == 1023
    assert cache.get_cache_stats().loads == 11


async def test_a_loader_that_cancels_itself_cancels_who_waits() -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    cache = MessageCache()
    with pytest.raises(asyncio.CancelledError):
        await cache.get_or_load("a", give_up)
    assert await cache.get_or_load("a", lambda: 1) == 1


@pytest.mark.parametrize("policy", EvictionPolicy)
async def test_a_hit_of_get_or_load_counts_for_every_policy(policy: EvictionPolicy) -> None:
    cache = MessageCache(2, eviction_policy=policy)
    cache.set("a", 1, ttl=200)
    cache.set("b", 2, ttl=100)
    assert await cache.get_or_load("a", lambda: "another") == 1
    cache.set("c", 3, ttl=300)
    assert cache.peek("a") is not None
    assert cache.peek("b") is None
    assert cache.get_cache_stats().hits == 1


async def test_what_is_dropped_while_it_is_found_is_still_an_answer() -> None:
    def now() -> float:  # another thread may do this in that moment
        cache.delete("a")
        return 0.0

    for load in (False, True):
        clock = Clock()
        cache = MessageCache(clock=lambda clock=clock: clock())  # type: ignore[misc]
        cache.set("a", 1)
        cache._clock = now
        assert (await cache.get_or_load("a", lambda: 2) if load else cache.get("a")) == 1
        assert cache.get_cache_stats().hits == 1


def test_a_load_is_cancelled_by_the_last_who_waited_on_another_event_loop() -> None:
    cache = MessageCache()
    loading, alone, cancelled = threading.Event(), threading.Event(), threading.Event()

    async def load() -> None:
        loading.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def first() -> None:
        caller = asyncio.create_task(cache.get_or_load("a", load))
        while cache.get_cache_stats().coalesced < 1:
            await asyncio.sleep(0.001)
        caller.cancel()
        await asyncio.wait([caller])
        alone.set()
        assert await asyncio.to_thread(cancelled.wait, 10)

    async def second() -> None:
        await asyncio.to_thread(loading.wait, 10)
        caller = asyncio.create_task(cache.get_or_load("a", load))
        await asyncio.to_thread(alone.wait, 10)
        assert not cancelled.is_set()
        caller.cancel()
        await asyncio.wait([caller])

    threads = [threading.Thread(target=lambda main=main: asyncio.run(main())) for main in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert cancelled.is_set()
    assert asyncio.run(cache.get_or_load("a", lambda: 1)) == 1


def test_callers_in_several_threads_share_one_load() -> None:
    cache = MessageCache()
    calls: list[int] = []
    answers: list[str] = []
    begun, go_on = threading.Barrier(4, timeout=10), threading.Event()

    async def load() -> str:
        calls.append(1)
        await asyncio.to_thread(go_on.wait, 10)
        return "value"

    async def ask() -> None:
        begun.wait()
        answers.append(await cache.get_or_load("a", load))

    threads = [threading.Thread(target=lambda: asyncio.run(ask())) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    while cache.get_cache_stats().misses < 3:
        pass
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert (answers, len(calls)) == (["value"] * 3, 1)


def test_when_the_loader_s_event_loop_ends_others_load_for_themselves() -> None:
    cache = MessageCache()
    loading = threading.Event()
    answers: list[Any] = []

    async def never() -> None:
        loading.set()
        await asyncio.sleep(60)

    async def first() -> None:
        task = asyncio.create_task(cache.get_or_load("a", never))
        while cache.get_cache_stats().coalesced < 1:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        del task

    async def second() -> None:
        await asyncio.to_thread(loading.wait, 10)
        answers.append(await cache.get_or_load("a", lambda: "of my own"))

    threads = [threading.Thread(target=lambda main=main: asyncio.run(main())) for main in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == ["of my own"]
    assert cache.get_cache_stats().misses == 2


def test_a_load_whose_event_loop_was_closed_is_made_again() -> None:
    cache = MessageCache()

    async def never() -> None:
        await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    task = loop.create_task(cache.get_or_load("a", never))
    loop.run_until_complete(asyncio.sleep(0.01))
    tasks = [task, *asyncio.all_tasks(loop)]
    loop.close()
    assert asyncio.run(asyncio.wait_for(cache.get_or_load("a", lambda: 1), 10)) == 1
    for one in tasks:
        one._log_destroy_pending = False  # type: ignore[attr-defined]
    for one in tasks:
        one.get_coro().close()  # type: ignore[union-attr]


async def test_what_is_found_counts_as_a_hit_and_what_is_not_counts_when_it_is_loaded() -> None:
    clock = Clock()
    cache = MessageCache(ttl=10, clock=clock)
    source = Source(ready=True)
    assert cache.find("key") is None
    assert cache.find("key", "nothing") == "nothing"
    assert await cache.get_or_load("key", source.load) == "value 1"
    assert cache.find("key") == "value 1"
    clock.now += 10
    assert cache.find("key") is None
    stats = cache.get_cache_stats()
    assert (stats.hits, stats.misses, stats.loads) == (1, 1, 1)


@pytest.mark.parametrize("policy", EvictionPolicy)
async def test_what_is_found_stays_longer_than_what_is_not_asked_for(policy: EvictionPolicy) -> None:
    cache = MessageCache(max_size=3, eviction_policy=policy)
    for key in "abc":
        cache.set(key, key)
    for _ in range(3):
        assert cache.find("a") == "a"
    cache.set("d", "d")
    assert cache.peek("a") is not None or policy is EvictionPolicy.TTL
