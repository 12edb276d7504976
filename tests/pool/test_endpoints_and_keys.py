"""Where connections lead to, and who shares them."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from typing import Any

import pytest

from penstock import Connection, ConnectionFailed, ConnectionPool
from penstock.pool import care as care_module
from penstock.transport.base import CloseCode
from support.pools import URL, pooling, until

pytestmark = pytest.mark.timeout(30)

PLACES = {URL: {"ws://a": 2.0, "ws://b": 1.0}}


async def test_connections_are_spread_by_weight() -> None:
    async with pooling(endpoints=PLACES, random=random.Random(1).random) as (pool, servers):
        held = [await pool.get_connection(URL) for _ in range(6)]
        assert Counter(servers.urls) == {"ws://a": 4, "ws://b": 2}
        for conn in held:
            conn.release()
        held = [await pool.get_connection(URL) for _ in range(3)]
        assert Counter(conn._member.endpoint.url for conn in held) == {"ws://a": 2, "ws://b": 1}
        for conn in held:
            conn.release()


async def test_an_endpoint_that_fails_is_left_out_until_it_works_again() -> None:
    async with pooling(endpoints=PLACES, random=random.Random(1).random) as (pool, servers):
        down = True
        opens = servers.connect

        async def connect(url: str, **options: Any) -> Connection:
            conn = await opens(url, **options)
            if url == "ws://a" and down:
                conn.abort()
                raise ConnectionRefusedError("a is down")
            return conn

        pool._opener._connect = connect
        failures = 0
        held = []
        while len(held) < 6:
            try:
                held.append(await pool.get_connection(URL))
            except ConnectionFailed:
                failures += 1
        assert failures == 0, "the other works"
        assert {conn._member.endpoint.url for conn in held} == {"ws://b"}
        down = False
        await asyncio.sleep(1.1)  # the longest that it is left alone at first
        held.append(await pool.get_connection(URL))
        assert held[-1]._member.endpoint.url == "ws://a"
        for conn in held:
            conn.release()


async def test_only_if_all_endpoints_fail_a_caller_is_told() -> None:
    async with pooling(endpoints=PLACES) as (pool, servers):
        servers.failures = [OSError("a is down"), OSError("b is down")]
        with pytest.raises(ConnectionFailed, match="is down"):
            await pool.get_connection(URL, timeout=1)
        assert sorted(servers.urls) == ["ws://a", "ws://b"]
        assert all(one.open == one.attempts == 0 for one in pool._opener.endpoints(URL))
        assert pool.stats().failed == 1


async def test_one_attempt_at_a_time_goes_to_an_endpoint_that_failed_last() -> None:
    async with pooling(endpoints=PLACES, max_connections=20) as (pool, servers):
        opens = servers.connect
        hanging = 0

        async def connect(url: str, **options: Any) -> Connection:
            nonlocal hanging
            if url == "ws://a":
                hanging += 1
                await asyncio.Event().wait()
            return await opens(url, **options)

        for one in pool._opener.endpoints(URL):
            if one.url == "ws://a":
                one.breaker.failed(asyncio.get_running_loop().time(), OSError("it was down"))
        await asyncio.sleep(0.01)
        pool._opener._connect = connect
        asking = [asyncio.create_task(pool.get_connection(URL).__aenter__()) for _ in range(6)]
        await until(lambda: sum(task.done() for task in asking) >= 5, 2)
        assert hanging == 1
        for task in asking:
            task.cancel()
        for task in asking:
            if not task.cancelled() and task.done():
                task.result().release()
        await asyncio.wait(asking)


async def test_an_endpoint_has_no_more_connections_once_they_are_closed() -> None:
    async with pooling(endpoints=PLACES) as (pool, servers):
        held = [await pool.get_connection(URL) for _ in range(6)]
        assert sum(one.open for one in pool._opener.endpoints(URL)) == 6
        for conn in held[:3]:
            conn.discard()
        servers.ends[5].transport.abort()
        for conn in held[3:]:
            conn.release()
        await until(lambda: pool.stats().size == 2)
        members = [member for slots in pool._state.keys.values() for member in slots.members]
        for one in pool._opener.endpoints(URL):
            assert one.open == sum(member.endpoint is one for member in members)


@pytest.mark.parametrize("endpoints", [{URL: {}}, {URL: {"http://a": 1}}, {URL: {"ws://a": 0}}, {URL: ["ws://a:b"]}])
def test_endpoints_that_are_none_are_refused(endpoints: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        ConnectionPool(endpoints=endpoints)


async def test_callers_who_say_other_things_to_the_server_do_not_share_connections() -> None:
    context = ssl.create_default_context()
    ways: list[dict[str, Any]] = [
        {},
        {"additional_headers": {"Authorization": "Bearer a"}},
        {"additional_headers": {"Authorization": "Bearer b"}},
        {"subprotocols": ["chat"]},
        {"ssl": context},
    ]
    async with pooling() as (pool, servers):
        for _ in range(2):
            for way in ways:
                async with pool.get_connection(URL, **way):
                    pass
        assert servers.attempts == len(ways)
        assert servers.asked[1] == {"additional_headers": [("authorization", "Bearer a")]}
        assert servers.asked[3:] == [{"subprotocols": ["chat"]}, {"ssl": context}]
        async with pool.get_connection(URL, additional_headers=[("AUTHORIZATION", "Bearer a")]):
            assert servers.attempts == len(ways)
        await pool.drain(URL)
        await until(lambda: pool.stats().size == 0)


@pytest.mark.parametrize(
    ("code", "least"), [(CloseCode.POLICY_VIOLATION, 2.5), (CloseCode.TRY_AGAIN_LATER, 0.3), (1000, 0)]
)
async def test_a_peer_that_asks_to_be_left_alone_is(code: int, least: float) -> None:
    async with pooling(random=lambda: 0.4) as (pool, servers):
        conn = await pool.get_connection(URL)
        await servers.ends[0].close(code)
        await until(lambda: not conn.is_connected)
        now = asyncio.get_running_loop().time()
        delay = pool._opener.endpoints(URL)[0].breaker.delay(now)
        assert least <= delay <= least * 2, "though the borrower still has the connection"
        conn.release()


async def test_connections_with_headers_are_not_kept_for_the_tokens_in_them_age(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)
    async with pooling(min_connections=2, max_idle_time=0.05) as (pool, servers):
        async with pool.get_connection(URL, additional_headers={"Authorization": "old"}):
            pass
        async with pool.get_connection(URL, subprotocols=["chat"]):
            pass
        await until(lambda: pool.stats().closed == {"idle": 1} and pool.stats().idle == 2)
        assert len([options for options in servers.asked if "subprotocols" in options]) == 2
        assert len([options for options in servers.asked if "additional_headers" in options]) == 1


async def test_urls_that_nobody_uses_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)
    async with pooling(max_idle_time=0.02) as (pool, servers):
        servers.failures = [OSError("down")]
        with pytest.raises(ConnectionFailed):
            await pool.get_connection("ws://host/down")
        for number in range(20):
            (await pool.get_connection(f"ws://host/{number}")).release()
        await until(lambda: pool.stats().size == 0)
        opener = pool._opener
        await until(lambda: list(opener._breakers) == [("ws://host/down", "ws://host/down")])
        assert not opener._endpoints
        assert not pool._state.keys
        opener.prune(asyncio.get_running_loop().time() + 100)
        assert not opener._breakers
        assert not opener._hosts


async def test_connections_to_one_host_are_opened_no_faster_than_allowed() -> None:
    async with pooling(max_connections=30, connect_rate=100, max_connecting=4) as (pool, servers):
        loop = asyncio.get_running_loop()
        began = loop.time()
        held = await asyncio.gather(*(pool.get_connection(f"ws://host/{n}").__aenter__() for n in range(24)))
        assert servers.attempts == 24
        assert loop.time() - began >= (24 - 4) / 100 - 0.01
        for conn in held:
            conn.release()
