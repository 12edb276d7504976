"""Servers that others wrote."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from penstock import ConnectionPool, ConnectionPoolConfig, Gap, GraphQLClosed, GraphQLError, MessageCache, Rpc, RpcError
from penstock.protocols import ethereum
from penstock.protocols.batching import Batching
from penstock.rpc import connect, over
from support.ends import within
from support.npm import ganache, graphql_ws
from support.waiting import until

pytestmark = pytest.mark.timeout(60)


# Starlette


async def _answer(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            found = json.loads(await websocket.receive_text())
            many = found if isinstance(found, list) else [found]
            replies = [{"jsonrpc": "2.0", "id": one["id"], "result": one.get("params")} for one in many if "id" in one]
            await websocket.send_text(json.dumps(replies if isinstance(found, list) else replies[0]))
    except WebSocketDisconnect:
        pass


@asynccontextmanager
async def starlette() -> AsyncIterator[str]:
    app = Starlette(routes=[WebSocketRoute("/", _answer)])
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="error", ws="wsproto", lifespan="off"))
    task = asyncio.get_running_loop().create_task(server.serve())
    try:
        await until(lambda: server.started)
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    finally:
        server.should_exit = True
        await task


async def test_many_callers_of_a_starlette_app_each_have_their_own_answer() -> None:
    async with (
        starlette() as url,
        ConnectionPool(ConnectionPoolConfig(min_connections=0)) as pool,
        Rpc(pool, url, batching=Batching(["echo"]), idempotent=["echo"]) as rpc,
    ):
        for _ in range(10):
            results = await asyncio.gather(*(rpc.call("echo", [n, "ü"]) for n in range(100)))
            assert results == [[n, "ü"] for n in range(100)]
        stats = rpc.stats()
        assert (stats.answered, stats.errors, stats.unsolicited) == (1000, 0, 0)
        assert 0 < stats.batched < 1000
        assert stats.opened <= 4


# Ganache, an Ethereum node for development


@asynccontextmanager
async def node(**options: Any) -> AsyncIterator[Rpc]:
    async with ganache() as url, connect(url, idempotent=ethereum.READS, **options) as rpc:
        yield rpc


async def test_a_node_is_asked_once_for_what_its_policy_keeps() -> None:
    async with node(cache=MessageCache(), policy=ethereum.policy(finalized=lambda: 0)) as rpc:
        for _ in range(3):
            assert await rpc.call("eth_chainId") == "0x539"
            assert (await rpc.call("eth_getBlockByNumber", ["0x0", False]))["number"] == "0x0"
            assert await rpc.call("eth_getBlockByNumber", ["0x63", False]) is None
            assert int(await rpc.call("eth_blockNumber"), 16) == 0
        stats = rpc.stats()
        assert (stats.cached, stats.answered) == (4, 8)
        with pytest.raises(RpcError):
            await rpc.call("eth_noSuchMethod")


async def test_a_node_s_batches_and_new_heads() -> None:
    async with node(batching=Batching(["eth_chainId"])) as rpc, rpc.subscribe("eth_subscribe", ["newHeads"]) as heads:
        for _ in range(20):
            assert await asyncio.gather(*(rpc.call("eth_chainId") for _ in range(20))) == ["0x539"] * 20
        assert rpc.stats().batched > 0
        for number in range(1, 4):
            await rpc.call("evm_mine")
            head = await within(anext(heads))
            assert not isinstance(head, Gap)
            assert int(head["number"], 16) == number
        heads.close()
        await rpc.call("evm_mine")
        assert rpc.stats().subscriptions == 0


# graphql-ws


async def test_a_graphql_server_answers_queries_mutations_and_subscriptions() -> None:
    async with (
        graphql_ws() as url,
        ConnectionPool(ConnectionPoolConfig(min_connections=0)) as pool,
        over(pool, url, "graphql", cache=MessageCache(), init={"token": "right"}, connections=2) as rpc,
    ):
        document = "query Echo($text: String) { echo(text: $text) }"
        results = await asyncio.gather(*(rpc.query(document, {"text": str(n)}) for n in range(100)))
        assert results == [{"echo": str(n)} for n in range(100)]
        for _ in range(3):
            assert await rpc.query(document, {"text": "kept"}, ttl=60) == {"echo": "kept"}
        assert await rpc.query("{ asked }") == {"asked": 101}
        assert await rpc.call("mutation { add(n: 5) }") == {"add": 5}
        with pytest.raises(GraphQLError):
            await rpc.query("{ noSuchField }")
        with pytest.raises(TimeoutError):
            await rpc.query("{ never }", timeout=0.1)
        events = [event async for event in rpc.subscribe("subscription { count(to: 5) }")]
        assert events == [{"count": n} for n in range(5)]


async def test_a_graphql_server_that_forbids_is_final() -> None:
    async with graphql_ws() as url:
        with pytest.raises(GraphQLClosed) as caught:
            await connect(url, "graphql", init={"token": "wrong"})
        assert caught.value.code == 4403
