"""The end of a pool: in order, in a hurry, in the wrong place, and in a child process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from penstock import (
    Connection,
    ConnectionFailed,
    ConnectionPool,
    ConnectionPoolConfig,
    PoolClosed,
    PooledConnection,
    WrongLoop,
)
from support.pools import URL, Servers, pooling, steps, until
from support.servers import serving, url_of

pytestmark = pytest.mark.timeout(30)


def now() -> float:
    return asyncio.get_running_loop().time()


def closed(servers: Servers) -> bool:
    return all(end.state.name == "CLOSED" for end in servers.ends)


async def emptied(pool: ConnectionPool) -> None:
    """Let the pool have had a connection, and have none."""
    (await pool.get_connection(URL)).discard()
    await until(lambda: pool.stats().size == 0)


async def test_closing_waits_for_what_is_lent_though_the_pool_was_empty_once() -> None:
    async with pooling() as (pool, servers):
        await emptied(pool)
        lent = await pool.get_connection(URL)
        closing = asyncio.create_task(pool.close(5))
        await asyncio.sleep(0.05)
        assert not closing.done()
        await lent.send("still here")
        assert await servers.ends[-1].recv() == "still here"
        lent.release()
        async with asyncio.timeout(1):
            await closing


@pytest.mark.parametrize("timeout", [0, 5])
async def test_idle_connections_are_gone_when_the_pool_is_closed_though_it_was_empty_once(timeout: float) -> None:
    async with pooling() as (pool, servers):
        await emptied(pool)
        (await pool.get_connection(URL)).release()
        await pool.close(timeout)
        assert pool.stats().size == 0
        assert pool.stats().closed == {"discarded": 1, "close": 1}
        await until(lambda: closed(servers), 0.15)
        assert servers.ends[-1].close_code == 1000 or timeout == 0


async def test_closing_gives_up_at_once_what_is_being_opened() -> None:
    async with pooling(max_connections=3) as (pool, servers):
        servers.gate.clear()
        lost = [asyncio.create_task(pool.get_connection(URL).__aenter__()) for _ in range(2)]
        await until(lambda: servers.attempts == 2)
        lost.pop().cancel()
        began = now()
        closing = asyncio.create_task(pool.close(5))
        with pytest.raises(PoolClosed):
            await lost[0]
        await closing
        assert now() - began < 0.1
        assert pool.stats().size == 0


async def test_what_opens_in_the_moment_of_closing_is_closed() -> None:
    ready = asyncio.Event()

    async def stubborn(url: str, **options: Any) -> Connection:
        try:
            await ready.wait()
        except asyncio.CancelledError:
            ready.set()
        return await servers.connect(url, **options)

    async with pooling() as (pool, servers):
        pool._opener._connect = stubborn
        waiting = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await steps()
        began = now()
        await pool.close(5)
        assert now() - began < 0.5
        with pytest.raises(PoolClosed):
            await waiting
        assert pool.stats().size == 0
        assert pool.stats().closed in ({"close": 1}, {})
        await until(lambda: closed(servers))


async def test_case_20_the_peer_sees_the_end_when_the_time_is_over_though_it_never_answers() -> None:
    async with pooling() as (pool, servers):
        servers.options = type(servers.options)(ping_interval=None, close_timeout=30)
        lent, kept = await pool.get_connection(URL), await pool.get_connection(URL)
        for end in servers.ends:
            end.transport.pause_reading()
        lent.discard()
        await asyncio.sleep(0.05)
        began = now()
        await pool.close(0.2)
        assert 0.2 <= now() - began < 0.35
        assert pool.stats().size == 1
        for end in servers.ends:
            end.transport.resume_reading()
        await until(lambda: closed(servers), 0.2)
        kept.release()
        await until(lambda: pool.stats().size == 0)


async def test_a_hook_that_hangs_is_ended_with_the_pool_and_nothing_is_left() -> None:
    async def hang(conn: PooledConnection) -> None:
        await asyncio.Event().wait()

    async with pooling(on_release=hang) as (pool, servers):
        (await pool.get_connection(URL)).release()
        await pool.close(0.05)
        assert pool.stats().size == 0
        await until(lambda: closed(servers))


async def test_a_hook_that_closes_the_pool_does_not_hang() -> None:
    async def close(conn: PooledConnection) -> None:
        await pool.close(0.05)

    async with pooling(on_release=close) as (pool, servers):
        (await pool.get_connection(URL)).release()
        await until(lambda: pool.stats().size == 0, 1)
        await until(lambda: closed(servers))


@pytest.mark.parametrize("at", range(6))
async def test_cancelling_the_pools_own_tasks_loses_no_slot(at: int) -> None:
    async with pooling(max_connections=1) as (pool, servers):
        waiting = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await steps(at)
        opening = list(pool._actions._opening) if at else []
        for task in opening:
            task.cancel()
        await asyncio.wait([waiting], timeout=1)
        if waiting.exception() is None:
            waiting.result().discard()
            for task in list(pool._actions._closing):
                task.cancel()
        else:
            assert isinstance(waiting.exception(), ConnectionFailed)
        await until(lambda: pool.stats().size == 0)
        assert pool._opener.endpoints(URL)[0].open == 0
        await until(lambda: closed(servers))


# In the wrong place

OTHERS: list[Callable[[ConnectionPool], Awaitable[Any]]] = [
    lambda pool: pool.close(0.1),
    lambda pool: pool.drain(),
    lambda pool: pool.warm_up(URL),
    lambda pool: pool.get_connection(URL),
    lambda pool: asyncio.to_thread(pool.resize, 3),
]


@pytest.mark.parametrize("use", OTHERS)
async def test_case_25_used_in_another_thread_a_pool_says_so_and_goes_on(
    use: Callable[[ConnectionPool], Awaitable[Any]],
) -> None:
    async def there() -> None:
        await use(pool)

    async with pooling(min_connections=1) as (pool, _):
        (await pool.get_connection(URL)).release()
        with pytest.raises(WrongLoop, match=r"this pool belongs to another event loop or thread.*fork"):
            await asyncio.to_thread(asyncio.run, there())
        assert pool.stats().idle == 1
        assert pool.stats().closed == {}
        async with pool.get_connection(URL, timeout=0) as conn:
            assert conn.is_connected


async def borrow_and_forget(pool: ConnectionPool, servers: Servers, *, keep: bool) -> PooledConnection:
    conn = await pool.get_connection(URL)
    if not keep:
        conn.release()
    servers.hang_up()
    return conn


@pytest.mark.parametrize("keep", [False, True])
def test_case_25_when_the_first_loop_has_ended_a_pool_can_only_be_closed(keep: bool) -> None:
    servers = Servers()
    pool = ConnectionPool(ConnectionPoolConfig(min_connections=0), connect=servers.connect)
    conn = asyncio.run(borrow_and_forget(pool, servers, keep=keep))

    async def again() -> None:
        for use in (pool.drain, lambda: pool.warm_up(URL)):
            with pytest.raises(WrongLoop):
                await use()
        await pool.close(5)
        conn.release()
        with pytest.raises(WrongLoop):
            await pool.get_connection(URL)

    asyncio.run(asyncio.wait_for(again(), 1))
    assert pool.stats().size == 0


# In a child process


def in_child(work: Callable[[], None]) -> None:
    """Do something in a child process; fail if it fails."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(42)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 42


def run_in_child(work: Callable[[], Awaitable[None]]) -> None:
    """The same, in a new event loop."""

    def start() -> None:
        asyncio.events._set_running_loop(None)
        asyncio.run(work())  # type: ignore[arg-type]

    in_child(start)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_case_25_a_child_process_is_told_and_does_not_disturb_its_parent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with pooling(max_connections=2) as (pool, servers):
        lent, other = await pool.get_connection(URL), await pool.get_connection(URL)
        await other.send("used")
        parents = asyncio.all_tasks()

        async def child() -> None:
            for use in (pool.drain, lambda: pool.warm_up(URL), lambda: pool.get_connection(URL).__aenter__()):
                with pytest.raises(WrongLoop):
                    await use()
            for returns in (lambda: pool.resize(1), lent.release, lent.discard):
                with pytest.raises(WrongLoop):
                    returns()
            assert lent.is_connected
            await other.__aexit__(ValueError, ValueError(), None)
            pool.collected(lent._member, 0)
            await pool.close(5)
            assert asyncio.all_tasks(pool._loop) == parents, "nothing was begun that would never end"
            assert not caplog.records
            assert pool.stats().size == 0
            assert lent.is_connected

        run_in_child(child)
        assert len(servers.ends) == 2
        for conn in (lent, other):
            await conn.send("as before")
            conn.release()
        assert pool.stats().idle == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
async def test_case_25_closing_in_a_child_leaves_the_sockets_of_the_parent_alone() -> None:
    async with (
        serving() as server,
        ConnectionPool() as pool,
        pool.get_connection(url_of(server)) as conn,
        asyncio.timeout(5),
    ):
        run_in_child(lambda: pool.close(0.2))
        await conn.send("parent")
        assert await conn.recv() == "parent"
