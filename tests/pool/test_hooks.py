"""What an application has to say when connections are opened and returned."""

from __future__ import annotations

import asyncio

import pytest

from penstock import ConnectionDenied, ConnectionFailed, LeaseReturned, PooledConnection
from penstock.pool import care as care_module
from support.pools import URL, pooling, until

pytestmark = pytest.mark.timeout(30)


async def test_each_connection_is_prepared_once_before_it_is_lent() -> None:
    prepared: list[PooledConnection] = []

    async def log_in(conn: PooledConnection) -> None:
        assert conn.url == URL
        await conn.send("secret")
        prepared.append(conn)

    async with pooling(on_connect=log_in) as (pool, servers):
        for _ in range(3):
            async with pool.get_connection(URL) as conn:
                await conn.send("hello")
        assert len(prepared) == 1
        assert [await servers.ends[0].recv() for _ in range(4)] == ["secret", "hello", "hello", "hello"]
        with pytest.raises(LeaseReturned):
            prepared[0].send("too late")


async def test_a_connection_that_cannot_be_prepared_is_closed_and_the_caller_told() -> None:
    refusals = [PermissionError("wrong password")]

    async def log_in(conn: PooledConnection) -> None:
        if refusals:
            raise refusals.pop()

    async with pooling(max_connections=1, on_connect=log_in) as (pool, servers):
        with pytest.raises(ConnectionFailed, match="wrong password") as caught:
            await pool.get_connection(URL)
        assert isinstance(caught.value.__cause__, PermissionError)
        await until(lambda: servers.ends[0].state.name == "CLOSED")
        assert pool.stats().size == 0
        async with pool.get_connection(URL) as conn:
            assert conn.is_connected


async def test_a_hook_says_that_it_is_no_use_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)

    async def log_in(conn: PooledConnection) -> None:
        raise ConnectionDenied(conn.url, "wrong password")

    async with pooling(min_connections=2, on_connect=log_in) as (pool, servers):
        borrowing = [asyncio.create_task(pool.get_connection(URL).__aenter__()) for _ in range(3)]
        for refused in await asyncio.gather(*borrowing, return_exceptions=True):
            assert isinstance(refused, ConnectionDenied)
            assert str(refused) == f"cannot connect to {URL}: wrong password"
        attempts = servers.attempts
        await asyncio.sleep(0.3)
        assert servers.attempts == attempts <= 3


async def test_what_a_hook_leaves_unread_reaches_no_borrower() -> None:
    async def subscribe(conn: PooledConnection) -> None:
        for message in ("subscribed", "news"):
            await servers.ends[-1].send(message)
        assert await conn.recv() == "subscribed"
        await until(lambda: conn.unread)

    async with pooling(on_connect=subscribe) as (pool, servers), pool.get_connection(URL) as conn:
        await servers.ends[-1].send("answer")
        assert await conn.recv() == "answer"
        assert pool.stats().dropped_messages == 1


async def test_a_hook_that_discards_the_connection_refuses_it() -> None:
    async def look(conn: PooledConnection) -> None:
        conn.discard("old version")

    async with pooling(on_connect=look) as (pool, _):
        with pytest.raises(ConnectionFailed, match="old version"):
            await pool.get_connection(URL)


async def test_a_hook_that_hangs_is_ended_with_the_connect() -> None:
    async def hang(conn: PooledConnection) -> None:
        await conn.recv()

    async with pooling(on_connect=hang, connect_timeout=0.05) as (pool, servers):
        with pytest.raises(ConnectionFailed, match=r"connect_timeout=0\.05 s"):
            await pool.get_connection(URL)
        await until(lambda: servers.ends[0].state.name == "CLOSED")


async def test_a_returned_connection_is_tidied_up_before_it_is_lent_again() -> None:
    async def tidy_up(conn: PooledConnection) -> None:
        await conn.send("unsubscribe")
        assert await conn.recv() == "done"

    async with pooling(max_connections=1, on_release=tidy_up) as (pool, servers):
        (await pool.get_connection(URL)).release()
        waiting = asyncio.create_task(pool.get_connection(URL).__aenter__())
        assert await servers.ends[0].recv() == "unsubscribe"
        assert not waiting.done()
        assert pool.stats().in_use == 1
        await servers.ends[0].send("done")
        async with asyncio.timeout(5):
            conn = await waiting
        conn.discard()
        assert servers.attempts == 1


@pytest.mark.parametrize("shared", [False, True])
async def test_a_connection_that_cannot_be_tidied_up_is_closed_and_its_slot_free(
    shared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(conn: PooledConnection) -> None:
        raise ValueError("torn")

    async with pooling(max_connections=1, on_release=fail) as (pool, servers):
        for _ in range(3):
            async with asyncio.timeout(5), pool.get_connection(URL, shared=shared):
                pass
        await until(lambda: pool.stats().size == 0)
        assert servers.attempts == 3
        assert pool.stats().closed == {"hook": 3}
    assert "torn" in caplog.text


async def test_case_24_subscribing_again_many_times_leaves_one_subscription_each() -> None:
    topics = ["heads", "logs"]

    async def subscribe(conn: PooledConnection) -> None:
        for topic in topics:
            await conn.send(f"subscribe {topic}")

    async with pooling(max_connections=1, min_connections=1, on_connect=subscribe) as (pool, servers):
        for number in range(1, 6):
            async with pool.get_connection(URL) as conn:
                await conn.send("ready")
            received = [await servers.ends[-1].recv() for _ in range(3)]
            assert received == ["subscribe heads", "subscribe logs", "ready"]
            assert servers.attempts == number
            servers.hang_up()
            await until(lambda: pool.stats().size == 0)


async def test_a_hook_that_ends_in_a_cancelling_of_its_own_is_a_failed_connect() -> None:
    async def cancel_itself(conn: PooledConnection) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with pooling(on_connect=cancel_itself) as (pool, servers):
        with pytest.raises(ConnectionFailed, match="cancelled") as caught:
            await pool.get_connection(URL, timeout=1)
        assert isinstance(caught.value.__cause__, asyncio.CancelledError)
        assert (pool.stats().failed, pool.stats().errors) == (1, 1)
        await until(lambda: servers.ends[0].state.name == "CLOSED")
        for _ in range(4):
            with pytest.raises(ConnectionFailed):
                await pool.get_connection(URL)
        assert servers.attempts == 5
        with pytest.raises(ConnectionFailed, match="to be tried again"):
            await pool.get_connection(URL)


async def test_tidying_up_that_hangs_is_ended_in_time(caplog: pytest.LogCaptureFixture) -> None:
    async def hang(conn: PooledConnection) -> None:
        await asyncio.Event().wait()

    async with pooling(max_connections=1, on_release=hang, connect_timeout=0.05) as (pool, servers):
        (await pool.get_connection(URL)).release()
        await until(lambda: pool.stats().closed == {"hook": 1}, 1)
        await until(lambda: pool.stats().size == 0, 1)
        await until(lambda: servers.ends[0].state.name == "CLOSED")
    assert "on_release failed" in caplog.text
    assert "TimeoutError" in caplog.text
