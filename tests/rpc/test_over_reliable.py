"""Calls over connections that are resumed: a cut is a delay, and nothing is lost, or done twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import partial
from typing import Any

import pytest

import penstock
from penstock import ConnectionPool, ConnectionPoolConfig, Rpc
from penstock.rpc import connect
from support.ends import start, within
from support.relay import Relay, relaying
from support.servers import port_of
from support.waiting import until

pytestmark = pytest.mark.timeout(30)


resumed = partial(penstock.connect, reliable=True)


class Ledger:
    """A server that notes each call before it answers, and tells of what is booked to who has subscribed."""

    def __init__(self) -> None:
        self.booked: Counter[int] = Counter()
        self.subscriber: Any = None

    async def handle(self, conn: Any) -> None:
        async for text in conn:
            message = json.loads(text)
            if message["method"] == "subscribe":
                self.subscriber = conn
                await conn.send(json.dumps({"id": message["id"], "result": "0x1"}))
                continue
            (number,) = message["params"]
            self.booked[number] += 1
            await conn.send(json.dumps({"id": message["id"], "result": number}))

    async def tell(self, number: int) -> None:
        params = {"subscription": "0x1", "result": number}
        await self.subscriber.send(json.dumps({"method": "event", "params": params}))


async def all_booked_once(rpc: Rpc, ledger: Ledger, between: Relay, *, number: int) -> None:
    tasks = [start(rpc.call("book", [n], timeout=20)) for n in range(number)]
    for _ in range(3):
        await asyncio.sleep(0.02)
        between.cut(hard=True)
    tasks += [start(rpc.call("book", [n], timeout=20)) for n in range(number, 2 * number)]
    between.cut()
    assert await within(asyncio.gather(*tasks), 20) == list(range(2 * number))
    assert ledger.booked == Counter(range(2 * number))


async def test_calls_over_one_connection_are_neither_lost_nor_repeated_by_cuts() -> None:
    ledger = Ledger()
    async with (
        penstock.serve(ledger.handle, "127.0.0.1", 0) as server,
        relaying(port_of(server)) as between,
        connect(between.url, reliable=True) as rpc,
    ):
        await all_booked_once(rpc, ledger, between, number=200)
        stats = rpc.stats()
        assert (stats.opened, stats.retried, stats.lost) == (1, 0, 0)
        assert between.accepted > 1


async def test_nor_over_a_pool_s() -> None:
    ledger = Ledger()
    async with (
        penstock.serve(ledger.handle, "127.0.0.1", 0) as server,
        relaying(port_of(server)) as between,
        ConnectionPool(ConnectionPoolConfig(min_connections=0), connect=resumed) as pool,
        Rpc(pool, between.url, connections=2) as rpc,
    ):
        await all_booked_once(rpc, ledger, between, number=200)
        assert rpc.stats().lost == 0


async def test_a_subscription_has_neither_a_gap_nor_doubles() -> None:
    ledger = Ledger()
    async with (
        penstock.serve(ledger.handle, "127.0.0.1", 0) as server,
        relaying(port_of(server)) as between,
        connect(between.url, reliable=True) as rpc,
        rpc.subscribe("subscribe") as events,
    ):
        for number in range(30):
            await ledger.tell(number)
            if number % 10 == 5:
                between.cut(hard=True)
        assert [await within(anext(events)) for _ in range(30)] == list(range(30))
        await until(lambda: between.accepted > 1)
        assert rpc.stats().gaps == 0
