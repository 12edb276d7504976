"""Many URLs under one bound: who gets the places, and whose are taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import penstock
from penstock import ConnectionFailed, ConnectionPool
from support.pools import URL, Servers, borrow_at_once, pooling, steps, until

pytestmark = pytest.mark.timeout(30)


class Hole:
    """Opens connections, but to one URL that swallows all attempts."""

    def __init__(self, pool: ConnectionPool, servers: Servers) -> None:
        self.under_way = 0
        self._opens = servers.connect
        pool._opener._connect = self.connect

    async def connect(self, url: str, **options: Any) -> penstock.Connection:
        if url != HOLE:
            return await self._opens(url, **options)
        self.under_way += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.under_way -= 1
        raise AssertionError


HOLE = "ws://hole"


async def test_case_11_a_black_hole_that_nobody_waits_for_makes_place_under_the_total_bound() -> None:
    async with pooling(max_connections=3, max_total=3, connect_timeout=20) as (pool, servers):
        hole = Hole(pool, servers)
        lost = [asyncio.create_task(pool.get_connection(HOLE).__aenter__()) for _ in range(5)]
        await steps()
        assert pool.stats().connecting == hole.under_way == 3
        waiting = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await steps()
        assert not waiting.done()
        for task in lost:
            task.cancel()
        async with asyncio.timeout(1):
            conn = await waiting
        assert conn.is_connected
        conn.release()
        assert hole.under_way == pool.stats().connecting == 2, "no more were given up than had to be"
        assert pool.stats().failed == 0
        held = await asyncio.gather(*(pool.get_connection(URL, timeout=1).__aenter__() for _ in range(3)))
        assert hole.under_way == 0
        for conn in held:
            conn.release()
        assert all(one.open == one.attempts == 0 for one in pool._opener.endpoints(HOLE))


async def test_case_11_a_black_hole_takes_one_place_of_a_server_that_works() -> None:
    async with pooling(max_connections=3, max_total=3, connect_timeout=20) as (pool, servers):
        hole = Hole(pool, servers)
        await borrow_at_once(pool, 3)
        lost = [asyncio.create_task(pool.get_connection(HOLE).__aenter__()) for _ in range(5)]
        await until(lambda: hole.under_way)
        for _ in range(20):
            held = await asyncio.gather(*(pool.get_connection(URL, timeout=1).__aenter__() for _ in range(2)))
            for conn in held:
                assert conn.is_connected
                conn.release()
            await steps()
        assert hole.under_way == 1
        assert pool.stats().closed == {"total": 1}
        assert servers.attempts == 3
        for task in lost:
            task.cancel()
        await asyncio.wait(lost)


async def test_a_probe_that_was_given_up_does_not_keep_others_out() -> None:
    async with pooling(max_connections=1, max_total=1) as (pool, servers):
        servers.failures = [OSError("down")] * 5
        for _ in range(5):
            with pytest.raises(ConnectionFailed):
                await pool.get_connection("ws://other")
        breaker = pool._opener.endpoints("ws://other")[0].breaker
        await until(lambda: asyncio.get_running_loop().time() > breaker.retry_at)
        servers.gate.clear()
        probing = asyncio.create_task(pool.get_connection("ws://other").__aenter__())
        await until(lambda: servers.attempts == 6)
        probing.cancel()
        asking = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await until(lambda: servers.attempts == 7)
        servers.gate.set()
        (await asking).release()
        async with pool.get_connection("ws://other", timeout=1) as conn:
            assert conn.is_connected
