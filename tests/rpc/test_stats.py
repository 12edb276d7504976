"""What a client counts, and what it tells of."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from penstock import CallLost, CallTimeout, MessageCache, RpcError, TooManyCalls
from penstock.protocols.batching import Batching
from penstock.rpc import connect
from support.ends import start, within
from support.rpcserver import rpc_server
from support.waiting import until

pytestmark = pytest.mark.timeout(30)


async def test_calls_are_counted_by_what_became_of_them() -> None:
    async with rpc_server() as server, connect(server.url, cache=MessageCache(), max_calls=8) as rpc:
        await rpc.call("echo", [1])
        with pytest.raises(RpcError):
            await rpc.call("fail")
        with pytest.raises(CallTimeout):
            await rpc.call("slow", [0.1], timeout=0.02)
        await asyncio.gather(*(rpc.call("slow", [0.05, "same"], ttl=60) for _ in range(5)))
        await rpc.call("slow", [0.05, "same"], ttl=60)
        waiting = [start(rpc.call("never")) for _ in range(8)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyCalls):
            await rpc.call("echo")
        assert rpc.stats().in_flight == 8
        await until(lambda: rpc.stats().late == 1)
        await until(lambda: server.times("never") == 8)
        server.hang_up()
        for task in waiting:
            with pytest.raises(CallLost):
                await task
        stats = rpc.stats()
        assert (stats.calls, stats.answered, stats.errors, stats.timeouts) == (17, 3, 1, 1)
        assert (stats.cached, stats.coalesced, stats.lost, stats.refused) == (1, 4, 8, 1)
        assert (stats.in_flight, stats.retried, stats.opened) == (0, 0, 1)
        assert stats.latency.count == 3
        assert 0.04 < stats.latency.quantile(1) < 5


async def test_what_is_sent_again_or_in_arrays_is_counted() -> None:
    async with rpc_server() as server:
        seen: list[Any] = []

        async def second_time(conn: Any, message: Any) -> None:
            seen.append(message)
            if len(seen) == 1:
                conn.transport.abort()
            else:
                await server.reply(conn, message, "done")

        server.own["read"] = second_time
        batching = Batching(["echo"])
        async with connect(server.url, batching=batching, idempotent=["read"]) as rpc:
            assert await rpc.call("read") == "done"
            for _ in range(20):
                await asyncio.gather(*(rpc.call("echo", [n]) for n in range(20)))
            stats = rpc.stats()
        assert (stats.retried, stats.lost, stats.opened) == (1, 0, 2)
        assert stats.batched == sum(len(frame) for frame in server.frames if isinstance(frame, list)) > 0


async def test_what_belongs_to_nothing_is_counted() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        await rpc.call("echo")
        for text in ("no json", '{"id":99,"result":1}', server.event("0x7", "whose?")):
            await server.conns[0].send(text)
        await rpc.call("echo")
        stats = rpc.stats()
        assert (stats.malformed, stats.unsolicited, stats.notifications) == (1, 2, 0)


async def test_subscriptions_and_their_events_are_counted() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        async with rpc.subscribe("subscribe", max_events=2) as events:
            for number in range(3):
                await server.emit(number)
            await rpc.call("echo")
            assert await within(anext(events)) == 0
        await until(lambda: server.times("unsubscribe") == 1)
        stats = rpc.stats()
        assert (stats.events, stats.too_slow, stats.subscriptions, stats.connections) == (2, 1, 0, 1)


async def test_what_the_server_tells_without_a_subscription_goes_to_the_callback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Any] = []

    def on_notification(method: str, params: Any) -> None:
        told.append((method, params))
        if method == "bad":
            raise ZeroDivisionError

    async with rpc_server() as server, connect(server.url, on_notification=on_notification) as rpc:
        await rpc.call("echo")
        for message in ({"method": "bad"}, {"method": "news", "params": [1]}, {"method": "named", "params": {"a": 1}}):
            await server.conns[0].send(json.dumps(message))
        async with rpc.subscribe("subscribe"):
            await server.emit("an event")
            await rpc.call("echo")
        assert told == [("bad", None), ("news", [1]), ("named", {"a": 1})]
        assert rpc.stats().notifications == 3
    assert "ZeroDivisionError" in caplog.text


async def test_it_is_counted_without_a_callback_too() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        await rpc.call("echo")
        await server.conns[0].send('{"method":"news"}')
        await rpc.call("echo")
        assert rpc.stats().notifications == 1
