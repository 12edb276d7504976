"""Bounds of everything together hold, however many come at once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from penstock import ConnectionPoolConfig, Priority
from penstock.config.sections import CacheConfig, LimitsConfig, MetricsConfig
from penstock.errors import LimitReached
from support.pipes import ledger, piped
from support.relay import relaying
from support.waiting import until

WAYS: Any = pytest.mark.parametrize("urgent", [False, True], ids=["direct", "batched"])


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


@WAYS
async def test_many_urls_together_hold_no_more_than_the_bound(urgent: bool) -> None:
    limits = LimitsConfig(max_pending_bytes=2_000_000)
    pool = ConnectionPoolConfig(max_total=30)
    async with (
        ledger(reliable=False) as book,
        relaying(book.port) as relay,
        piped(sections={"limits": limits, "pool": pool}) as pipe,
    ):
        urls = [f"{relay.url}{number}" for number in range(6)]
        for url in urls:
            await pipe.send(url, "first")
        await until(lambda: len(book.messages) == 6)
        relay.pause()
        most = 0
        accepted = 0

        async def fill(url: str, number: int) -> None:
            nonlocal most, accepted
            priority = Priority.URGENT if urgent else Priority.NORMAL
            await pipe.send(url, f"{number} " + "x" * 300_000, priority=priority)
            accepted += 1
            most = max(most, pipe.stats().sending.pending_bytes)

        tasks = [asyncio.ensure_future(fill(url, number)) for number in range(40) for url in urls]
        await asyncio.sleep(0.5)
        assert any(not task.done() for task in tasks)
        assert pipe.stats().sending.waiting > 0
        assert most <= 2_000_000
        relay.go_on()
        await asyncio.gather(*tasks)
        await pipe.drain()
        await until(lambda: len(book.messages) == 6 + len(tasks))


async def test_those_who_come_at_once_do_not_exceed_the_bound_together() -> None:
    limits = LimitsConfig(max_pending_messages=5, on_limit="raise")
    async with ledger() as book, relaying(book.port) as relay, piped(sections={"limits": limits}) as pipe:
        relay.pause()
        tasks = [asyncio.ensure_future(pipe.send(f"{relay.url}{number}", "x")) for number in range(10)]
        await asyncio.sleep(0.05)
        refused = [task for task in tasks if task.done() and isinstance(task.exception(), LimitReached)]
        assert len(refused) == 5
        relay.go_on()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: len(book.messages) == 5)
        await pipe.send(book.url, "room again")


async def test_nobody_is_refused_for_what_has_left_meanwhile() -> None:
    limits = LimitsConfig(max_pending_messages=1, on_limit="raise")
    async with ledger() as book, piped(sections={"limits": limits}, sending={"batch_timeout": 0.01}) as pipe:
        for number in range(5):
            await pipe.send(f"{book.url}{number}", str(number))
            await asyncio.sleep(0.05)
        await until(lambda: sorted(book.messages) == ["0", "1", "2", "3", "4"])


async def test_a_full_cache_leaves_room_for_messages() -> None:
    sections = {
        "limits": LimitsConfig(memory_bytes=100_000, on_limit="raise"),
        "cache": CacheConfig(max_size=10_000),
        "metrics": MetricsConfig(enabled=False),
    }
    async with ledger() as book, piped(sections=sections, sending={"idle_time": 0.01}) as pipe:
        assert pipe.cache is not None
        for number in range(1000):
            pipe.cache.set(f"key {number}", "x" * 1000)
        await until(lambda: pipe.lines.budget.used_elsewhere > 10_000)
        assert 10_000 < pipe.stats().memory_bytes <= 50_000
        await pipe.send(book.url, "x" * 10_000)
        await until(lambda: len(book.messages) == 1)


@pytest.mark.parametrize("stage_off", [False, True], ids=["sampled", "bypassed"])
async def test_connections_of_the_pool_and_past_it_are_bounded_together(stage_off: bool) -> None:
    sections = {
        "limits": LimitsConfig(max_connections=3),
        "pool": ConnectionPoolConfig(acquire_timeout=0.3, connect_timeout=0.3),
    }
    async with ledger() as book, piped(sections=sections) as pipe:
        held = [await pipe.connection(book.url) for _ in range(2)]
        held[0].release()  # idle, in the pool
        if stage_off:
            pipe.manager.bypass("pool")
        most = 0

        async def use() -> None:
            nonlocal most
            with contextlib.suppress(Exception):
                async with pipe.connection(book.url):
                    stats = pipe.stats()
                    most = max(most, stats.plain_connections + stats.pool.in_use + stats.pool.idle)
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(use() for _ in range(10)))
        held[1].release()
        assert 2 <= most <= 3
