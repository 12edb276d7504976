"""Returning: what is fit to be lent again, and what a caller may do with what is not its own any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from penstock import ConnectionPool, ConnectionPoolConfig, PooledConnection, WrongLoop
from penstock.errors import LeaseReturned
from support.pools import URL, Servers, free, pooling, steps, until

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("between", range(4))
async def test_cases_3_and_4_returning_cannot_be_cancelled_not_even_twice(between: int, hooked: bool) -> None:
    tidied = 0

    async def tidy_up(conn: PooledConnection) -> None:
        nonlocal tidied
        await asyncio.sleep(0.01)
        tidied += 1

    async with pooling(max_connections=1, on_release=tidy_up if hooked else None) as (pool, servers):

        async def borrow() -> None:
            async with pool.get_connection(URL):
                try:
                    await asyncio.Event().wait()
                finally:
                    await asyncio.sleep(0.02)  # the second cancelling falls into the cleaning up

        task = asyncio.create_task(borrow())
        await until(lambda: pool.stats().in_use)
        task.cancel()
        await steps(between)
        task.cancel()
        await steps(between)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await until(lambda: free(pool))
        assert pool.stats().idle == 1
        assert tidied == hooked
        async with pool.get_connection(URL, timeout=0) as conn:
            assert conn.is_connected
        assert servers.attempts == 1


async def test_case_3_a_connection_whose_tidying_up_is_cancelled_is_closed_and_its_slot_free() -> None:
    async def tidy_up(conn: PooledConnection) -> None:
        await asyncio.Event().wait()

    async with pooling(max_connections=1, on_release=tidy_up) as (pool, _):
        for at in range(3):
            (await pool.get_connection(URL, timeout=1)).release()
            await steps(at)
            (task,) = [task for task in pool._actions._tasks if "Actions._call" in repr(task)]
            task.cancel()
            await until(lambda: pool.stats().size == 0)
        assert pool.stats().closed == {"hook": 3}


async def test_case_9_a_broken_connection_returned_while_others_wait_lets_them_go_on() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        lent = await pool.get_connection(URL)
        waiting = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await steps()
        servers.ends[0].transport.abort()
        await until(lambda: not lent.is_connected)
        lent.release()
        async with asyncio.timeout(5):
            conn = await waiting
        assert conn.is_connected
        conn.release()
        assert servers.attempts == 2
        assert pool.stats().closed == {"peer": 1}


async def test_case_21_what_was_returned_is_the_callers_no_more() -> None:
    async with pooling() as (pool, _):
        conn = await pool.get_connection(URL)
        conn.release()
        conn.release()
        conn.discard("too late")
        assert pool.stats().idle == 1
        assert not conn.is_connected
        assert not conn.is_healthy()
        for use in (lambda: conn.send("x"), conn.recv, lambda: conn.remote_address, conn.__aiter__):
            with pytest.raises(LeaseReturned, match=r"was returned.*of the pool.*of the middleware"):
                use()
        assert "returned" in repr(conn)
        await pool.close(1)
        conn.release()


async def test_who_forgot_to_await_a_loan_is_told_so_whoever_lends() -> None:
    async with pooling() as (pool, _):
        conn = pool.get_connection(URL)
        for use in (lambda: conn.send("x"), conn.recv, lambda: conn.remote_address):
            with pytest.raises(RuntimeError, match=r"^no connection yet: write `conn = await \.\.\.`.*`async with"):
                use()


ITERATORS: list[Any] = [aiter, lambda conn: conn.recv_streaming()]


@pytest.mark.parametrize("iterate", ITERATORS)
@pytest.mark.parametrize("begun", [False, True])
async def test_case_21_an_iterator_ends_with_the_loan(iterate: Any, begun: bool) -> None:
    async with pooling(max_connections=1) as (pool, servers):
        lent = await pool.get_connection(URL)
        messages = iterate(lent)
        if begun:
            await servers.ends[0].send("old")
            assert await anext(messages) == "old"
        lent.release()
        async with pool.get_connection(URL) as conn:
            await servers.ends[0].send("secret")
            with pytest.raises(LeaseReturned):
                await anext(messages)
            assert await conn.recv() == "secret"


async def test_a_loan_is_iterated_until_the_connection_is_closed() -> None:
    async with pooling() as (pool, servers), pool.get_connection(URL) as conn:
        await servers.ends[0].send_many(["one", "two"])
        await servers.ends[0].send(iter(["th", "ree"]))
        closing = asyncio.create_task(servers.ends[0].close())
        assert [message async for message in conn] == ["one", "two", "three"]
        await closing


@pytest.mark.parametrize("reason", ["", "discarded"])
async def test_case_21_a_connection_is_discarded_for_whatever_reason(reason: str) -> None:
    async with pooling() as (pool, servers):
        (await pool.get_connection(URL)).discard(reason)
        (await pool.get_connection(URL)).release()
        assert servers.attempts == 2
        assert pool.stats().closed == {"discarded": 1}


async def test_a_connection_on_which_somebody_still_sends_fragments_is_not_lent_again() -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "half"
        await asyncio.Event().wait()

    async with pooling(max_connections=1) as (pool, servers):
        async with pool.get_connection(URL) as conn:
            sending = asyncio.create_task(conn.send(pieces()))
            await until(lambda: conn.outbox.busy)
        async with asyncio.timeout(1), pool.get_connection(URL) as conn:
            await conn.send("mine")
            assert await servers.ends[1].recv() == "mine"
        assert pool.stats().closed == {"dirty": 1}
        sending.cancel()
        await asyncio.wait([sending])


async def test_a_connection_on_which_somebody_waits_to_send_is_not_lent_again() -> None:
    async def fill(conn: PooledConnection) -> None:
        while True:
            await conn.send(b"x" * 100_000)

    async with pooling(max_connections=2) as (pool, servers):
        conn = await pool.get_connection(URL)
        servers.ends[0].transport.pause_reading()
        sending = asyncio.create_task(fill(conn))
        await until(lambda: conn.outbox.busy)
        conn.release()
        assert pool.stats().idle == 0
        sending.cancel()
        await asyncio.wait([sending])
        await until(lambda: pool.stats().closed == {"dirty": 1})


async def test_a_connection_that_has_just_written_a_full_batch_is_lent_again() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        async with pool.get_connection(URL) as conn:
            reading = asyncio.create_task(servers.ends[0].recv_many())
            await conn.send_many(["x"] * 2000)
        assert pool.stats().idle == 1
        await reading
        servers.ends[0].discard_unread()


async def test_case_21_a_discarded_connection_is_not_lent_again() -> None:
    async with pooling() as (pool, servers):
        async with pool.get_connection(URL) as conn:
            conn.discard("it smelled")
        async with pool.get_connection(URL):
            pass
        assert servers.attempts == 2
        assert pool.stats().closed == {"it smelled": 1}


async def test_case_25_returned_in_another_thread_is_an_error_that_says_so() -> None:
    async with pooling(max_connections=1) as (pool, _):
        conn = await pool.get_connection(URL)
        for end in (conn.release, conn.discard):
            with pytest.raises(WrongLoop):
                await asyncio.to_thread(end)
        assert conn.is_connected
        conn.release()
        await asyncio.to_thread(conn.release)
        assert free(pool)


def test_case_21_returning_when_the_event_loop_is_gone_does_nothing() -> None:
    async def leave_open() -> PooledConnection:
        servers = Servers()
        pool = ConnectionPool(ConnectionPoolConfig(min_connections=0), connect=servers.connect)
        conn = await pool.get_connection(URL)
        servers.hang_up()
        await conn.wait_closed()
        return conn

    conn = asyncio.run(leave_open())
    conn.release()
    assert not conn.is_connected


async def test_an_answer_that_comes_too_late_never_reaches_the_next_borrower() -> None:
    async with pooling() as (pool, servers):

        async def ask() -> None:
            async with pool.get_connection(URL) as conn, asyncio.timeout(0.02):
                await conn.send("one")
                await conn.recv()

        with pytest.raises(TimeoutError):
            await ask()
        async with pool.get_connection(URL) as conn:
            assert len(servers.ends) == 2
            await servers.ends[-1].send("answer to two")
            assert await conn.recv() == "answer to two"
        assert pool.stats().closed == {"error": 1}


async def test_an_exception_in_a_block_that_did_not_use_the_connection_costs_none() -> None:
    async with pooling() as (pool, servers):
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                async with pool.get_connection(URL):
                    raise ZeroDivisionError
        assert servers.attempts == 1


async def test_reasons_that_are_all_different_are_counted_within_bounds() -> None:
    async with pooling(max_connections=1, connect_rate=1e6) as (pool, _):
        for number in range(100):
            (await pool.get_connection(URL)).discard(f"bad answer to question {number}")
        closed = pool.stats().closed
        assert sum(closed.values()) == 100
        assert len(closed) <= 65
        assert closed["other"] >= 35
