"""What a caller is told who gets no connection."""

from __future__ import annotations

import asyncio
from math import nan

import pytest

from penstock import ConnectionDenied, ConnectionFailed, PoolExhausted
from penstock.transport.base import CloseCode
from support.pools import URL, free, pooling, steps, until

pytestmark = pytest.mark.timeout(30)


async def test_a_time_out_says_how_long_how_many_and_what_to_do() -> None:
    async with pooling(max_connections=1) as (pool, _):
        async with pool.get_connection(URL):
            with pytest.raises(PoolExhausted, match=r"after 0\.0\d+ s: 1 in use, .* raise max_connections") as caught:
                await pool.get_connection(URL, timeout=0.05)
        assert 0.05 <= caught.value.waited < 1
        assert pool.stats().timeouts == 1
        assert free(pool)


async def test_a_timeout_of_zero_on_a_url_that_was_never_used_says_what_to_do() -> None:
    async with pooling() as (pool, _):
        with pytest.raises(PoolExhausted, match=r"timeout=0 opens none: .* warm_up"):
            await pool.get_connection(URL, timeout=0)


async def test_a_time_out_while_a_closing_handshake_holds_the_only_place_says_so() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        conn = await pool.get_connection(URL)
        servers.ends[0].transport.pause_reading()
        conn.discard()
        with pytest.raises(PoolExhausted, match=r"1 being closed.*does not answer what closes them") as caught:
            await pool.get_connection(URL, timeout=0.02)
        assert caught.value.closing == 1


@pytest.mark.parametrize("code", [CloseCode.POLICY_VIOLATION, CloseCode.TRY_AGAIN_LATER])
async def test_a_time_out_while_the_server_is_left_alone_says_for_how_long(code: int) -> None:
    async with pooling(random=lambda: 0.5) as (pool, servers):
        (await pool.get_connection(URL)).release()
        await servers.ends[0].close(code)
        await until(lambda: pool.stats().size == 0)
        with pytest.raises(PoolExhausted, match=r"asked to be left alone, .* tried again in \d\.\d s") as caught:
            await pool.get_connection(URL, timeout=0.02)
        assert 0 < caught.value.retry_in <= 5


async def test_a_timeout_that_is_no_number_is_refused() -> None:
    async with pooling(max_connections=1) as (pool, _), pool.get_connection(URL):
        with pytest.raises(ValueError, match="timeout=nan: must be a number of seconds"):
            await pool.get_connection(URL, timeout=nan)
        assert pool.stats().waiting == 0


async def test_those_who_are_told_of_one_refusal_have_an_exception_each() -> None:
    cause = OSError("the cause")
    refusal = ConnectionDenied(URL, "wrong password")
    refusal.__cause__ = cause
    async with pooling(max_connections=1) as (pool, servers):
        servers.failures = [refusal]
        asking = [pool.get_connection(URL).__aenter__() for _ in range(20)]
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(one) for one in told} == {ConnectionDenied}
        assert len({id(one) for one in told}) == 20
        assert {str(one) for one in told} == {f"cannot connect to {URL}: wrong password"}
        for one in told:
            assert isinstance(one, ConnectionDenied)
            assert one.__cause__ is cause
        assert servers.attempts == 1


async def test_no_more_may_wait_than_allowed() -> None:
    async with pooling(max_connections=1, max_waiting=2) as (pool, _), pool.get_connection(URL) as conn:
        waiting = [asyncio.create_task(pool.get_connection(URL).__aenter__()) for _ in range(2)]
        await steps()
        with pytest.raises(PoolExhausted):
            await pool.get_connection(URL)
        conn.release()
        for task in waiting:
            (await task).release()


async def test_a_server_that_does_not_answer_is_told_from_a_pool_that_is_too_small() -> None:
    async with pooling() as (pool, servers):
        servers.failures = [OSError("no route")]
        with pytest.raises(ConnectionFailed):
            await pool.get_connection(URL)
        servers.gate.clear()
        with pytest.raises(PoolExhausted, match=r"0 in use, 1 being opened.*does not answer") as caught:
            await pool.get_connection(URL, timeout=0.2)
        assert "no route" in str(caught.value.__cause__)


async def test_nobody_may_wait_but_connections_are_opened() -> None:
    async with pooling(max_connections=1, max_waiting=0) as (pool, _), pool.get_connection(URL):
        with pytest.raises(PoolExhausted):
            await pool.get_connection(URL)
