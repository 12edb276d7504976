"""What the pool does by itself: closes, opens, checks, and keeps quiet what nobody has borrowed."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

import penstock
from penstock import ConnectionFailed, ConnectionPool, ConnectionPoolConfig, HealthChecker
from penstock.pool import care as care_module
from support.pools import URL, borrow_at_once, pooling, steps, until
from support.servers import each_server, echo, serving, url_of

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)


async def test_spare_connections_are_closed_down_to_the_least() -> None:
    async with pooling(max_idle_time=0.1, min_connections=2) as (pool, _):
        await borrow_at_once(pool, 6)
        assert pool.stats().idle == 6
        await until(lambda: pool.stats().size == 2)
        await asyncio.sleep(0.1)
        assert pool.stats().size == 2
        assert pool.stats().closed == {"idle": 4}


async def test_a_url_that_is_used_gets_its_least_number_of_connections() -> None:
    async with pooling(min_connections=3) as (pool, servers):
        (await pool.get_connection(URL)).release()
        await until(lambda: pool.stats().idle == 3)
        assert servers.attempts == 3


async def test_warming_up_opens_the_least_number() -> None:
    async with pooling(min_connections=3) as (pool, _):
        await pool.warm_up(URL)
        await until(lambda: pool.stats().idle == 3)


async def test_warming_up_tells_when_nobody_answers() -> None:
    async with pooling(min_connections=1) as (pool, servers):
        servers.failures = [OSError("down")]
        with pytest.raises(ConnectionFailed, match="down"):
            await pool.warm_up(URL)


async def test_warming_up_a_pool_all_of_whose_connections_are_lent_needs_none() -> None:
    async with pooling(max_connections=2, acquire_timeout=0.1) as (pool, servers):
        async with pool.get_connection(URL), pool.get_connection(URL):
            await pool.warm_up(URL)
        assert servers.attempts == 2


async def test_warming_up_tells_when_nothing_is_open_in_time() -> None:
    async with pooling(acquire_timeout=0.02) as (pool, servers):
        servers.gate.clear()
        with pytest.raises(penstock.PoolExhausted, match="1 being opened"):
            await pool.warm_up(URL)
        with pytest.raises(ValueError, match="url='nowhere'"):
            await pool.warm_up("nowhere")


async def test_case_10_a_pool_at_zero_after_an_outage_refills_by_itself() -> None:
    async with pooling(min_connections=2) as (pool, servers):
        await pool.warm_up(URL)
        await until(lambda: pool.stats().idle == 2)
        servers.failures = [OSError("down")] * 3
        servers.hang_up()
        await until(lambda: not servers.failures)
        await until(lambda: pool.stats().idle == 2)
        async with pool.get_connection(URL, timeout=0) as conn:
            assert conn.is_connected


async def test_case_12_a_host_that_is_down_fails_fast_with_the_real_cause() -> None:
    async with pooling() as (pool, servers):
        servers.failures = [ConnectionRefusedError("port is closed")] * 5
        for _ in range(5):
            with pytest.raises(ConnectionFailed):
                await pool.get_connection(URL)
        before = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionFailed, match="port is closed") as caught:
            await pool.get_connection(URL)
        assert asyncio.get_running_loop().time() - before < 0.1
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert servers.attempts == 5


async def test_case_14_lifetimes_differ_so_that_not_all_end_at_once() -> None:
    async with pooling(max_lifetime=100, random=random.Random(14).random) as (pool, _):
        await borrow_at_once(pool, 10)
        members = [member for slots in pool._state.keys.values() for member in slots.members]
        spans = sorted(member.expires_at - member.opened_at for member in members)
        assert 90 <= spans[0] < 92
        assert 98 < spans[-1] <= 100
        assert all(later - earlier > 0.01 for earlier, later in pairwise(spans))


async def test_case_15_old_connections_are_passed_over_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 100)
    async with pooling(max_lifetime=0.05, check_interval=100, max_connections=4) as (pool, servers):
        await borrow_at_once(pool, 3)
        await asyncio.sleep(0.06)
        async with pool.get_connection(URL) as conn:
            assert servers.attempts == 4
            assert conn.request_count == 1
            assert pool.stats().closed == {"lifetime": 3}


async def test_case_15_an_old_connection_does_not_hide_a_young_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 100)
    async with pooling(check_interval=100) as (pool, servers):
        await borrow_at_once(pool, 3)
        for member in pool._state.keys[URL].idle[1:]:
            member.expires_at = 0
        async with pool.get_connection(URL, timeout=0) as conn:
            assert conn.request_count == 2
        assert pool.stats().closing == 2
        assert servers.attempts == 3


async def test_case_16_what_the_peer_closed_while_idle_is_never_lent() -> None:
    async with pooling() as (pool, servers):
        await borrow_at_once(pool, 3)
        servers.hang_up()
        await asyncio.gather(*(end.wait_closed() for end in servers.ends))
        await steps()
        async with pool.get_connection(URL) as conn:
            assert conn.is_connected
            await conn.send("hello")
        assert pool.stats().closed["peer"] == 3


@pytest.mark.parametrize("interval", [0.01, 1000])
async def test_case_17_ten_thousand_pushes_to_an_idle_connection_are_dropped_and_counted(
    interval: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", interval)
    async with pooling() as (pool, servers):
        (await pool.get_connection(URL)).release()
        push = servers.ends[0]
        for start in range(0, 10_000, 100):
            await push.send_many(f"push {number}" for number in range(start, start + 100))
            await steps(2)
            (member,) = pool._state.keys[URL].members
            assert member.connection.unread < 1000, "memory is bounded"
        async with asyncio.timeout(5):
            await push.flush()
        await until(lambda: pool.stats().dropped_messages > 10_000 - (17 if interval > 1 else 1))
        async with pool.get_connection(URL) as conn:
            assert pool.stats().dropped_messages == 10_000
            await conn.send("still there?")
            assert await push.recv() == "still there?"
        assert servers.attempts == 1


@pytest.mark.parametrize(("on_dirty", "attempts"), [("close", 2), ("drain", 1)])
async def test_what_one_borrower_left_unread_never_reaches_the_next(on_dirty: str, attempts: int) -> None:
    async with pooling(on_dirty=on_dirty) as (pool, servers):
        async with pool.get_connection(URL) as conn:
            await servers.ends[0].send("late answer")
            await until(lambda: conn.unread)
        async with pool.get_connection(URL) as conn:
            await servers.ends[-1].send("new answer")
            assert await conn.recv() == "new answer"
        assert servers.attempts == attempts


async def test_a_connection_is_closed_after_its_number_of_loans() -> None:
    async with pooling(max_request_count=3) as (pool, servers):
        for _ in range(7):
            async with pool.get_connection(URL):
                pass
        assert servers.attempts == 3
        assert pool.stats().closed == {"requests": 2}


async def test_case_23_shrinking_and_growing_keep_the_counts_exact() -> None:
    async with pooling(max_connections=5) as (pool, _):
        held = [await pool.get_connection(URL) for _ in range(5)]
        held.pop().release()
        pool.resize(2)
        assert pool.stats().idle == 0
        held.pop().release()
        held.pop().release()
        await until(lambda: pool.stats().closing == 0)
        assert pool.stats().size == 2
        pool.resize(4)
        held += [await pool.get_connection(URL) for _ in range(2)]
        with pytest.raises(penstock.PoolExhausted):
            await pool.get_connection(URL, timeout=0.05)
        for conn in held:
            conn.release()
        assert pool.stats().idle == 4
        for wrong in (0, 2.5, 101):
            with pytest.raises(ValueError, match=rf"max_connections={wrong}: must be .*(at least 1|max_total=100)"):
                pool.resize(wrong)  # type: ignore[arg-type]
        assert pool.stats().max_connections == 4


async def test_case_23_shrinking_and_growing_restores_the_least_number() -> None:
    async with pooling(max_connections=5, min_connections=4) as (pool, _):
        await pool.warm_up(URL)
        await until(lambda: pool.stats().idle == 4)
        pool.resize(1)
        assert pool.stats().min_connections == 1
        await until(lambda: pool.stats().size == 1)
        pool.resize(5)
        assert pool.stats().min_connections == 4
        await until(lambda: pool.stats().idle == 4)


async def test_draining_replaces_every_connection() -> None:
    async with pooling() as (pool, servers):
        await borrow_at_once(pool, 2)
        held = await pool.get_connection(URL)
        draining = asyncio.create_task(pool.drain(URL))
        await steps()
        assert not held.is_healthy()
        assert held.is_connected
        async with pool.get_connection(URL) as fresh:
            assert fresh.is_healthy()
        assert not draining.done()
        held.release()
        async with asyncio.timeout(5):
            await draining
        assert servers.attempts == 3
        assert pool.stats().closed == {"drain": 2}
        await pool.drain()
        await pool.drain("ws://never.seen")


async def test_a_connection_that_does_not_answer_a_ping_is_closed() -> None:
    async with pooling(check_interval=0.05, pong_timeout=0.05) as (pool, servers):
        (await pool.get_connection(URL)).release()
        servers.ends[0].transport.pause_reading()
        await until(lambda: pool.stats().closed == {"health": 1})


async def test_one_that_is_lent_and_does_not_answer_is_not_lent_again() -> None:
    async with pooling(check_interval=0.05, pong_timeout=0.05) as (pool, servers):
        async with pool.get_connection(URL) as conn:
            servers.ends[0].transport.pause_reading()
            await until(lambda: not conn.is_healthy())
        assert pool.stats().idle == 0


async def test_one_that_has_not_answered_yet_is_not_asked_again() -> None:
    async with pooling(check_interval=0.02, pong_timeout=0.2) as (pool, servers):
        (await pool.get_connection(URL)).release()
        servers.ends[0].transport.pause_reading()
        for _ in range(20):
            await asyncio.sleep(0.01)
            asking = [task for task in asyncio.all_tasks() if "Care._ask" in repr(task)]
            assert len(asking) <= 1
        await until(lambda: pool.stats().closed == {"health": 1})


async def test_one_that_answers_is_kept() -> None:
    async with pooling(check_interval=0.03) as (pool, _):
        (await pool.get_connection(URL)).release()
        await asyncio.sleep(0.2)
        assert pool.stats().idle == 1


@each_server
async def test_the_checker_asks_a_real_server(kind: str) -> None:
    async with serving(kind) as server:
        conn = await penstock.connect(url_of(server))
        checker = HealthChecker(check_interval=1, max_idle_time=10, max_request_count=5, pong_timeout=5)
        assert await checker.check_connection_health(conn)
        await conn.close()
        assert not await checker.check_connection_health(conn)


@each_server
async def test_a_crowd_shares_few_connections_to_a_real_server(kind: str) -> None:
    async with serving(kind) as server, ConnectionPool(ConnectionPoolConfig(max_connections=4)) as pool:

        async def ask(number: int) -> None:
            async with pool.get_connection(url_of(server)) as conn:
                await conn.send(str(number))
                assert await conn.recv() == str(number)

        async with asyncio.timeout(20):
            await asyncio.gather(*(ask(number) for number in range(200)))
        assert pool.stats().opened == 4


async def test_a_server_that_restarts_is_found_again() -> None:
    async with ConnectionPool(ConnectionPoolConfig(max_connections=20, max_connecting=20)) as pool:
        async with penstock.serve(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}"
            conns = [await pool.get_connection(url) for _ in range(20)]
            for conn in conns:
                conn.release()
        await until(lambda: pool.stats().idle == 0)
        async with penstock.serve(echo, "127.0.0.1", port):

            async def answered() -> None:
                while True:
                    try:
                        async with pool.get_connection(url) as conn:
                            await conn.send("back?")
                            assert await conn.recv() == "back?"
                            return
                    except ConnectionFailed:
                        await asyncio.sleep(0.05)

            async with asyncio.timeout(10):
                await answered()


async def test_looking_after_the_pool_goes_on_when_a_look_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with pooling(min_connections=2) as (pool, _):
        trim = pool._state.trim
        failures = [ValueError("surprise")]

        def fail_once(now: float, max_idle_time: float) -> None:
            if failures:
                raise failures.pop()
            trim(now, max_idle_time)

        monkeypatch.setattr(pool._state, "trim", fail_once)
        (await pool.get_connection(URL)).release()
        await until(lambda: pool.stats().idle == 2)
        assert not failures
    assert "surprise" in caplog.text


async def test_what_has_been_decided_is_done_though_a_look_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pooling(max_idle_time=0.02) as (pool, _):

        def fail(now: float) -> None:
            raise ValueError("surprise")

        monkeypatch.setattr(pool._opener, "prune", fail)
        await borrow_at_once(pool, 3)
        await until(lambda: pool.stats().size == 0, 2)


async def test_an_old_connection_that_is_returned_is_not_handed_to_one_who_waits() -> None:
    async with pooling(max_connections=1, max_lifetime=0.05) as (pool, servers):
        old = await pool.get_connection(URL)
        waiting = asyncio.create_task(pool.get_connection(URL).__aenter__())
        await asyncio.sleep(0.06)
        old.release()
        async with asyncio.timeout(5):
            (await waiting).release()
        assert servers.attempts == 2
        assert pool.stats().closed["lifetime"] >= 1
