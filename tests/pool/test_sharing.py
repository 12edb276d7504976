"""Connections that several borrowers use at the same time."""

from __future__ import annotations

import asyncio

import pytest

from penstock import LeaseReturned, PoolExhausted
from support.pools import URL, pooling, steps, until

pytestmark = pytest.mark.timeout(30)


async def test_many_share_one_connection_up_to_its_capacity() -> None:
    async with pooling(shared_capacity=4) as (pool, servers):
        parts = [await pool.get_connection(URL, shared=True) for _ in range(4)]
        assert len({part.id for part in parts}) == 1
        assert pool.stats().in_use == 1
        parts.append(await pool.get_connection(URL, shared=True))
        assert servers.attempts == 2
        for part in parts:
            part.release()
        assert pool.stats().idle == 2


async def test_a_crowd_opens_no_more_than_it_needs() -> None:
    async with pooling(shared_capacity=4) as (pool, servers):
        parts = await asyncio.gather(*(pool.get_connection(URL, shared=True).__aenter__() for _ in range(8)))
        assert servers.attempts == 2
        for part in parts:
            part.release()


async def test_a_heavy_part_leaves_less_for_others() -> None:
    async with pooling(shared_capacity=4) as (pool, servers):
        async with pool.get_connection(URL, shared=True, weight=3), pool.get_connection(URL, shared=True, weight=2):
            assert servers.attempts == 2
        for weight in (0, 5):
            with pytest.raises(ValueError, match=rf"weight={weight}: .* shared_capacity=4"):
                pool.get_connection(URL, shared=True, weight=weight)


async def test_a_part_that_is_returned_goes_to_the_first_who_waits_for_one() -> None:
    async with pooling(max_connections=1, shared_capacity=2) as (pool, _):
        first, second = [await pool.get_connection(URL, shared=True) for _ in range(2)]
        waiting = asyncio.create_task(pool.get_connection(URL, shared=True).__aenter__())
        await steps()
        second.release()
        third = await waiting
        assert third.id == first.id
        first.release()
        third.release()
        with pytest.raises(LeaseReturned):
            third.send("x")


async def test_one_who_wants_it_alone_is_not_starved_by_sharers() -> None:
    async with pooling(max_connections=1, shared_capacity=2) as (pool, _):
        order: list[str] = []

        async def borrow(name: str, *, shared: bool) -> None:
            async with pool.get_connection(URL, shared=shared) as conn:
                assert conn._member.share <= 2
                order.append(name)
                await steps(2)

        part = await pool.get_connection(URL, shared=True)
        tasks = [asyncio.create_task(borrow("alone", shared=False))]
        await steps()
        tasks += [asyncio.create_task(borrow("sharer", shared=True)) for _ in range(3)]
        await steps()
        assert not order
        part.release()
        await asyncio.gather(*tasks)
        assert order == ["alone", "sharer", "sharer", "sharer"]


async def test_a_shared_connection_that_one_discards_is_closed_after_the_last() -> None:
    async with pooling(shared_capacity=3) as (pool, servers):
        first, second = [await pool.get_connection(URL, shared=True) for _ in range(2)]
        first.discard("confused")
        assert not second.is_healthy()
        await second.send("still here")
        assert await servers.ends[0].recv() == "still here"
        async with pool.get_connection(URL, shared=True) as other:
            assert other.id != second.id
        second.release()
        await until(lambda: pool.stats().closed == {"confused": 1})


async def test_cancelling_those_who_wait_for_a_part_loses_nothing() -> None:
    async with pooling(max_connections=1, shared_capacity=2) as (pool, _):
        alone = await pool.get_connection(URL)
        waiting = [asyncio.create_task(pool.get_connection(URL, shared=True).__aenter__()) for _ in range(4)]
        await steps()
        alone.release()
        for task in waiting[:2]:
            task.cancel()
        for task in waiting[2:]:
            (await task).release()
        assert pool.stats().idle == 1
        with pytest.raises(PoolExhausted):
            async with pool.get_connection(URL):
                await pool.get_connection(URL, shared=True, timeout=0.02)
