"""Loans that have sent: what sends for them dies with them, whoever has kept it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from penstock import Connection
from penstock.errors import LeaseReturned
from penstock.pool.lease import PooledConnection
from penstock.pool.swift import sender_of
from support.pipes import ledger, piped
from support.pools import URL, free, pooling, until

pytestmark = pytest.mark.timeout(30)

ENDS: list[Any] = [lambda conn: conn.release(), lambda conn: conn.discard()]


@pytest.mark.parametrize("end", ENDS, ids=["release", "discard"])
@pytest.mark.parametrize("message", ["x", b"x", bytearray(b"x"), ["x", "y"]])
async def test_a_send_that_was_kept_sends_nothing_after_the_return(end: Any, message: Any) -> None:
    async with pooling() as (pool, servers):
        conn = await pool.get_connection(URL)
        before = conn.send
        await conn.send("first")
        after = conn.send
        await after("second")
        end(conn)
        for kept in (before, after):
            with pytest.raises(LeaseReturned):
                await kept(message)
        with pytest.raises(LeaseReturned):
            conn.send(message)
        assert [await servers.ends[0].recv() for _ in range(2)] == ["first", "second"]
        assert not servers.ends[0].unread


@pytest.mark.parametrize("reliable", [False, None], ids=["plain", "reliable"])
async def test_a_send_that_was_kept_from_a_block_sends_nothing_after_it(reliable: bool | None) -> None:
    async with ledger(reliable=reliable) as book, piped() as pipe:
        async with pipe.connection(book.url) as conn:
            await conn.send("first")
            kept = conn.send
            assert sender_of(conn.connection) is not None, "or the loan is not swift"
            await kept("second")
        with pytest.raises(LeaseReturned):
            await kept("late")
        async with pipe.connection(book.url) as conn:
            await conn.send("third")
        await until(lambda: len(book.messages) == 3)
        assert book.messages == ["first", "second", "third"]
        assert len(book.connections) == 1


async def test_a_send_that_was_called_and_not_awaited_before_the_return_sends_nothing() -> None:
    async with pooling() as (pool, servers):
        conn = await pool.get_connection(URL)
        await conn.send("first")
        late = conn.send("late")
        conn.release()
        with pytest.raises(LeaseReturned):
            await late
        assert await servers.ends[0].recv() == "first"
        assert not servers.ends[0].unread


async def test_first_sends_at_the_same_time_leave_none_that_outlives_the_loan() -> None:
    async with pooling() as (pool, servers):
        conn = await pool.get_connection(URL)
        one, two = conn.send("one"), conn.send("two")
        await one
        kept = conn.send
        await two
        conn.release()
        with pytest.raises(LeaseReturned):
            await kept("late")
        assert [await servers.ends[0].recv() for _ in range(2)] == ["one", "two"]


async def test_a_loan_that_is_lent_again_replaces_its_connection_again() -> None:
    async with pooling(max_connections=1) as (pool, servers):
        conn = pool.get_connection(URL)
        for _ in range(2):
            async with conn:
                await conn.send("hello")
                await conn.send("swiftly")
        async with conn:
            servers.hang_up()
            await until(lambda: not conn.is_connected)
            await conn.send("first on another")
            await conn.send("second")
            assert [await servers.ends[1].recv() for _ in range(2)] == ["first on another", "second"]


async def test_a_block_that_sent_and_ends_with_an_exception_costs_the_connection() -> None:
    async def fail(conn: PooledConnection) -> None:
        async with conn:
            await conn.send("x")
            await conn.send("y")
            raise ZeroDivisionError

    async with pooling() as (pool, servers):
        with pytest.raises(ZeroDivisionError):
            await fail(pool.get_connection(URL))
        async with pool.get_connection(URL):
            assert servers.attempts == 2


async def test_a_loan_that_was_collected_sends_nothing_for_who_kept_its_send() -> None:
    async with pooling() as (pool, servers):
        conn = await pool.get_connection(URL)
        await conn.send("first")
        kept = conn.send
        del conn
        await until(lambda: free(pool))
        with pytest.raises(LeaseReturned):
            await kept("late")
        assert await servers.ends[0].recv() == "first"
        assert not servers.ends[0].unread


async def test_what_is_not_of_our_own_classes_is_asked_to_send_itself() -> None:
    sent: list[Any] = []

    class Noting(Connection):
        async def send(self, message: Any, *, text: bool | None = None) -> None:
            sent.append(message)
            await super().send(message, text=text)

    async with pooling() as (pool, servers):
        opens: Callable[..., Any] = servers.connect

        async def connect(url: str, **options: Any) -> Connection:
            client: Connection = await opens(url, **options)
            client.__class__ = Noting
            return client

        pool._opener._connect = connect
        conn: PooledConnection = await pool.get_connection(URL)
        for message in ("one", "two", "three"):
            await conn.send(message)
        conn.release()
        assert sent == ["one", "two", "three"]
