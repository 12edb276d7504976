"""Connections whose session outlives a break, in a pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import penstock
from penstock import ConnectionPool, ConnectionPoolConfig
from penstock.pool import care as care_module
from support.pools import until
from support.relay import Relay, relaying
from support.servers import port_of

pytestmark = pytest.mark.timeout(30)


@asynccontextmanager
async def pooling(**config: Any) -> AsyncIterator[tuple[ConnectionPool, str, Relay]]:
    """A pool of one connection to an echo server, through a relay."""

    async def echo(conn: Any) -> None:
        async for message in conn:
            await conn.send(message)

    async with (
        penstock.serve(echo, "127.0.0.1", 0) as server,
        relaying(port_of(server)) as relay,
        ConnectionPool(ConnectionPoolConfig(max_connections=1, min_connections=0, **config)) as pool,
    ):
        yield pool, f"ws://127.0.0.1:{relay.port}/", relay


async def test_an_idle_connection_that_lost_its_socket_is_never_lent() -> None:
    async with pooling() as (pool, url, relay):
        async with pool.get_connection(url) as conn:
            first = conn.id
        relay.cut()
        await until(lambda: pool.stats().size == 0)
        assert pool.stats().closed == {"detached": 1}
        async with asyncio.timeout(5), pool.get_connection(url) as conn:
            assert conn.id != first
            await conn.send("hello")
            assert await conn.recv() == "hello"


async def test_a_lent_connection_goes_on_over_a_break_and_is_lent_to_nobody_else() -> None:
    async with pooling() as (pool, url, relay):
        async with asyncio.timeout(10), pool.get_connection(url) as conn:
            first = conn.id
            await conn.send("before")
            relay.cut()
            await conn.send("after")
            assert [await conn.recv(), await conn.recv()] == ["before", "after"]
            assert pool.stats().in_use == 1
        async with asyncio.timeout(5), pool.get_connection(url) as conn:
            assert conn.id != first
        assert pool.stats().closed == {"detached": 1}


async def test_a_connection_returned_without_a_socket_is_gone_at_once() -> None:
    async with pooling() as (pool, url, relay):
        conn = await pool.get_connection(url)
        relay.is_refusing = True
        relay.cut()
        await until(lambda: conn.is_detached)
        conn.release()
        await until(lambda: pool.stats().size == 0, 2)


async def test_a_lent_connection_without_a_socket_is_not_asked_for_a_pong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)
    async with pooling(check_interval=0.02, pong_timeout=0.02) as (pool, url, relay):
        conn = await pool.get_connection(url)
        relay.is_refusing = True
        relay.cut()
        await until(lambda: conn.is_detached)
        await asyncio.sleep(0.3)
        assert conn.is_connected
        conn.release()
