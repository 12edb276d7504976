"""Calls that go together, and calls that need not go."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock import CallLost, CallTimeout, ConnectionPool, MessageCache, Rpc, RpcError
from penstock.protocols.batching import Batching
from penstock.protocols.policy import CachePolicy
from penstock.rpc import connect
from support.ends import cancelled, start
from support.rpcserver import rpc_server
from support.waiting import until

pytestmark = pytest.mark.timeout(30)


def arrays(*methods: str) -> Batching:
    """Arrays from the first call on."""
    batching = Batching(methods)
    for method in methods:
        batching._methods[method]._ahead.clear()
        batching._methods[method]._begin(array=True)
    return batching


async def test_a_batch_has_results_in_order_and_errors_in_their_places() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        one, error, three = await rpc.batch([("echo", [1]), ("fail", None), "null"])
        assert one == [1]
        assert isinstance(error, RpcError)
        assert three is None
        timed_out, echoed = await rpc.batch([("never", []), ("echo", [2])], timeout=0.05)
        assert isinstance(timed_out, CallTimeout)
        assert echoed == [2]


async def test_calls_of_one_iteration_go_in_an_array_where_that_is_faster() -> None:
    async with rpc_server() as server, connect(server.url, batching=arrays("echo")) as rpc:
        assert await asyncio.gather(*(rpc.call("echo", [n]) for n in range(10))) == [[n] for n in range(10)]
        assert [len(frame) for frame in server.frames] == [10]
        assert await rpc.call("echo", [1]) == [1]
        assert isinstance(server.frames[-1], dict)


async def test_case_7_an_array_that_is_refused_is_sent_again_one_by_one() -> None:
    async with rpc_server() as server:

        async def refuse(conn: Any, found: Any) -> None:
            await conn.send('{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no arrays"}}')

        server.on_array = refuse
        async with connect(server.url, batching=arrays("echo"), idempotent=["echo"]) as rpc:
            assert await asyncio.gather(*(rpc.call("echo", [n]) for n in range(5))) == [[n] for n in range(5)]
        async with connect(server.url, batching=arrays("echo")) as rpc:
            for error in await rpc.batch([("echo", [n]) for n in range(3)]):
                assert isinstance(error, RpcError)


async def test_case_5_of_an_array_that_is_half_answered_the_rest_times_out() -> None:
    async with rpc_server() as server:

        async def half(conn: Any, found: Any) -> None:
            await conn.send(json.dumps([server.result(one, one["params"]) for one in found[::2]]))

        server.on_array = half
        async with connect(server.url, batching=arrays("echo")) as rpc:
            results = await rpc.batch([("echo", [n]) for n in range(4)], timeout=0.1)
        assert results[::2] == [[0], [2]]
        assert all(isinstance(one, CallTimeout) for one in results[1::2])


async def test_case_8_of_an_array_that_is_lost_only_what_may_be_is_sent_again() -> None:
    async with rpc_server() as server:

        async def hang_up(conn: Any, found: Any) -> None:
            conn.transport.abort()

        server.on_array = hang_up
        async with connect(server.url, batching=arrays("read", "write"), idempotent=["read"]) as rpc:
            read, write = await rpc.batch([("read", [1]), ("write", [2])])
        assert read == [1]
        assert isinstance(write, CallLost)
        assert write.written
        assert (server.times("read"), server.times("write")) == (2, 1)


async def test_an_answer_is_kept_and_is_the_caller_s_own() -> None:
    async with rpc_server() as server, connect(server.url, cache=MessageCache()) as rpc:
        first = await rpc.call("echo", [[1]], ttl=60)
        first[0].append("changed")
        assert await rpc.call("echo", [[1]], ttl=60) == [[1]]
        assert server.times("echo") == 1
        assert await rpc.call("echo", [[1]], ttl=0) == [[1]]
        assert server.times("echo") == 2


async def test_case_18_keys_do_not_collide_and_errors_and_nulls_are_not_kept() -> None:
    cache = MessageCache()
    async with (
        rpc_server() as server,
        connect(server.url, cache=cache) as one,
        connect(server.url, cache=cache, additional_headers={"Authorization": "two"}) as two,
    ):
        for rpc in (one, two):
            assert await rpc.call("echo", [1, 2], ttl=60) == [1, 2]
            assert await rpc.call("echo", [12], ttl=60) == [12]
        assert server.times("echo") == 4
        for _ in range(2):
            with pytest.raises(RpcError):
                await one.call("fail", [], ttl=60)
            assert await one.call("null", [], ttl=60) is None
        assert (server.times("fail"), server.times("null")) == (2, 2)


async def test_a_policy_says_what_is_kept() -> None:
    policy = CachePolicy({"null": 60}, nulls=True)
    async with rpc_server() as server, connect(server.url, cache=MessageCache(), policy=policy) as rpc:
        for _ in range(2):
            assert await rpc.call("null", []) is None
            await rpc.call("echo", [])
        assert (server.times("null"), server.times("echo")) == (1, 2)


async def test_case_19_each_who_waits_for_one_answer_has_a_deadline_of_its_own() -> None:
    async with rpc_server() as server, connect(server.url, cache=MessageCache()) as rpc:
        timed_out, gone, stays = (
            start(rpc.call("slow", [0.2], ttl=60, timeout=timeout)) for timeout in (0.05, None, 5)
        )
        await until(lambda: server.times("slow") == 1)
        assert await cancelled(gone)
        with pytest.raises(CallTimeout):
            await timed_out
        assert await stays == [0.2]
        assert server.times("slow") == 1


async def test_a_ttl_needs_a_cache() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        with pytest.raises(ValueError, match="cache="):
            await rpc.call("echo", ttl=1)
    with pytest.raises(ValueError, match="cache="):
        connect("ws://localhost", policy=CachePolicy({}))


@pytest.mark.parametrize("ttl", ["60", -1, float("nan"), [1]])
async def test_a_ttl_that_is_none_is_refused_before_anything_is_asked(ttl: Any) -> None:
    async with rpc_server() as server, connect(server.url, cache=MessageCache()) as rpc:
        with pytest.raises(ValueError, match=r"ttl=.*must be a number of seconds"):
            await rpc.call("echo", ttl=ttl)
        assert (rpc.stats().calls, server.times("echo")) == (0, 0)


async def test_a_timeout_that_is_none_is_refused() -> None:
    async with rpc_server() as server, ConnectionPool() as pool, Rpc(pool, server.url) as rpc:
        for _ in range(2):  # without a connection, and with one
            with pytest.raises(TypeError, match="timeout='5': must be a number of seconds, or None"):
                await rpc.call("echo", timeout="5")  # type: ignore[arg-type]
            assert await rpc.call("echo", [1]) == [1]
        assert "0 calls pending" in repr(rpc)


async def test_case_6_errors_in_an_array_reach_the_callers_whose_they_are() -> None:
    async with rpc_server() as server:

        async def mixed(conn: Any, found: Any) -> None:
            replies = [server.result(one, one["params"]) for one in found]
            for one in replies[1::2]:
                one["error"] = {"code": one.pop("result")[0], "message": "odd"}
            await conn.send(json.dumps(replies[::-1]))

        server.on_array = mixed
        async with connect(server.url, batching=arrays("echo")) as rpc:
            results = await rpc.batch([("echo", [n]) for n in range(6)])
        assert results[::2] == [[0], [2], [4]]
        assert [one.code for one in results[1::2]] == [1, 3, 5]


def test_what_subscribes_is_refused_in_arrays() -> None:
    with pytest.raises(ValueError, match="eth_subscribe"):
        Batching(["eth_chainId", "eth_subscribe"])


async def test_each_question_to_the_cache_counts_once() -> None:
    cache = MessageCache()
    async with rpc_server() as server, connect(server.url, cache=cache) as rpc:
        for _ in range(3):
            assert await rpc.call("echo", [1], ttl=60) == [1]
        assert await asyncio.gather(*(rpc.call("echo", [2], ttl=60) for _ in range(4))) == [[2]] * 4
        assert server.times("echo") == 2
        stats = rpc.stats()
    assert (cache.get_cache_stats().hits, cache.get_cache_stats().misses) == (2, 5)
    assert (stats.cached, stats.coalesced, stats.answered, stats.calls) == (2, 3, 2, 7)


async def test_an_answer_that_is_kept_is_given_though_there_is_no_time_to_ask() -> None:
    async with rpc_server() as server, connect(server.url, cache=MessageCache()) as rpc:
        await rpc.call("echo", [1], ttl=60)
        assert await rpc.call("echo", [1], ttl=60, timeout=0) == [1]
        for ttl in (None, 60):
            with pytest.raises(CallTimeout):
                await rpc.call("echo", [2], ttl=ttl, timeout=0)
        assert server.times("echo") == 1
        assert rpc.stats().timeouts == 2
