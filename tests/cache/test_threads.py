"""Many threads, one cache."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from penstock import EvictionPolicy, MessageCache


@pytest.fixture
def _impatient() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


CHANGES: dict[int, Callable[[MessageCache, str], object]] = {
    **dict.fromkeys(range(5), lambda cache, key: cache.delete(key)),
    **dict.fromkeys(range(5, 10), lambda cache, key: cache.invalidate(tag=key[-1])),
    **dict.fromkeys(range(10, 15), lambda cache, key: cache.invalidate(prefix=key[:-1])),
    15: lambda cache, _: cache.clear(),
}
"""What one hit in two hundred leads to."""


def hammer(policy: EvictionPolicy, seconds: float) -> None:
    cache = MessageCache(64, eviction_policy=policy, max_bytes=64 * 12, ttl=0.01)
    gets = [0] * 4
    wrong: list[object] = []
    until = time.monotonic() + seconds

    def work(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            for _ in range(200):
                key = f"key-{chance.randrange(150)}"
                value = cache.get(key)
                gets[number] += 1
                if value is not None and value != "of " + key:
                    wrong.append((key, value))
                if value is None:
                    cache.set(key, "of " + key, tags=[key[-1]])
                elif (change := CHANGES.get(chance.randrange(200))) is not None:
                    change(cache, key)
            stats = cache.get_cache_stats()
            if stats.size > 64 or (stats.size_bytes or 0) > 64 * 12:
                wrong.append(stats)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    stats = cache.get_cache_stats()
    assert stats.hits + stats.misses == sum(gets)
    assert stats.hits > 0
    assert stats.misses > 0
    keys = [f"key-{number}" for number in range(150)]
    assert len(cache) == sum(cache._store.order.nodes.get(key) is not None for key in keys)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("policy", EvictionPolicy)
def test_four_threads_lose_nothing(policy: EvictionPolicy) -> None:
    hammer(policy, 0.5)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("policy", EvictionPolicy)
def test_hits_do_not_disturb_whoever_looks_through_all_keys(policy: EvictionPolicy) -> None:
    """They move nodes without asking for the lock."""
    cache = MessageCache(2000, eviction_policy=policy)
    until = time.monotonic() + 0.3
    failures: list[BaseException] = []

    def read(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            for _ in range(200):
                cache.get(f"key-{chance.randrange(1000)}")

    def change() -> None:
        try:
            while time.monotonic() < until:
                for number in range(1000):
                    cache.set(f"key-{number}", number)
                cache._store._sorted = None
                assert cache.invalidate(prefix="key-1") == 111
                cache.clear()
                assert len(cache) == 0
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)] + [threading.Thread(target=change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.load
@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("policy", EvictionPolicy)
def test_four_threads_lose_nothing_for_long(policy: EvictionPolicy) -> None:
    hammer(policy, 20)


@pytest.mark.parametrize("policy", EvictionPolicy)
def test_a_hundred_thousand_entries_that_expire_together_stall_nobody(policy: EvictionPolicy) -> None:
    now = 0.0
    cache = MessageCache(100_000, ttl=10, eviction_policy=policy, clock=lambda: now)
    for number in range(100_000):
        cache.set(number, None)
    now = 10.0
    slowest = 1.0
    for start in range(0, 20_000, 4000):  # the quietest of several stretches: the machine has other work as well
        times: list[float] = []
        for number in range(start, start + 4000):
            before = time.thread_time()
            cache.get(number)
            cache.set(-number - 1, None)
            times.append(time.thread_time() - before)
        slowest = min(slowest, max(times))
    assert slowest < 0.001


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_process_can_use_what_another_thread_held_when_it_began() -> None:
    cache = MessageCache()
    cache.set("a", 1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with cache._changes.lock:
            cache._changes.is_busy = True
            held.set()
            done.wait(10)
            cache._changes.is_busy = False

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    child = os.fork()
    if child == 0:
        cache.set("b", 2)
        os._exit(0 if (cache.get("a"), cache.get("b")) == (None, 2) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    done.set()
    thread.join()
    assert cache.get("a") == 1
