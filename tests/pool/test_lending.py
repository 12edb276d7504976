"""Borrowing and returning: who gets which connection, and what a caller is told."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest

from penstock import (
    ConnectionFailed,
    ConnectionPool,
    ConnectionPoolConfig,
    PoolClosed,
    PoolExhausted,
    WrongLoop,
)
from penstock.errors.urls import shown_url
from support.pools import URL, free, pooling, steps, until

pytestmark = pytest.mark.timeout(30)


async def test_a_returned_connection_is_lent_again() -> None:
    async with pooling() as (pool, servers):
        async with pool.get_connection(URL) as conn:
            await conn.send("hello")
            assert conn.url == URL
            assert conn.request_count == 1
            assert conn.is_connected
            assert conn.is_healthy()
        async with pool.get_connection(URL) as again:
            assert again.request_count == 2
            assert again.created_at <= again.last_used
        assert servers.attempts == 1
        assert await servers.ends[0].recv() == "hello"
        stats = pool.stats()
        assert (stats.immediate, stats.waited, stats.opened, stats.idle) == (1, 1, 1, 1)


async def test_the_connection_used_last_is_lent_first() -> None:
    async with pooling() as (pool, _):
        first, second = await pool.get_connection(URL), await pool.get_connection(URL)
        opened = [first.created_at, second.created_at]
        ids = [first.id, second.id]
        first.release()
        second.release()
        async with pool.get_connection(URL) as conn:
            assert conn.id == ids[1]
        assert opened == sorted(opened)


@pytest.mark.parametrize("cancel_opening", [False, True])
@pytest.mark.parametrize("after", range(12))
async def test_case_1_cancelled_at_every_await_of_acquire_no_slot_is_lost(after: int, cancel_opening: bool) -> None:
    async with pooling(max_connections=1, max_total=1) as (pool, servers):
        task = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await steps(after)
        if cancel_opening and after:
            for opening in list(pool._actions._opening):
                opening.cancel()
            await steps()
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            task.result().release()
        assert pool.stats().waiting == pool.stats().in_use == 0
        async with asyncio.timeout(1), pool.get_connection(URL) as conn:
            assert conn.is_connected
        assert free(pool)
        assert pool.stats().size == pool._opener.endpoints(URL)[0].open == 1
        assert servers.attempts <= 2


async def test_case_2_a_connection_handed_to_one_who_is_cancelled_goes_to_the_next() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        lent = await pool.get_connection(URL)
        first = asyncio.create_task(pool.get_connection(URL).__aenter__())
        second = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await steps()
        lent.release()
        first.cancel()
        async with asyncio.timeout(5):
            conn = await second
        assert first.cancelled()
        assert conn.is_connected
        conn.release()
        assert servers.attempts == 1


@pytest.mark.parametrize("first", ["return", "expire", "cancel"])
@pytest.mark.parametrize("second", ["return", "expire", "cancel"])
async def test_case_5_what_happens_in_the_same_moment_has_one_outcome(first: str, second: str) -> None:
    async with pooling(max_connections=1) as (pool, _):
        lent = await pool.get_connection(URL)
        task = asyncio.create_task(pool.get_connection(URL, timeout=1000).__aenter__())
        await steps()
        (caller,) = pool._deadlines._queues[1000]
        happen = {"return": lent.release, "expire": lambda: pool._expire(caller), "cancel": task.cancel}
        happen[first]()
        happen[second]()
        lent.release()
        await asyncio.wait([task], timeout=1)
        assert task.done()
        if "cancel" in (first, second):
            assert task.cancelled()
        elif first == "return":
            task.result().release()
        else:
            assert isinstance(task.exception(), PoolExhausted)
        assert free(pool)
        assert pool.stats().idle == 1
        stats = pool.stats()
        assert stats.immediate + stats.waited == 1 + (first == "return" and not task.cancelled())
        async with pool.get_connection(URL, timeout=0) as conn:
            assert conn.is_connected


async def test_case_5_a_time_out_while_the_connection_is_opened_takes_nobodys_turn() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        servers.gate.clear()
        impatient = asyncio.create_task(pool.get_connection(URL, timeout=1000).__aenter__())
        patient = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await until(lambda: servers.attempts)
        (caller,) = pool._deadlines._queues[1000]
        servers.gate.set()
        pool._expire(caller)
        with pytest.raises(PoolExhausted):
            await impatient
        async with asyncio.timeout(1):
            (await patient).release()
        assert servers.attempts == 1


async def test_case_6_an_outer_cancel_is_never_swallowed() -> None:
    async with pooling(max_connections=1) as (pool, _):
        lent = await pool.get_connection(URL)
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await pool.get_connection(URL)
        assert not isinstance(caught.value, PoolExhausted)
        assert pool.stats().cancelled == 1
        lent.release()


async def test_case_8_a_waiter_who_is_cancelled_in_between_holds_up_nobody() -> None:
    async with pooling(max_connections=1) as (pool, _):
        lent = await pool.get_connection(URL)
        first, second, third = [asyncio.create_task(pool.get_connection(URL).__aenter__()) for _ in range(3)]
        await steps()
        second.cancel()
        await steps()
        assert pool.stats().waiting == 2
        for task in (first, third):
            lent.release()
            async with asyncio.timeout(1):
                lent = await task
        lent.release()
        assert second.cancelled()
        assert free(pool)


async def test_case_8_a_cancelled_waiters_connection_goes_to_the_next_waiter() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        servers.gate.clear()
        first = asyncio.create_task(pool.get_connection(URL).__aenter__())
        second = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await until(lambda: servers.attempts)
        first.cancel()
        await steps()
        servers.gate.set()
        async with asyncio.timeout(5):
            (await second).release()
        assert servers.attempts == 1


async def test_case_22_one_who_returns_and_asks_again_in_a_loop_starves_nobody() -> None:
    async with pooling(max_connections=1) as (pool, _):
        order: list[str] = []

        async def greedy() -> None:
            for _ in range(20):
                async with pool.get_connection(URL):
                    order.append("greedy")
                    await asyncio.sleep(0)

        async def modest() -> None:
            await asyncio.sleep(0)
            async with pool.get_connection(URL):
                order.append("modest")

        await asyncio.gather(greedy(), *(modest() for _ in range(5)))
        assert order.index("modest") <= 2
        assert max(index for index, name in enumerate(order) if name == "modest") <= 11


async def test_waiters_are_served_in_the_order_they_came() -> None:
    async with pooling(max_connections=2) as (pool, _):
        served: list[int] = []

        async def borrow(number: int) -> None:
            async with pool.get_connection(URL):
                served.append(number)
                await asyncio.sleep(0)

        await asyncio.gather(*(borrow(number) for number in range(50)))
        assert served == list(range(50))


async def test_a_timeout_of_zero_is_now_or_never() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        with pytest.raises(PoolExhausted):
            await pool.get_connection(URL, timeout=0)
        (await pool.get_connection(URL)).release()
        (await pool.get_connection(URL, timeout=0)).release()
        assert servers.attempts == 1


async def test_different_timeouts_expire_each_in_its_time() -> None:
    async with pooling(max_connections=1) as (pool, _), pool.get_connection(URL):
        expired: list[float] = []

        async def wait(timeout: float) -> None:
            with pytest.raises(PoolExhausted):
                await pool.get_connection(URL, timeout=timeout)
            expired.append(timeout)

        await asyncio.gather(*map(wait, (0.15, 0.05, 0.1, 0.05)))
        assert expired == [0.05, 0.05, 0.1, 0.15]
        assert pool.stats().waiting == 0


async def test_case_19_closing_tells_those_who_wait_and_waits_for_what_is_lent() -> None:
    now = asyncio.get_running_loop().time
    async with pooling(max_connections=2) as (pool, servers):
        lent = await pool.get_connection(URL)
        servers.gate.clear()
        waiting = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await until(lambda: servers.attempts == 2)
        began = now()
        closing = asyncio.create_task(pool.close(5))
        await steps()
        with pytest.raises(PoolClosed):
            await waiting
        with pytest.raises(PoolClosed):
            await pool.get_connection(URL)
        servers.gate.set()
        await asyncio.sleep(0.05)
        assert not closing.done()
        assert lent.is_connected
        lent.release()
        await closing
        assert now() - began < 1
        assert pool.stats().size == 0
        assert pool.stats().closed == {"close": 1}
        await until(lambda: all(end.state.name == "CLOSED" for end in servers.ends))


@pytest.mark.parametrize("url", ["ws://", "ws://h/#part", "ws://h:port", "ws://h:70000", "ws://user@h", "wss://[::1"])
async def test_a_url_that_leads_nowhere_is_refused_and_named(url: str) -> None:
    async with pooling() as (pool, servers):
        (await pool.get_connection(URL)).release()
        for timeout in (0, 1):
            with pytest.raises(ValueError, match=rf"url={re.escape(repr(shown_url(url)))}: must be a WebSocket URL"):
                await pool.get_connection(url, timeout=timeout)
        assert list(pool._state.keys) == [URL]
        assert servers.attempts == 1


@pytest.mark.parametrize("url", ["http://localhost", "localhost", "", b"ws://localhost", None])
async def test_a_url_that_is_none_is_refused(url: Any) -> None:
    async with pooling() as (pool, _):
        with pytest.raises(ValueError, match="must begin with ws:// or wss://"):
            await pool.get_connection(url)


def test_case_25_used_on_two_loops_is_an_error_that_says_so() -> None:
    async def borrow(pool: ConnectionPool) -> None:
        await pool.get_connection(URL, timeout=0)

    pool = ConnectionPool()
    with pytest.raises(PoolExhausted):
        asyncio.run(borrow(pool))
    with pytest.raises(WrongLoop):
        asyncio.run(borrow(pool))


@pytest.mark.parametrize("cancels", [10_000, pytest.param(100_000, marks=pytest.mark.load)])
@pytest.mark.timeout(300)
async def test_case_26_cancels_at_random_awaits_lose_no_slot(cancels: int) -> None:
    dice = random.Random(cancels)
    async with pooling(max_connections=3, max_waiting=100_000) as (pool, servers):

        async def borrow() -> None:
            async with pool.get_connection(URL) as conn:
                await asyncio.sleep(0)
                if dice.random() < 0.01:
                    conn.discard()

        for _ in range(cancels // 100):
            if dice.random() < 0.2:
                servers.failures = [OSError("down")]
            tasks = [asyncio.create_task(borrow()) for _ in range(100)]
            for task in tasks:
                await steps(dice.randrange(3))
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        servers.failures = []
        await until(lambda: pool.stats().waiting == pool.stats().in_use == pool.stats().connecting == 0, 20)
        await until(lambda: pool._opener.is_quiet(URL, asyncio.get_running_loop().time()), 10)
        held = [await pool.get_connection(URL) for _ in range(3)]
        assert pool.stats().in_use == 3
        for conn in held:
            conn.release()


async def test_a_connect_that_fails_reaches_the_caller_with_its_cause() -> None:
    async with pooling() as (pool, servers):
        servers.failures = [ConnectionRefusedError("nobody home")]
        with pytest.raises(ConnectionFailed, match=r"ws://server.*nobody home") as caught:
            await pool.get_connection(URL)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert free(pool)
        (await pool.get_connection(URL)).release()
        assert pool.stats().errors == 1


async def test_case_7_a_connect_that_fails_frees_the_slot_and_wakes_the_next() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        servers.failures = [OSError("once")]
        first = asyncio.create_task(pool.get_connection(URL).__aenter__())
        second = asyncio.create_task(pool.get_connection(URL).__aenter__())
        with pytest.raises(ConnectionFailed):
            await first
        async with asyncio.timeout(5):
            (await second).release()


def test_a_pool_that_was_never_used_can_be_closed() -> None:
    async def close() -> None:
        pool = ConnectionPool(ConnectionPoolConfig())
        await pool.close()
        with pytest.raises(PoolClosed):
            await pool.get_connection(URL)

    asyncio.run(close())
