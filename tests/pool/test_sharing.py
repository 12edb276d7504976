"""Connections that several borrowers use at the same time."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from penstock import ConnectionPool, LeaseReturned, PoolExhausted
from penstock.pool import care as care_module
from penstock.transport.base import ConnectionClosed
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


async def fail_in_a_block(pool: ConnectionPool, *, used: bool) -> None:
    async def borrow() -> None:
        async with pool.get_connection(URL, shared=True) as conn:
            if used:
                await conn.send("question")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await borrow()


async def test_an_answer_to_a_block_that_failed_never_reaches_who_has_the_connection_alone() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        await fail_in_a_block(pool, used=True)
        async with pool.get_connection(URL) as conn:
            with contextlib.suppress(ConnectionClosed):
                await servers.ends[0].send("answer to the question")
            await servers.ends[-1].send("mine")
            assert await conn.recv() == "mine"
        assert pool.stats().closed == {"error": 1}


async def test_a_block_that_fails_retires_the_connection_and_the_other_sharers_go_on() -> None:
    async with pooling(shared_capacity=5) as (pool, servers):
        other = await pool.get_connection(URL, shared=True)
        await fail_in_a_block(pool, used=True)
        assert not other.is_healthy()
        await other.send("still here")
        assert [await servers.ends[0].recv() for _ in range(2)] == ["question", "still here"]
        async with pool.get_connection(URL, shared=True) as another:
            assert another.id != other.id
        other.release()
        await until(lambda: pool.stats().closed == {"error": 1})


async def test_a_block_that_fails_before_it_used_a_shared_connection_costs_none() -> None:
    async with pooling() as (pool, servers):
        for _ in range(2):
            await fail_in_a_block(pool, used=False)
        assert servers.attempts == 1


async def test_parts_that_overlap_do_not_outlast_the_number_of_loans() -> None:
    async with pooling(max_request_count=3, max_connections=2) as (pool, servers):
        part = await pool.get_connection(URL, shared=True)
        for _ in range(8):
            following = await pool.get_connection(URL, shared=True)
            assert following.request_count <= 3
            part.release()
            part = following
        part.release()
        assert servers.attempts == 3
        await until(lambda: pool.stats().closed == {"requests": 3})


async def test_a_weight_that_is_not_whole_is_refused() -> None:
    async with pooling(shared_capacity=4) as (pool, _):
        with pytest.raises(ValueError, match=r"weight=1.5: must be a whole number of at least 1, .*shared_capacity=4"):
            pool.get_connection(URL, shared=True, weight=1.5)  # type: ignore[arg-type]


async def test_a_part_that_is_never_returned_is_logged_once_though_others_come_and_go(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)
    async with pooling(lease_warning=0.05) as (pool, _):
        kept = await pool.get_connection(URL, shared=True)
        for _ in range(20):
            async with pool.get_connection(URL, shared=True):
                await asyncio.sleep(0.01)
        assert len(caplog.records) == 1
        assert "is shared without a break for 0." in caplog.text
        kept.release()
        caplog.clear()
        async with pool.get_connection(URL, shared=True):
            await until(lambda: caplog.records)
