"""As many texts as there is room for, and not one more."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import ConnectionPool, ConnectionPoolConfig
from penstock.batch.policy import BatchConfig
from penstock.errors import SerializationError
from penstock.transport.base import ConnectionClosed
from support.ends import NARROW, ends, within
from support.servers import serving, url_of
from support.sessions import meeting, until


def texts(count: int, size: int = 1, first: int = 0) -> list[str]:
    return [f"{number:0{size}d}" for number in range(first, first + count)]


async def test_they_are_taken_in_order_and_leave_with_all_of_the_iteration() -> None:
    async with ends() as both:
        assert both.client.offer(["first"]) == 1
        assert await both.received(1) == ["first"]
        await both.client.send("before")
        assert both.client.offer(texts(5)) == 5
        await both.client.send("after")
        assert await both.received(7) == ["before", *texts(5), "after"]
        assert len(both.spy.writes) == 3  # the first of an iteration is written at once, if it is sent


async def test_the_first_of_an_iteration_leave_together() -> None:
    async with ends() as both:
        assert both.client.offer(texts(5)) == 5
        assert await both.received(5) == texts(5)
        assert len(both.spy.writes) == 1


@pytest.mark.parametrize("config", [BatchConfig(batch_size=4), BatchConfig(batch_bytes=20), BatchConfig(batch_size=1)])
async def test_one_that_fills_the_batch_is_left_to_send(config: BatchConfig) -> None:
    async with ends(config) as both:
        left = texts(50, 5)
        while left:
            taken = both.client.offer(left)
            assert taken <= 3
            left = left[taken:]
            if left:
                await both.client.send(left.pop(0))
        assert await both.received(50) == texts(50, 5)


async def test_while_the_socket_takes_nothing_no_more_is_taken_than_may_be_pending() -> None:
    config = BatchConfig(batch_size=3, max_pending_messages=7, max_pending_bytes=100_000)
    async with ends(config, NARROW) as both:
        filler = await both.block()
        taken = both.client.offer(texts(50))
        assert 0 < taken <= 7
        assert both.client.offer(texts(50, first=taken)) == 0
        both.go_on()
        assert await both.received(1 + taken) == [filler, *texts(taken)]


async def test_bytes_are_bounded_likewise() -> None:
    async with ends(BatchConfig(max_pending_bytes=1000), NARROW) as both:
        filler = await both.block()
        taken = both.client.offer(texts(50, 100))
        assert 0 < taken < 11
        both.go_on()
        assert await both.received(1 + taken) == [filler, *texts(taken, 100)]


async def test_one_that_is_not_unicode_is_left_to_send_with_all_behind_it() -> None:
    async with ends() as both:
        assert both.client.offer(["a", "b", "\ud800", "c"]) == 2
        with pytest.raises(SerializationError):
            await both.client.send("\ud800")
        assert await both.received(2) == ["a", "b"]


async def test_what_is_closed_takes_nothing() -> None:
    async with ends() as both:
        await both.client.close()
        assert both.client.offer(texts(3)) == 0
        with pytest.raises(ConnectionClosed):
            await both.client.send("1")


async def test_without_optimizing_nothing_is_taken_together() -> None:
    async with ends(optimize=False) as both:
        assert both.client.offer(texts(3)) == 0


async def test_a_reliable_connection_takes_what_its_peer_may_get() -> None:
    async with meeting() as both:
        await until(lambda: both.handled)
        offered = [*texts(5), "ü", *texts(5)]
        assert both.client.offer(offered) == 5
        await both.client.send("ü")
        assert both.client.offer(offered[6:]) == 5
        assert [await within(both.far.recv()) for _ in offered] == offered
        too_long = "x" * (both.client.outbox.max_message + 1)
        assert both.client.offer([too_long, "a"]) == 0
        with pytest.raises(SerializationError):
            await both.client.send(too_long)


@pytest.mark.parametrize("options", [{}, {"shared": True}])
async def test_a_loan_passes_it_on(options: dict[str, Any]) -> None:
    config = ConnectionPoolConfig(min_connections=0)
    async with (
        serving() as server,
        ConnectionPool(config) as pool,
        pool.get_connection(url_of(server), **options) as conn,
    ):
        assert conn.offer(texts(3)) == 3
        assert [await within(conn.recv()) for _ in range(3)] == texts(3)
