"""A client over a pool's connections."""

from __future__ import annotations

import asyncio

import pytest

from penstock import CallTimeout, ConnectionPool, ConnectionPoolConfig, Gap, Rpc
from support.ends import within
from support.pools import free
from support.rpcserver import rpc_server
from support.waiting import until

pytestmark = pytest.mark.timeout(30)


def make_pool() -> ConnectionPool:
    return ConnectionPool(ConnectionPoolConfig(min_connections=0))


async def test_many_callers_share_few_connections_and_return_them() -> None:
    async with rpc_server() as server, make_pool() as pool, Rpc(pool, server.url, connections=2) as rpc:
        for _ in range(3):
            assert await asyncio.gather(*(rpc.call("echo", [n]) for n in range(200))) == [[n] for n in range(200)]
        assert 1 <= len(server.conns) <= 2
        await until(lambda: free(pool))
        assert await rpc.call("echo", ["again"]) == ["again"]
        assert len(server.conns) <= 2
        ids = [one["id"] for one in server.asked]
        assert ids.count(1) == len(server.conns)


async def test_case_20_a_connection_with_an_answer_to_come_is_not_lent_again() -> None:
    async with rpc_server() as server, make_pool() as pool, Rpc(pool, server.url) as rpc:
        await rpc.call("echo")
        with pytest.raises(CallTimeout):
            await rpc.call("slow", [5], timeout=0.1)
        await until(lambda: free(pool))
        assert pool.stats().idle == 0
        assert await rpc.call("echo", [1]) == [1]
        assert len(server.conns) == 2


async def test_a_subscription_keeps_its_connection_and_goes_on_over_another() -> None:
    async with rpc_server() as server, make_pool() as pool, Rpc(pool, server.url) as rpc:
        async with rpc.subscribe("subscribe") as events:
            await asyncio.sleep(0.25)
            await server.emit(1)
            assert await within(anext(events)) == 1
            server.hang_up()
            assert await within(anext(events)) == Gap("reconnected")
        await until(lambda: free(pool))
