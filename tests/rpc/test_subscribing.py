"""Subscriptions of a client, over connections that come and go."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from penstock import CallLost, ConsumerTooSlow, Gap, RpcClosed, RpcError, Subscription
from penstock.rpc import connect
from support.ends import start, within
from support.rpcserver import KINDS, rpc_server
from support.waiting import until

pytestmark = pytest.mark.timeout(30)


async def exhaust(events: Subscription) -> None:
    async for _ in events:
        pass


@pytest.mark.parametrize("kind", KINDS)
async def test_events_come_in_order_and_the_end_is_told_to_the_server(kind: str) -> None:
    async with rpc_server(kind) as server, connect(server.url) as rpc:
        async with rpc.subscribe("subscribe", ["heads"]) as events:
            for number in range(100):
                await server.emit(number)
            assert [await within(anext(events)) for _ in range(100)] == list(range(100))
        await until(lambda: not server.subs)
        assert [event async for event in events] == []


async def test_a_loop_that_is_left_ends_its_subscription() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:

        async def first() -> Any:
            async for event in rpc.subscribe("subscribe"):
                return event
            return None

        task = start(first())
        await until(lambda: len(server.subs) == 1)
        await server.emit("one")
        assert await within(task) == "one"
        del task
        gc.collect()
        await until(lambda: server.times("unsubscribe") == 1)


async def test_events_before_the_reply_are_kept() -> None:
    async with rpc_server() as server:

        async def early(conn: Any, message: Any) -> None:
            await conn.send(server.event("0x9", "early"))
            await server.reply(conn, message, "0x9")
            await conn.send(server.event("0x9", "later"))

        server.own["subscribe"] = early
        async with connect(server.url) as rpc, rpc.subscribe("subscribe") as events:
            assert [await within(anext(events)) for _ in range(2)] == ["early", "later"]


async def test_case_14_after_a_reconnect_it_goes_on_with_a_gap_and_no_doubles() -> None:
    async with rpc_server() as server, connect(server.url) as rpc, rpc.subscribe("subscribe") as events:
        await server.emit(1)
        assert await within(anext(events)) == 1
        server.hang_up()
        assert await within(anext(events)) == Gap("reconnected")
        await server.emit(2)
        assert await within(anext(events)) == 2
        assert len(server.subs) == 1


async def test_one_that_is_not_to_go_on_ends_with_its_connection() -> None:
    async with (
        rpc_server() as server,
        connect(server.url) as rpc,
        rpc.subscribe("subscribe", resume=False) as events,
    ):
        await server.emit(1)
        server.hang_up()
        with pytest.raises(CallLost):
            await within(exhaust(events))
        assert await rpc.call("echo", [1]) == [1]
        assert server.times("subscribe") == 1


async def test_case_15_a_stalled_consumer_is_ended_and_harms_nobody() -> None:
    async with (
        rpc_server() as server,
        connect(server.url) as rpc,
        rpc.subscribe("subscribe", max_events=5) as stalled,
    ):
        await rpc.call("echo")
        async with rpc.subscribe("subscribe") as quick:
            for number in range(20):
                await server.emit(number, to=0)
            await server.emit("quick", to=1)
            assert await within(anext(quick)) == "quick"
            assert await within(rpc.call("echo", [1]), 1) == [1]
            assert [await within(anext(stalled)) for _ in range(5)] == list(range(5))
            with pytest.raises(ConsumerTooSlow) as caught:
                await within(anext(stalled))
            assert (caught.value.method, caught.value.events) == ("subscribe", 5)
            await until(lambda: server.times("unsubscribe") == 1)


async def test_a_consumer_is_bounded_in_bytes_too() -> None:
    async with (
        rpc_server() as server,
        connect(server.url) as rpc,
        rpc.subscribe("subscribe", max_event_bytes=1000) as events,
    ):
        for _ in range(3):
            await server.emit("x" * 600)
        assert await within(anext(events)) == "x" * 600
        await rpc.call("echo")
        with pytest.raises(ConsumerTooSlow):
            await within(exhaust(events))


async def test_a_refusal_is_raised() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        with pytest.raises(RpcError):
            async with rpc.subscribe("fail", unsubscribe="unfail"):
                pass
        with pytest.raises(ValueError, match="unsubscribe="):
            rpc.subscribe("fail")


async def test_one_that_is_given_up_before_the_reply_is_ended_at_the_server() -> None:
    async with rpc_server() as server:
        gate = asyncio.Event()

        async def late(conn: Any, message: Any) -> None:
            await gate.wait()
            await server.reply(conn, message, "0x9")

        server.own["subscribe"] = late
        async with connect(server.url) as rpc:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), rpc.subscribe("subscribe"):
                    pass
            gate.set()
            await until(lambda: server.times("unsubscribe") == 1)
            assert server.asked[-1]["params"] == ["0x9"]


async def test_closing_the_client_ends_it() -> None:
    async with rpc_server() as server:
        async with connect(server.url) as rpc:
            events = rpc.subscribe("subscribe")
            task = start(anext(events))
            await until(lambda: len(server.subs) == 1)
        with pytest.raises(RpcClosed):
            await within(task)
