"""What people and alerts decide, one after the other."""

from __future__ import annotations

import pytest

from penstock.errors import LimitReached
from penstock.manager.budget import Budget
from penstock.manager.manager import PerformanceManager
from penstock.manager.switch import Mode, Stage
from penstock.transport.base import InvalidURI
from support.ends import start, steps

URL = "ws://h/"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("url", [None, URL])
def test_an_alert_does_not_end_what_was_bypassed_by_hand(url: str | None) -> None:
    clock = Clock()
    manager = PerformanceManager(clock=clock)
    manager.switch(Stage.CACHE, URL)
    manager.bypass("cache", url)
    manager.bypass("cache", url, reason="alert", seconds=1.0)
    clock.now = 100.0
    manager.tick()
    assert manager.mode(URL)[Stage.CACHE] is Mode.BYPASSED
    if url is None:
        assert manager.mode("ws://new/")[Stage.CACHE] is Mode.BYPASSED
    manager.restore("cache", url)
    assert manager.mode(URL)[Stage.CACHE] is Mode.OPTIMIZED


def test_the_longer_of_two_times_counts_also_for_urls_to_come() -> None:
    clock = Clock()
    manager = PerformanceManager(clock=clock)
    manager.bypass("cache", seconds=10.0)
    manager.bypass("cache", seconds=100.0)
    manager.bypass("cache", seconds=5.0)
    clock.now = 50.0
    manager.tick()
    assert manager.mode("ws://new/")[Stage.CACHE] is Mode.BYPASSED
    clock.now = 100.0
    manager.tick()
    assert manager.mode("ws://new/")[Stage.CACHE] is Mode.OPTIMIZED


def test_a_time_after_a_probe_has_begun_counts_from_then_on() -> None:
    clock = Clock()
    manager = PerformanceManager(clock=clock)
    manager.bypass("cache", URL, seconds=1.0)
    clock.now = 1.0
    manager.tick()
    assert manager.mode(URL)[Stage.CACHE] is Mode.PROBING
    manager.bypass("cache", URL, seconds=0.5)
    clock.now = 1.6
    manager.tick()
    assert manager.mode(URL)[Stage.CACHE] is Mode.PROBING


def test_what_is_no_url_is_refused_before_anything_is_decided() -> None:
    manager = PerformanceManager()
    with pytest.raises(InvalidURI):
        manager.bypass("cache", "http://h/")
    assert manager.urls == set()


# The budget


async def test_room_is_kept_until_a_message_is_settled() -> None:
    budget = Budget(2, 100, lambda: None, raises=True)
    await budget.room(60)
    assert not budget.has_room(41)
    assert budget.has_room(40)
    await budget.room(40)
    with pytest.raises(LimitReached):
        await budget.room(0)
    budget.settle(60)
    budget.settle(40)
    assert budget.has_room(100)


async def test_a_message_larger_than_the_bound_is_taken_alone() -> None:
    budget = Budget(None, 100, lambda: None, raises=True)
    await budget.room(1000)
    with pytest.raises(LimitReached):
        await budget.room(1)
    budget.settle(1000)
    budget.charge(1, 1)
    with pytest.raises(LimitReached):
        await budget.room(1000)


async def test_who_is_cancelled_in_the_moment_of_his_turn_gives_the_room_back() -> None:
    budget = Budget(1, None, lambda: None, raises=False)
    budget.charge(1, 0)
    first, second = start(budget.room(5)), start(budget.room(5))
    await steps()
    budget.charge(-1, 0)
    budget.close()  # lets both through at once
    first.cancel()
    second.cancel()
    await steps()
    assert first.cancelled()
    assert second.cancelled()
    assert budget.has_room(0)


async def test_those_who_insist_do_not_have_everything_counted_each_time() -> None:
    counted: list[int] = []
    budget = Budget(1, None, lambda: counted.append(1), raises=True)
    budget.charge(1, 0)
    for _ in range(100):
        with pytest.raises(LimitReached):
            await budget.room(0)
    assert 1 <= len(counted) < 20


async def test_nobody_overtakes_those_who_wait() -> None:
    budget = Budget(None, 100, lambda: None, raises=False)
    budget.charge(1, 50)
    large, small = start(budget.room(80)), start(budget.room(10))
    await steps()
    assert not small.done()
    budget.charge(-1, -50)
    await large
    await small
