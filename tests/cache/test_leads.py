"""Loads that whoever asks first makes itself."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from penstock import MessageCache
from penstock.cache.flight import Flight
from support.clocks import Clock


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def begin(cache: MessageCache, key: str = "a", ttl: float | None = None) -> tuple[Flight, asyncio.Future[Any]]:
    """Begin a load, which a future stands for."""
    waiter = future()
    flight = cache.leads.ask(key, ttl, waiter)
    assert flight is not None
    assert flight.task is None
    flight.task = future()
    return flight, waiter


async def test_all_who_wait_are_told_and_the_value_is_kept_for_its_time() -> None:
    clock = Clock()
    cache = MessageCache(clock=clock)
    flight, first = begin(cache, ttl=5)
    second = future()
    assert cache.leads.ask("a", 5, second) is flight
    asking = asyncio.create_task(cache.get_or_load("a", lambda: pytest.fail("loaded twice")))
    await asyncio.sleep(0)
    cache.leads.land(flight, "value")
    assert first.done()
    assert second.done()
    assert flight.answer() == await asking == cache.get("a") == "value"
    clock.now += 5
    assert cache.get("a") is None
    stats = cache.get_cache_stats()
    assert (stats.hits, stats.misses, stats.coalesced, stats.loads) == (1, 4, 2, 1)


async def test_a_failure_is_raised_to_all_and_counted() -> None:
    cache = MessageCache(negative_ttl={KeyError: 60})
    flight, waiter = begin(cache)
    cache.leads.fail(flight, KeyError("gone"))
    assert waiter.done()
    with pytest.raises(KeyError):
        flight.answer()
    assert cache.get_cache_stats().load_errors == 1
    assert cache.leads.ask("a", None, future()) is None  # the failure is kept
    with pytest.raises(KeyError):
        await cache.get_or_load("a", lambda: pytest.fail("asked again"))


async def test_the_last_one_who_leaves_ends_it() -> None:
    cache = MessageCache()
    flight, first = begin(cache)
    second = future()
    assert cache.leads.ask("a", None, second) is flight
    task = flight.task
    assert task is not None
    cache.leads.leave(flight, first)
    assert not task.cancelled()
    cache.leads.leave(flight, second)
    assert task.cancelled()
    other, _ = begin(cache)
    assert other is not flight


@pytest.mark.parametrize("change", ["set", "delete", "invalidate", "clear"])
async def test_a_change_meanwhile_keeps_the_result_out(change: str) -> None:
    cache = MessageCache()
    flight, waiter = begin(cache)
    match change:
        case "set":
            cache.set("a", "newer")
        case "delete":
            cache.delete("a")
        case "invalidate":
            cache.invalidate(prefix="a")
        case _:
            cache.clear()
    other = future()
    found = cache.leads.ask("a", None, other)
    assert found is not flight
    cache.leads.land(flight, "older")
    assert waiter.done()
    assert not other.done()
    assert cache.get("a") == ("newer" if change == "set" else None)


async def test_what_is_there_is_for_others_to_give() -> None:
    clock = Clock()
    cache = MessageCache(ttl=1, clock=clock, stale_ttl=10)
    cache.set("a", "value")
    assert cache.leads.ask("a", None, future()) is None
    clock.now += 2  # stale
    assert cache.leads.ask("a", None, future()) is None
    clock.now += 10
    begin(cache)
    assert (cache.get_cache_stats().expirations, cache.get_cache_stats().misses) == (1, 1)


async def test_a_refresh_that_somebody_came_to_wait_for_is_kept_though_the_stale_entry_is_gone() -> None:
    clock = Clock()
    cache = MessageCache(ttl=1, clock=clock, stale_ttl=10)
    cache.set("a", "old")
    clock.now += 2
    ready = asyncio.Event()

    async def load() -> str:
        await ready.wait()
        return "new"

    assert await cache.get_or_load("a", load) == "old"
    clock.now += 10
    waiter = future()
    flight = cache.leads.ask("a", None, waiter)
    assert flight is not None
    assert flight.task is not None
    ready.set()
    await waiter
    assert flight.answer() == cache.get("a") == "new"


async def test_one_who_cannot_load_only_joins() -> None:
    cache = MessageCache()
    assert cache.leads.ask("a", None, future(), may_begin=False) is None
    flight, _ = begin(cache)
    assert cache.leads.ask("a", None, future(), may_begin=False) is flight


async def test_loads_of_another_event_loop_are_not_joined() -> None:
    cache = MessageCache()
    begin(cache)
    found: list[Flight | None] = []

    async def ask() -> None:
        found.append(cache.leads.ask("a", None, future()))

    thread = threading.Thread(target=lambda: asyncio.run(ask()))
    thread.start()
    await asyncio.to_thread(thread.join)
    assert found == [None]


async def test_a_loader_does_not_join_so_that_circles_are_found() -> None:
    cache = MessageCache()
    begin(cache, "b")
    assert await cache.get_or_load("a", lambda: cache.leads.ask("b", None, future())) is None
    assert await cache.get_or_load("c", lambda: cache.leads.ask("d", None, future())) is None


async def test_a_function_of_the_user_s_is_for_a_task_to_call() -> None:
    cache = MessageCache(max_bytes=100, size_of=len)
    assert cache.leads.ask("a", None, future()) is None
    cache = MessageCache(max_bytes=100)
    flight, _ = begin(cache)
    cache.leads.land(flight, b"x" * 10)
    assert cache.get_cache_stats().size_bytes == 10
