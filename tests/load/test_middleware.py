"""A middleware under load: it carries what it is to carry, in order, and takes no more room than it should."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from math import inf
from typing import Any

import pytest

import penstock
from penstock import AlertRule, ConnectionPoolConfig, Dashboard, PerformanceConfig, PerformanceMiddleware
from penstock.config.sections import AlertsConfig, FallbackConfig, MetricsConfig
from penstock.metrics.alerts.engine import Track
from penstock.metrics.alerts.expressions import Gauge, select
from penstock.metrics.catalogue import POOL_WAITERS
from penstock.sync import PerformanceMiddleware as SyncMiddleware
from penstock.traffic.resources import allow_descriptors
from support.pipes import ledger, piped
from support.resources import Resources
from support.rpcserver import rpc_server
from support.servers import each_transport, echo, url_of
from support.threads import all_at_once, in_thread
from support.waiting import until

MIB = 1024 * 1024
RATE = 10_000
"""Messages a second, at least."""

pytestmark = [
    pytest.mark.load,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc, on Linux"),
]


class Checker:
    """A server's end that checks that numbers come in order, and keeps none of them."""

    def __init__(self) -> None:
        self.expected = 0

    async def take(self, conn: penstock.ServerConnection) -> None:
        async for message in conn:
            assert int(message) == self.expected
            self.expected += 1


@each_transport
async def test_a_thousand_connections_at_once_go_through_one_middleware(transport: Any) -> None:
    count = 1000
    allow_descriptors(2 * count + 200)
    pool = ConnectionPoolConfig(max_connections=count, max_connecting=50, connect_rate=inf)
    async with penstock.serve(echo, "127.0.0.1", 0) as server:
        url = url_of(server)
        config = PerformanceConfig(pool=pool, fallback=FallbackConfig(sample_every=0))
        async with PerformanceMiddleware(config, transport=transport) as pipe:
            all_open = asyncio.Barrier(count)

            async def talk(number: int) -> None:
                async with pipe.connection(url, timeout=60) as conn:
                    await all_open.wait()
                    for turn in range(5):
                        await conn.send(f"{number} {turn}")
                        assert await conn.recv() == f"{number} {turn}"

            async with asyncio.timeout(90):
                await asyncio.gather(*(talk(number) for number in range(count)))
            stats = pipe.stats().pool
            assert stats.opened == count
            assert len(server.connections) == count
        await until(lambda: not server.connections, seconds=20)


@each_transport
async def test_ten_thousand_messages_a_second_go_through_in_order_and_nothing_grows(transport: Any) -> None:
    checker, seconds = Checker(), 20
    samples: list[Resources] = []
    async with penstock.serve(checker.take, "127.0.0.1", 0) as server:
        url = url_of(server)
        async with PerformanceMiddleware(transport=transport) as pipe:
            sent, began = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - began) < seconds:
                while sent < elapsed * RATE:
                    await pipe.send(url, f"{sent:064d}")
                    sent += 1
                if elapsed > seconds / 4 * (1 + len(samples) / 5):
                    samples.append(Resources.now())
                await asyncio.sleep(0.001)
            await until(lambda: checker.expected == sent, seconds=20)
            assert pipe.stats().sending.undelivered == 0
    assert sent >= RATE * seconds * 0.95
    assert samples[-1].resident_bytes - samples[0].resident_bytes < 4 * MIB
    assert len({sample.descriptors for sample in samples}) == 1
    assert max(sample.tasks for sample in samples) - min(sample.tasks for sample in samples) <= 2


async def test_a_server_that_stalls_does_not_make_memory_grow() -> None:
    resume = asyncio.Event()
    taken = 0

    async def stall(conn: penstock.ServerConnection) -> None:
        nonlocal taken
        await resume.wait()
        async for _ in conn:
            taken += 1

    async with penstock.serve(stall, "127.0.0.1", 0) as server, piped() as pipe:
        url, accepted = url_of(server), 0

        async def send_on() -> None:
            nonlocal accepted
            for _ in range(60_000):
                await pipe.send(url, "x" * 10_000)
                accepted += 1

        before = Resources.now()
        sending = asyncio.create_task(send_on())
        await asyncio.sleep(5)
        after = Resources.now()
        assert not sending.done()
        assert after.resident_bytes - before.resident_bytes < 150 * MIB
        resume.set()
        await sending
        await until(lambda: taken == accepted == 60_000, seconds=60)


async def test_calls_of_which_most_are_repeated_are_answered_by_the_cache_under_load() -> None:
    async with rpc_server() as server, piped() as pipe:
        rpc = pipe.rpc(server.url)

        async def ask(first: int) -> None:
            for number in range(2000):
                asked = [(first + number) % 500]
                assert await rpc.call("echo", asked, ttl=60) == asked

        await asyncio.gather(*(ask(7 * caller) for caller in range(20)))
        cache = pipe.stats().cache
        assert cache is not None
        assert cache.hit_ratio > 0.4  # those that wait for a load under way are misses, too
        assert server.times("echo") == 500


def test_four_threads_share_what_the_cache_has() -> None:
    config = PerformanceConfig(fallback=FallbackConfig(sample_every=0))
    with in_thread(rpc_server()) as (server, _), SyncMiddleware(config) as pipe:
        rpc = pipe.rpc(server.url)

        def ask(thread: int) -> int:
            return sum(rpc.call("echo", [(thread + number) % 200], ttl=60)[0] for number in range(2000))

        assert all_at_once(4, ask) == [sum(range(200)) * 10] * 4
        assert server.times("echo") == 200
        cache = pipe.stats().cache
        assert cache is not None
        assert cache.hit_ratio >= 0.4


class StalledSink:
    """Never done with what it is told."""

    resend: float | None = None

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def send(self, _: Sequence[Any]) -> None:
        self.told.set()
        await asyncio.Event().wait()


async def timed(pipe: PerformanceMiddleware, url: str, count: int) -> float:
    """Seconds that the slowest of so many messages took to be accepted."""
    slowest = 0.0
    for number in range(count):
        before = time.perf_counter()
        await pipe.send(url, str(number))
        slowest = max(slowest, time.perf_counter() - before)
        if number % 100 == 0:
            await asyncio.sleep(0)
    return slowest


async def test_neither_a_sink_nor_a_viewer_that_stalls_slows_a_message() -> None:
    config = PerformanceConfig(
        fallback=FallbackConfig(sample_every=0), metrics=MetricsConfig(interval=0.05), alerts=AlertsConfig(log=False)
    )
    async with ledger() as book, PerformanceMiddleware(config) as pipe, Dashboard(pipe) as board:
        sink = StalledSink()
        pipe.alerts.add_sink(sink)
        rule = AlertRule(name="Idle", expression=Gauge(select(POOL_WAITERS)), fire=1, below=True, summary="-")
        pipe.alerts._engine._tracks = [Track(rule)]
        port = int(board.url.split(":")[2].rstrip("/"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"GET /feed HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b"101" in await reader.readline()  # and reads no more
        await timed(pipe, book.url, 100)
        async with asyncio.timeout(20):
            await sink.told.wait()
        before = time.perf_counter()
        slowest = await timed(pipe, book.url, 100_000)
        assert time.perf_counter() - before < 100_000 / RATE
        assert slowest < 1
        await until(lambda: len(book.messages) == 100_100, seconds=20)
        writer.close()
