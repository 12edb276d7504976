"""Connections that take the place of others: of one that turns out to be gone, and of one that grows old."""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from typing import Any

import pytest

from penstock import Connection, ConnectionFailed, ConnectionPool
from penstock.errors import LeaseReturned
from penstock.pool import care as care_module
from penstock.pool.lease import PooledConnection
from penstock.transport.base import ConnectionClosed
from support.pools import URL, Servers, pooling, steps, until

pytestmark = pytest.mark.timeout(30)


async def reused(pool: ConnectionPool, **how: Any) -> PooledConnection:
    """A connection that was lent before."""
    (await pool.get_connection(URL)).release()
    return await pool.get_connection(URL, **how)


async def lose(conn: PooledConnection, servers: Servers) -> None:
    """Let the server drop all connections, and wait until the borrower's is seen to be gone."""
    servers.hang_up()
    await until(lambda: not conn.is_connected)


async def born_dead(pool: ConnectionPool, servers: Servers) -> None:
    """Let the connections that are opened from now on be gone before anybody has them."""
    opens = servers.connect

    async def connect(url: str, **options: Any) -> Connection:
        client = await opens(url, **options)
        servers.hang_up()
        await client.wait_closed()
        return client

    pool._opener._connect = connect


# What turns out to be gone


@pytest.mark.parametrize("message", ["x", b"x", bytearray(b"x"), memoryview(b"x")])
@pytest.mark.parametrize("max_connections", [1, 3])
async def test_case_18_a_reused_connection_that_fails_on_first_send_is_replaced_once(
    message: Any, max_connections: int
) -> None:
    async with pooling(max_connections=max_connections) as (pool, servers):
        conn = await reused(pool)
        assert (servers.attempts, conn.request_count) == (1, 2)
        await lose(conn, servers)
        await conn.send(message)
        assert conn.is_connected
        assert conn.request_count == 1
        assert await servers.ends[1].recv() == (message if isinstance(message, str) else b"x")
        assert pool.stats().replaced == 1
        assert pool.stats().in_use == 1
        assert servers.attempts == 2
        await servers.ends[1].send("answer")
        assert await conn.recv() == "answer"
        conn.release()
        assert pool.stats().idle == 1
        assert pool.stats().closed == {"replaced": 1}


async def test_an_idle_connection_takes_the_place_if_there_is_one() -> None:
    async with pooling(max_connections=2) as (pool, servers):
        first, second = [await pool.get_connection(URL) for _ in range(2)]
        first.release()
        conn = await pool.get_connection(URL)
        second.release()
        servers.ends[0].transport.abort()
        await until(lambda: not conn.is_connected)
        await conn.send("x")
        assert await servers.ends[1].recv() == "x"
        assert servers.attempts == 2
        assert pool.stats().replaced == 1
        conn.release()


async def test_a_second_failure_of_the_first_send_is_told() -> None:
    async with pooling() as (pool, servers):
        conn = await reused(pool)
        await lose(conn, servers)
        await born_dead(pool, servers)
        with pytest.raises(ConnectionClosed):
            await conn.send("x")
        assert pool.stats().replaced == 1
        conn.release()
        await until(lambda: pool.stats().size == 0)


async def test_the_replacement_is_not_replaced_again() -> None:
    async with pooling() as (pool, servers):
        conn = await reused(pool)
        await lose(conn, servers)
        await conn.send("x")
        await lose(conn, servers)
        with pytest.raises(ConnectionClosed):
            await conn.send("y")
        assert pool.stats().replaced == 1
        assert servers.attempts == 2
        conn.release()


async def test_the_replacement_is_not_replaced_again_though_it_was_lent_before() -> None:
    async with pooling(max_connections=2) as (pool, servers):
        first, second = [await pool.get_connection(URL) for _ in range(2)]
        first.release()
        conn = await pool.get_connection(URL)
        second.release()
        servers.ends[0].transport.abort()
        await until(lambda: not conn.is_connected)
        await conn.send("x")
        assert conn.request_count == 2
        await lose(conn, servers)
        with pytest.raises(ConnectionClosed):
            await conn.send("y")
        assert pool.stats().replaced == 1
        conn.release()


async def test_a_new_connection_is_not_replaced() -> None:
    async with pooling() as (pool, servers):
        conn = await pool.get_connection(URL)
        await lose(conn, servers)
        with pytest.raises(ConnectionClosed):
            await conn.send("x")
        assert pool.stats().replaced == 0
        conn.release()


async def not_replaced(pool: ConnectionPool, servers: Servers, conn: PooledConnection) -> None:
    """The connection breaks; the next send says so."""
    await lose(conn, servers)
    with pytest.raises(ConnectionClosed):
        await conn.send("second")
    assert (pool.stats().replaced, servers.attempts) == (0, 1)
    conn.release()


@pytest.mark.parametrize("several", [False, True])
async def test_nothing_is_replaced_once_something_was_sent(several: bool) -> None:
    async with pooling() as (pool, servers):
        conn = await reused(pool)
        await (conn.send_many(["first"]) if several else conn.send("first"))
        await not_replaced(pool, servers, conn)


@pytest.mark.parametrize("receive", ["recv", "recv_many", "__aiter__", "recv_streaming"])
async def test_nothing_is_replaced_once_something_was_received(receive: str) -> None:
    async with pooling() as (pool, servers):
        conn = await reused(pool)
        await servers.ends[0].send("state that belongs to this connection")
        got = getattr(conn, receive)()
        await (anext(got) if hasattr(got, "__anext__") else got)
        await not_replaced(pool, servers, conn)


async def test_fragments_are_not_sent_again() -> None:
    async with pooling() as (pool, servers):
        conn = await reused(pool)
        await lose(conn, servers)
        parts = iter(["a", "b"])
        with pytest.raises(ConnectionClosed):
            await conn.send(parts)
        assert (pool.stats().replaced, servers.attempts) == (0, 1)
        conn.release()


async def test_a_shared_connection_is_not_replaced() -> None:
    async with pooling() as (pool, servers):
        conn = await reused(pool, shared=True)
        await lose(conn, servers)
        with pytest.raises(ConnectionClosed):
            await conn.send("x")
        assert (pool.stats().replaced, servers.attempts) == (0, 1)
        conn.release()


async def test_a_message_that_cannot_be_sent_replaces_nothing() -> None:
    async with pooling() as (pool, servers):
        conn = await reused(pool)
        with pytest.raises(TypeError):
            await conn.send(1)  # type: ignore[arg-type]
        assert (pool.stats().replaced, servers.attempts) == (0, 1)
        assert conn.is_connected
        conn.release()


async def test_no_slot_is_lost_if_there_is_no_replacement() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        conn = await reused(pool)
        await lose(conn, servers)
        servers.failures = [OSError("down")]
        with pytest.raises(ConnectionFailed, match="down"):
            await conn.send("x")
        with pytest.raises(LeaseReturned):
            await conn.send("x")
        conn.release()
        await until(lambda: pool.stats().size == 0)
        async with pool.get_connection(URL) as other:
            assert other.is_connected


async def test_no_slot_is_lost_if_the_borrower_gives_up_meanwhile() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        for waits in range(8):
            conn = await reused(pool)
            await lose(conn, servers)
            servers.gate.clear()
            task = asyncio.create_task(conn.send("x"))
            await steps(waits)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            conn.release()
            servers.gate.set()
            await until(lambda: pool.stats().in_use == pool.stats().connecting == pool.stats().closing == 0)
            assert pool.stats().size <= 1


async def test_a_first_send_that_begins_after_the_return_sends_nothing() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        async with pool.get_connection(URL) as conn:
            late = asyncio.create_task(conn.send("late"))
        async with pool.get_connection(URL) as other:
            with pytest.raises(LeaseReturned):
                await late
            await other.send("mine")
            assert await servers.ends[0].recv() == "mine"
        assert pool.stats().idle == 1


async def test_a_first_send_that_fails_after_the_return_leaves_the_next_borrower_alone() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        conn = await reused(pool)
        late = conn.send("late")
        conn.release()
        other = await pool.get_connection(URL)
        await lose(other, servers)
        with pytest.raises(LeaseReturned):
            await late
        assert not conn.is_connected
        other.release()
        await until(lambda: pool.stats().size == 0)
        async with pool.get_connection(URL, timeout=1) as another:
            assert another.is_connected


async def fill(conn: Connection) -> None:
    """Send until the connection takes no more, and beyond."""
    while True:
        await conn.send(b"x" * 100_000)


async def test_a_first_send_under_way_that_fails_after_the_return_gives_nothing_back_twice() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        conn = await reused(pool)
        servers.ends[0].transport.pause_reading()
        filling = asyncio.create_task(fill(conn._connection))
        await until(lambda: conn.outbox.busy)
        late = asyncio.create_task(conn.send(b"late"))
        await steps()
        conn.release()
        servers.hang_up()
        for task in (filling, late):
            with pytest.raises(ConnectionClosed):
                await task
        await until(lambda: pool.stats().size == 0)
        assert pool.stats().replaced == 0
        assert pool.stats().closed == {"dirty": 1}


END: list[Any] = [
    lambda conn: conn.release(),
    lambda conn: conn.discard(),
    lambda conn: conn.__aexit__(None, None, None).send(None),
]


@pytest.mark.parametrize("end", END)
@pytest.mark.parametrize("again", [False, True])
async def test_a_loan_that_ends_while_it_is_replaced_keeps_nothing(end: Any, again: bool) -> None:
    async with pooling(max_connections=2) as (pool, servers):
        conn = await reused(pool)
        await lose(conn, servers)
        servers.gate.clear()
        sending = asyncio.create_task(conn.send("x"))
        await until(lambda: servers.attempts == 2)
        assert "being replaced" in repr(conn)
        assert not conn.is_connected
        with contextlib.suppress(StopIteration):
            end(conn)
        assert "returned" in repr(conn)
        borrowing = asyncio.create_task(conn.__aenter__()) if again else None
        await steps()
        servers.gate.set()
        with pytest.raises(LeaseReturned):
            await sending
        if borrowing is not None:
            assert (await borrowing).is_connected
            assert pool.stats().in_use == 1
            conn.release()
        conn.release()
        assert pool.stats().in_use == 0
        assert not any(one.unread for one in servers.ends[1:]), "sent by nobody"
        assert pool.stats().idle >= 1


# What grows old

LIFETIME = 2.0


@pytest.fixture
def quick_care(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)


@pytest.mark.usefixtures("quick_care")
@pytest.mark.parametrize("held", [True, False])
async def test_a_replacement_is_open_before_the_lifetime_ends(held: bool) -> None:
    now = asyncio.get_running_loop().time
    async with pooling(max_lifetime=LIFETIME, max_connections=2, min_connections=1) as (pool, servers):
        conn = await pool.get_connection(URL)
        ends = conn.created_at + LIFETIME
        if not held:
            conn.release()
        await until(lambda: servers.attempts == 2)
        assert ends - LIFETIME * 0.06 < now() < ends, "not long before"
        assert pool.stats().idle == 2 - held
        while now() < ends + 0.2:
            async with pool.get_connection(URL, timeout=0) as another:
                assert another.is_connected
            assert pool.stats().size <= 2
            await asyncio.sleep(0.01)
        if held:
            await conn.send("the old one goes on for who has it")
            assert await servers.ends[0].recv() == "the old one goes on for who has it"
            conn.release()
            async with pool.get_connection(URL, timeout=0) as another:
                assert another.created_at > ends - LIFETIME
        await until(lambda: pool.stats().closed == {"lifetime": 1})
        await until(lambda: pool.stats().size == 1)
        assert servers.attempts == 2


@pytest.mark.usefixtures("quick_care")
async def test_what_lives_for_ever_is_not_replaced() -> None:
    async with pooling(max_lifetime=inf) as (pool, servers):
        async with pool.get_connection(URL), pool.get_connection(URL):
            await asyncio.sleep(0.05)
        assert servers.attempts == 2


@pytest.mark.usefixtures("quick_care")
@pytest.mark.parametrize("max_connections", [1, 3])
async def test_there_are_never_more_than_the_bound_though_all_grow_old_at_once(max_connections: int) -> None:
    now = asyncio.get_running_loop().time
    async with pooling(max_lifetime=LIFETIME / 2, max_connections=max_connections, min_connections=max_connections) as (
        pool,
        servers,
    ):
        conns = [await pool.get_connection(URL) for _ in range(max_connections)]
        ends = now() + LIFETIME / 2
        while now() < ends + 0.3:
            assert pool.stats().size <= max_connections
            await asyncio.sleep(0.005)
        assert servers.attempts == max_connections
        for conn in conns:
            assert conn.is_connected
            conn.release()
        while now() < ends + 0.6:
            assert pool.stats().size <= max_connections
            await asyncio.sleep(0.005)
        assert pool.stats().closed == {"lifetime": max_connections}
        assert pool.stats().idle == max_connections
        assert servers.attempts == 2 * max_connections
