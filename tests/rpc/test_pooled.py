"""A client over a pool's connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import CallTimeout, ConnectionPool, ConnectionPoolConfig, Gap, PoolClosed, Rpc
from penstock.rpc.links import CROWD
from support.ends import start, within
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
        assert 1 <= ids.count(1) <= len(server.conns)  # the second may have come too late for any call


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


async def test_a_pool_that_drains_gets_its_connections_back_and_subscriptions_go_on() -> None:
    async with rpc_server() as server, make_pool() as pool, Rpc(pool, server.url) as rpc:
        async with rpc.subscribe("subscribe") as events:
            await within(pool.drain(), 5)
            assert await within(anext(events)) == Gap("reconnected")
            await server.emit(1)
            assert await within(anext(events)) == 1
            assert await rpc.call("echo", [1]) == [1]
        assert len(server.conns) == 2


async def test_a_pool_that_drains_waits_for_calls_that_are_under_way() -> None:
    async with rpc_server() as server, make_pool() as pool, Rpc(pool, server.url) as rpc:
        task = start(rpc.call("slow", [0.8]))
        await until(lambda: server.times("slow") == 1)
        await within(pool.drain(), 5)
        assert await within(task) == [0.8]


async def test_a_subscription_does_not_wait_for_calls_on_the_connection_that_it_leaves() -> None:
    async with (
        rpc_server() as server,
        make_pool() as pool,
        Rpc(pool, server.url) as rpc,
        rpc.subscribe("subscribe") as events,
    ):
        task = start(rpc.call("slow", [2]))
        await until(lambda: server.times("slow") == 1)
        drained = start(pool.drain())
        assert await within(anext(events)) == Gap("reconnected")
        assert not task.done()
        assert await within(task) == [2]
        await within(drained)


async def test_a_pool_that_is_closed_ends_subscriptions_with_why() -> None:
    async with (
        rpc_server() as server,
        make_pool() as pool,
        Rpc(pool, server.url) as rpc,
        rpc.subscribe("subscribe") as events,
    ):
        await within(pool.close(), 5)
        with pytest.raises(PoolClosed):
            await within(anext(events))


async def test_a_subscription_keeps_no_more_connections_than_its_own() -> None:
    async with rpc_server() as server, make_pool() as pool, Rpc(pool, server.url, connections=2) as rpc:
        async with rpc.subscribe("subscribe"):
            await asyncio.gather(*(rpc.call("slow", [0.05]) for _ in range(100)))
            assert rpc.stats().connections == 2
            await until(lambda: rpc.stats().connections == 1)
        await until(lambda: free(pool))


async def test_two_clients_that_have_a_connection_in_turn_use_no_id_twice() -> None:
    async with rpc_server() as server, make_pool() as pool:
        for _ in range(2):
            async with Rpc(pool, server.url) as rpc:
                await rpc.call("echo")
        assert len(server.conns) == 1
        assert [one["id"] for one in server.asked] == [1, 2]


async def test_an_answer_to_the_server_is_not_lost_because_nobody_calls() -> None:
    async def handler(method: str, params: Any) -> Any:
        await asyncio.sleep(0.3)
        return "late"

    async with rpc_server() as server, make_pool() as pool, Rpc(pool, server.url, on_request=handler) as rpc:
        await rpc.call("echo")
        await server.conns[0].send('{"id":"s","method":"ask"}')
        await until(lambda: len(server.frames) == 2)
        assert server.frames[1] == {"jsonrpc": "2.0", "id": "s", "result": "late"}


async def test_case_11_the_same_id_on_two_connections_is_two_subscriptions() -> None:
    async with rpc_server() as server, make_pool() as pool, Rpc(pool, server.url, connections=2) as rpc:

        async def same_id(conn: Any, message: Any) -> None:
            server.subs.append((conn, "0x1"))
            await server.reply(conn, message, "0x1")

        server.own["subscribe"] = same_id
        busy = [start(rpc.call("slow", [0.2])) for _ in range(CROWD + 8)]
        await until(lambda: rpc.stats().connections == 2)
        async with rpc.subscribe("subscribe", ["a"]) as one:
            busy += [start(rpc.call("slow", [0.2])) for _ in range(CROWD + 8)]
            async with rpc.subscribe("subscribe", ["b"]) as two:
                assert len({conn for conn, _ in server.subs}) == 2
                await server.emit("a", to=0)
                await server.emit("b", to=1)
                assert [await within(anext(one)), await within(anext(two))] == ["a", "b"]
                await asyncio.gather(*busy)
