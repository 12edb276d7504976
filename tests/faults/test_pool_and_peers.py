"""The pool over real sockets, with servers of all kinds behind it, most of them troublesome."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock import ConnectionFailed, ConnectionPool, ConnectionPoolConfig
from penstock.transport.base import ConnectionClosed, InvalidStatus
from support.hosts import Host, host
from support.nginx import nginx
from support.peers import Peer, head_of, http, peer, saying, silent, switching
from support.pools import until
from support.rawpeer import FIN, PING, TEXT
from support.servers import each_server, port_of, serving, url_of

pytestmark = pytest.mark.timeout(30)


def pool_of(**config: Any) -> ConnectionPool:
    """A pool without chance that keeps nothing that nobody asked for."""
    return ConnectionPool(ConnectionPoolConfig(**{"min_connections": 0, **config}), random=lambda: 0.0)


async def ask(pool: ConnectionPool, url: str, message: str = "hello", **how: Any) -> None:
    """Borrow a connection, and have a message echoed."""
    async with asyncio.timeout(5), pool.get_connection(url, **how) as conn:
        await conn.send(message)
        assert await conn.recv() == message


# Servers that behave


@each_server
async def test_a_crowd_shares_a_few_connections_and_everybody_gets_the_own_answer(kind: str) -> None:
    async def talk(name: int) -> None:
        for turn in range(20):
            await ask(pool, url, f"{name}/{turn}")

    async with serving(kind) as server, pool_of(max_connections=5) as pool:
        url = url_of(server)
        async with asyncio.TaskGroup() as crowd:
            for name in range(50):
                crowd.create_task(talk(name))
        stats = pool.stats()
        assert (stats.opened, stats.failed, stats.closed, stats.idle) == (5, 0, {}, 5)
        assert stats.immediate + stats.waited == 1000


# A proxy that drops what is idle

NGINX_IDLE = 1


async def test_what_a_proxy_dropped_while_it_was_idle_is_never_lent(tmp_path: Path) -> None:
    async with (
        serving("websockets", ping_interval=None) as server,
        nginx(tmp_path, port_of(server), idle=NGINX_IDLE) as proxy,
        pool_of(max_connections=3) as pool,
    ):
        for _ in range(2):
            conns = [await pool.get_connection(proxy.url, ssl=proxy.tls) for _ in range(3)]
            for conn in conns:
                await conn.send("hello")
                assert await conn.recv() == "hello"
                conn.release()
            await asyncio.sleep(NGINX_IDLE + 0.4)
            async with pool.get_connection(proxy.url, ssl=proxy.tls) as conn:
                assert conn.is_connected
                assert conn.request_count == 1
                await conn.send("hello")
                assert await conn.recv() == "hello"
        assert pool.stats().replaced == 0
        assert pool.stats().closed["peer"] >= 5


async def test_checks_keep_connections_alive_behind_a_proxy_that_drops_what_is_idle(tmp_path: Path) -> None:
    async with (
        serving("websockets", ping_interval=None) as server,
        nginx(tmp_path, port_of(server), idle=NGINX_IDLE) as proxy,
        pool_of(max_connections=3, check_interval=0.4) as pool,
    ):
        conns = [await pool.get_connection(proxy.url, ssl=proxy.tls) for _ in range(3)]
        for conn in conns[1:]:
            conn.release()  # one stays lent, and is checked as well
        await asyncio.sleep(NGINX_IDLE * 2.5)
        await conns[0].send("hello")
        assert await conns[0].recv() == "hello"
        conns[0].release()
        for _ in range(3):
            await ask(pool, proxy.url, ssl=proxy.tls)
        assert (pool.stats().opened, pool.stats().closed) == (3, {})


# Hosts that do not answer


@contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a port where connecting neither succeeds nor fails: the queue of who wants to is full."""
    fillers = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        place = listener.getsockname()
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(place)
            fillers.append(filler)
        try:
            yield f"ws://{place[0]}:{place[1]}/"
        finally:
            for filler in fillers:
                filler.close()


async def failing(pool: ConnectionPool, url: str) -> tuple[ConnectionFailed, float]:
    """Ask for a connection in vain; why, and after how many seconds."""
    now = asyncio.get_running_loop().time
    began = now()
    with pytest.raises(ConnectionFailed) as caught:
        await pool.get_connection(url)
    return caught.value, now() - began


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels refuse what does not fit into the queue")
async def test_a_black_hole_costs_connect_timeout_and_other_urls_nothing() -> None:
    with black_hole() as hole:
        async with serving() as server, pool_of(connect_timeout=0.5, max_connections=4, max_total=5) as pool:
            lost = asyncio.create_task(failing(pool, hole))
            loans = 0
            while not lost.done():
                await ask(pool, url_of(server), timeout=0.2)
                await asyncio.sleep(0.01)
                loans += 1
            failure, seconds = await lost
            assert "connect_timeout=0.5" in str(failure)
            assert 0.45 < seconds < 1.0
            assert loans > 15


async def test_a_server_that_never_answers_the_handshake_costs_connect_timeout() -> None:
    async with (
        peer(silent()) as mute,
        serving() as server,
        pool_of(connect_timeout=0.4, max_connections=4) as pool,
    ):
        crowd = asyncio.gather(*(failing(pool, mute.url) for _ in range(4)))
        await mute.wait_accepted(4)
        await ask(pool, url_of(server), timeout=0.2)
        for failure, seconds in await crowd:
            assert "connect_timeout=0.4" in str(failure)
            assert 0.35 < seconds < 0.9
        await mute.wait_gone()
        assert mute.accepted == 4


@pytest.mark.parametrize("hurry", [False, True])
async def test_a_silent_server_whose_callers_have_gone_makes_place_for_one_that_answers(hurry: bool) -> None:
    async with peer(silent()) as mute, serving() as server, pool_of(max_connections=4, max_total=4) as pool:
        crowd = [asyncio.create_task(pool.get_connection(mute.url).__aenter__()) for _ in range(6)]
        await mute.wait_accepted(4)
        asking = asyncio.create_task(ask(pool, url_of(server), timeout=2))
        if not hurry:
            await asyncio.sleep(0.05)
        assert not asking.done()
        for task in crowd:
            task.cancel()
        await asking
        assert pool.stats().connecting == mute.open == 3
        await asyncio.gather(*(ask(pool, url_of(server), timeout=2) for _ in range(10)))
        await until(lambda: pool.stats().size <= 4 and mute.open == pool.stats().connecting)


@pytest.mark.parametrize("lent", [False, True])
async def test_a_server_that_does_not_answer_close_sees_the_end_when_the_pool_is_closed(lent: bool) -> None:
    now = asyncio.get_running_loop().time
    ended: list[float] = []

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switching()(await head_of(this, reader)).encode())
        while await reader.read(1000):
            pass  # whatever it is, a CLOSE frame too
        ended.append(now())

    async with peer(talk) as rude, pool_of() as pool:
        conns = [await pool.get_connection(rude.url) for _ in range(3)]
        conns[0].discard()
        conns[1].release()
        if not lent:
            conns[2].release()
        await asyncio.sleep(0.05)
        began = now()
        await pool.close(0.3)
        assert 0.28 < now() - began < 0.45
        await until(lambda: len(ended) == 3, 0.2)
        assert max(ended) - began < 0.45
        assert pool.stats().size == lent
        conns[2].release()
        await until(lambda: pool.stats().size == 0)


@pytest.mark.parametrize("dead_last", [False, True])
async def test_callers_do_not_notice_that_one_of_two_endpoints_is_down(dead_last: bool) -> None:
    async with peer(silent()) as gone:
        dead = gone.url
    async with serving() as server:
        places = [url_of(server), dead] if dead_last else [dead, url_of(server)]
        config = ConnectionPoolConfig(min_connections=0, max_connections=50)
        async with ConnectionPool(config, endpoints={"ws://service": places}, random=lambda: 0.5) as pool:
            began = asyncio.get_running_loop().time()
            while asyncio.get_running_loop().time() < began + 1.5:  # the server that is down is tried again meanwhile
                async with pool.get_connection("ws://service", timeout=1) as conn:
                    await conn.send("hello")
                    assert await conn.recv() == "hello"
                    conn.discard()
                await asyncio.sleep(0.02)
            assert pool.stats().failed == pool.stats().errors == 0


# Servers that leave


async def answer_once(conn: Any) -> None:
    await conn.send(await conn.recv())


@pytest.mark.parametrize("crowd", [1, 5])
@each_server
async def test_every_loan_gets_an_answer_from_a_server_that_closes_after_every_message(kind: str, crowd: int) -> None:
    async def talk(turns: int) -> None:
        for turn in range(turns):
            async with asyncio.timeout(5), pool.get_connection(url) as conn:
                await conn.send(str(turn))
                assert await conn.recv() == str(turn)
                await conn.wait_closed()

    async with serving(kind, answer_once) as server, pool_of(max_connections=5) as pool:
        url = url_of(server)
        await asyncio.gather(*(talk(50 // crowd) for _ in range(crowd)))
        assert pool.stats().opened == 50
        await until(lambda: pool.stats().size == 0)


@each_server
async def test_a_server_that_closes_after_every_message_leaves_nothing_that_is_lent(kind: str) -> None:
    async with serving(kind, answer_once) as server, pool_of(max_connections=2) as pool:
        for turn in range(50):
            await ask(pool, url_of(server), str(turn))
            await until(lambda: pool.stats().idle == 0)
        assert pool.stats().opened == 50


@each_server
async def test_one_loan_for_each_connection_suits_a_server_that_answers_once(kind: str) -> None:
    async with (
        serving(kind, answer_once) as server,
        pool_of(max_connections=2, max_request_count=1) as pool,
    ):
        for turn in range(50):
            await ask(pool, url_of(server), str(turn))
        assert pool.stats().opened == 50


async def test_a_server_that_stops_reading_is_found_dead_by_who_borrowed_and_while_idle() -> None:
    interval, patience = 0.3, 0.3

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await head_of(this, reader)
        writer.write(switching()(head).encode())
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    now = asyncio.get_running_loop().time
    async with (
        peer(talk) as deaf,
        pool_of(max_connections=2, check_interval=interval, pong_timeout=patience) as pool,
    ):
        lent, other = [await pool.get_connection(deaf.url) for _ in range(2)]
        other.release()
        limit = now() + interval + patience + 1.5
        async with asyncio.timeout_at(limit):
            with pytest.raises(ConnectionClosed):
                await lent.recv()
            assert not lent.is_healthy()
            await until(lambda: pool.stats().idle == 0)
        assert now() < limit
        lent.release()
        await until(lambda: pool.stats().size == 0)
        assert pool.stats().closed == {"health": 2}


# Servers that talk


async def frames_seen(pool: ConnectionPool, server: Host, *, pushing: bool) -> list[int]:
    """What a server sees in 1.5 s of a connection that is lent, and of one that is not."""
    async with pool.get_connection(server.url) as conn:
        async with pool.get_connection(server.url):
            pass
        for _ in range(75):
            if pushing:
                for one in server.peers:
                    one.send(FIN | TEXT, b"push")
                assert await conn.recv() == "push"
            await asyncio.sleep(0.02)
        assert conn.is_connected
    assert pool.stats().opened == 2
    assert pool.stats().closed == {}
    return server.seen


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells when something came, on Linux")
async def test_a_server_that_pushes_gets_no_pings() -> None:
    async with host() as server, pool_of(max_connections=2, check_interval=0.3) as pool:
        assert await frames_seen(pool, server, pushing=True) == []
        assert pool.stats().dropped_messages > 50


async def test_a_server_that_says_nothing_gets_pings() -> None:
    async with host() as server, pool_of(max_connections=2, check_interval=0.3) as pool:
        seen = await frames_seen(pool, server, pushing=False)
        assert set(seen) == {PING}
        assert 4 <= len(seen) <= 12


# Servers that refuse


@pytest.mark.parametrize("max_connections", [1, 10])
async def test_all_who_wait_are_told_at_once_of_a_401_after_one_attempt(max_connections: int) -> None:
    refusal = http("401 Unauthorized", 'WWW-Authenticate: Bearer realm="x"')
    async with (
        peer(saying(refusal)) as server,
        pool_of(max_connections=max_connections, max_connecting=1) as pool,
    ):
        for failure, seconds in await asyncio.gather(*(failing(pool, server.url) for _ in range(20))):
            assert "401" in str(failure)
            assert isinstance(failure.__cause__, InvalidStatus)
            assert seconds < 1
        await until(lambda: pool.stats().size == 0)
        assert server.accepted == 1


async def test_a_401_is_no_reason_not_to_ask_again() -> None:
    async with peer(saying(http("401 Unauthorized"), switching(), hang_up=False)) as server, pool_of() as pool:
        await failing(pool, server.url)
        async with pool.get_connection(server.url) as conn:
            assert conn.is_connected


async def test_a_503_with_retry_after_is_heeded() -> None:
    refusal = http("503 Service Unavailable", "Retry-After: 1")
    now = asyncio.get_running_loop().time
    async with peer(saying(refusal, switching(), hang_up=False)) as server, pool_of() as pool:
        failure, _ = await failing(pool, server.url)
        asked_at = now()
        assert "503" in str(failure)
        while now() < asked_at + 0.9:
            failure, seconds = await failing(pool, server.url)
            assert "503" in str(failure)
            assert "to be tried again in" in str(failure)
            assert seconds < 0.1
            await asyncio.sleep(0.05)
        assert server.accepted == 1
        await asyncio.sleep(asked_at + 1.05 - now())
        async with asyncio.timeout(1), pool.get_connection(server.url) as conn:
            assert conn.is_connected
        assert server.accepted == 2
