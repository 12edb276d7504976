"""What is measured, and what alerts do."""

from __future__ import annotations

import pytest

from penstock import Priority
from penstock.config.sections import AlertsConfig, LimitsConfig, MetricsConfig
from penstock.manager.switch import Mode, Stage
from penstock.metrics import catalogue as m
from support.pipes import ledger, piped
from support.rpcserver import rpc_server
from support.waiting import until

QUIET = {"alerts": AlertsConfig(log=False), "metrics": MetricsConfig(interval=3600.0, history=3600.0)}


async def test_metrics_say_what_the_stages_have_done() -> None:
    async with ledger() as book, rpc_server() as server, piped() as pipe:
        for number in range(10):
            await pipe.send(book.url, str(number), priority=Priority.HIGH)
        await pipe.send(book.url, "same", key="k")
        await pipe.send(book.url, "same", key="k")
        await pipe.drain(book.url)
        rpc = pipe.rpc(server.url)
        for _ in range(4):
            await rpc.call("echo", [1], ttl=60)
        pipe.manager.bypass("pool")
        seen = pipe.metrics.snapshot()
        assert seen.value(m.POOL_CONNECTS, outcome="opened") == pipe.stats().pool.opened
        assert seen.value(m.POOL_CONNECTIONS, state="in_use") == pipe.stats().pool.in_use
        assert seen.value(m.BATCH_DEDUPLICATED, reason="conflated") == 1
        assert seen.value(m.BATCH_MESSAGES) == sum(pipe.stats().sending.batches.values())
        assert seen.histogram(m.BATCH_MESSAGES).sum == 11
        assert seen.value(m.CACHE_REQUESTS, result="hit") == 3
        assert seen.value(m.CACHE_REQUESTS, result="miss") == 1
        assert seen.value(m.FALLBACK_ACTIVE, stage="pool") == 1
        assert seen.value(m.FALLBACK_ACTIVE, stage="cache") == 0
        assert seen.value(m.FALLBACK_TRANSITIONS, stage="pool", to="bypassed") == 1


async def test_counts_of_lines_that_are_gone_go_on() -> None:
    async with ledger() as book, piped(sending={"idle_time": 0.02}) as pipe:
        for number in range(3):
            await pipe.send(book.url, str(number), priority=Priority.URGENT)
        await until(lambda: pipe.stats().sending.urls == 0)
        assert pipe.stats().sending.delivered == 3
        assert pipe.stats().sending.wait.count >= 1


async def test_a_stage_that_is_slower_than_the_plain_way_is_bypassed_by_its_alert() -> None:
    async with ledger() as book, piped(sections=QUIET) as pipe:
        async with pipe.connection(book.url):
            pass
        speedup = pipe.manager.speedups[Stage.POOL]
        for _ in range(20):
            speedup.record(0.001, plain=True)
            speedup.record(0.002, plain=False)
        for second in range(130):
            pipe.metrics.tick(float(second))
        await until(lambda: pipe.manager.mode(book.url)[Stage.POOL] is Mode.BYPASSED)
        assert pipe.manager.transitions[-1].reason == "OptimizationRegressed"
        assert "OptimizationRegressed" in {alert.name for alert in pipe.alerts.firing}
        assert pipe.manager.mode(book.url)[Stage.BATCH] is Mode.OPTIMIZED


async def test_memory_is_reported_against_its_budget() -> None:
    limits = LimitsConfig(memory_bytes=1_000_000)
    async with ledger(), piped(sections={**QUIET, "limits": limits}) as pipe:
        seen = pipe.metrics.snapshot()
        assert seen.value(m.MEMORY_BUDGET) == 1_000_000
        assert seen.value(m.MEMORY) == 0


async def test_metrics_are_kept_for_as_long_as_configured() -> None:
    async with piped(sections={"metrics": MetricsConfig(interval=0.25, history=30.0)}) as pipe:
        for second in range(100):
            pipe.metrics.tick(1e9 + second)
        oldest = next(iter(pipe.metrics.history))
        assert 1e9 + 99 - 40 <= oldest.at <= 1e9 + 99 - 30


@pytest.mark.parametrize("enabled", [True, False])
async def test_without_metrics_nothing_is_read(enabled: bool) -> None:
    sections = {"metrics": MetricsConfig(enabled=enabled, interval=0.01)}
    async with ledger() as book, piped(sections=sections, sending={"idle_time": 0.01}) as pipe:
        await pipe.send(book.url, "x")
        await until(lambda: book.messages == ["x"])
        if enabled:
            await until(lambda: len(pipe.metrics.history) > 3)
        else:
            await until(lambda: pipe.stats().pool.in_use == 0)
            assert len(pipe.metrics.history) == 0
