"""What may be pending over all connections."""

from __future__ import annotations

import asyncio

import pytest

from penstock.errors import LimitReached
from penstock.manager.budget import Budget
from support.ends import start, steps


async def test_without_bounds_there_is_always_room() -> None:
    budget = Budget(None, None, lambda: None, raises=True)
    budget.charge(10**9, 10**12)
    await budget.room(1)


async def test_beyond_the_bound_callers_are_refused_with_the_figures() -> None:
    budget = Budget(10, 1000, lambda: None, raises=True)
    budget.charge(3, 1000)
    with pytest.raises(LimitReached, match=r"3 messages \(1000 bytes\) are pending.*max_pending_bytes=1000"):
        await budget.room(1)


async def test_beyond_the_bound_callers_wait_their_turn() -> None:
    budget = Budget(1, None, lambda: None, raises=False)
    budget.charge(1, 0)
    order: list[int] = []

    async def send(number: int) -> None:
        await budget.room(1)
        budget.charge(1, 0)
        budget.settle(1)
        order.append(number)

    tasks = [start(send(number)) for number in range(5)]
    await asyncio.sleep(0.03)
    assert order == []
    assert budget.waiting == 5
    for number in range(5):
        budget.charge(-1, 0)
        await asyncio.wait([tasks[number]], timeout=1)
        assert order == list(range(number + 1))
        assert budget.messages == 1
    assert budget.waiting == 0


async def test_one_who_is_cancelled_leaves_the_queue() -> None:
    budget = Budget(1, None, lambda: None, raises=False)
    budget.charge(1, 0)
    first, second = start(budget.room(1)), start(budget.room(1))
    await steps()
    first.cancel()
    await steps()
    assert budget.waiting == 1
    budget.charge(-1, 0)
    await asyncio.wait_for(second, 1)


async def test_a_recount_finds_room_that_nobody_told_of() -> None:
    pending = [1]

    def recount() -> None:
        budget.charge(pending[0] - budget.messages, 0)

    budget = Budget(1, None, recount, raises=False)
    budget.charge(1, 0)
    waiting = start(budget.room(1))
    await steps()
    pending[0] = 0
    await asyncio.wait_for(waiting, 1)


async def test_closing_lets_everybody_go() -> None:
    budget = Budget(1, None, lambda: None, raises=False)
    budget.charge(1, 0)
    waiting = [start(budget.room(1)) for _ in range(3)]
    await steps()
    budget.close()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


async def test_memory_that_other_things_use_counts() -> None:
    budget = Budget(None, 100, lambda: None, raises=True)
    budget.charge(1, 60)
    await budget.room(40)
    budget.settle(40)
    budget.used_elsewhere = 40
    with pytest.raises(LimitReached):
        await budget.room(1)
