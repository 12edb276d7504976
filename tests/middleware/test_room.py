"""Connections of the pool and past it share one bound, and waiting for it is nobody's failure."""

from __future__ import annotations

import asyncio
import logging

import pytest

from penstock import ConnectionPoolConfig
from penstock.config.sections import LimitsConfig
from penstock.manager.switch import Stage
from support.pipes import ledger, piped
from support.waiting import until


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


async def test_waiting_for_room_of_ones_own_bound_is_no_failed_connect() -> None:
    sections = {
        "limits": LimitsConfig(max_connections=1),
        "pool": ConnectionPoolConfig(connect_timeout=0.05, acquire_timeout=5.0),
    }
    async with ledger() as book, piped(sections=sections) as pipe:
        pipe.manager.bypass("pool")
        plain = await pipe.connection(book.url)
        pipe.manager.restore("pool")
        borrowing = asyncio.ensure_future(pipe.send(book.url, "x"))
        await asyncio.sleep(0.5)
        assert not borrowing.done()
        assert pipe.pool.stats().failed == 0
        plain.release()
        await borrowing
        await until(lambda: book.messages == ["x"])
        assert pipe.pool.stats().failed == 0


async def test_a_sample_for_which_there_is_no_room_goes_through_the_pool() -> None:
    sections = {"limits": LimitsConfig(max_connections=1)}
    async with ledger() as book, piped(sections=sections, fallback={"sample_every": 2}) as pipe:
        for number in range(10):
            async with asyncio.timeout(1), pipe.connection(book.url) as conn:
                await conn.send(str(number))
        await until(lambda: len(book.messages) == 10)
        assert len(book.connections) == 1
        assert pipe.manager.failures[Stage.POOL] == 0


async def test_urls_that_send_nothing_more_give_way_to_those_that_wait_for_a_connection() -> None:
    pool = ConnectionPoolConfig(max_total=10, acquire_timeout=3.0)
    async with ledger() as book, piped(sections={"pool": pool}, sending={"idle_time": 60.0}) as pipe:
        async with asyncio.timeout(10):
            await asyncio.gather(*(pipe.send(f"{book.url}{number}", str(number)) for number in range(60)))
        await until(lambda: len(book.messages) == 60)
        assert pipe.stats().pool.in_use <= 10
