"""Many connections to one host: opened together, idle together, and lost together."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

import penstock
from penstock import ConnectionFailed, ConnectionPool, ConnectionPoolConfig
from penstock.pool import care as care_module
from penstock.traffic.resources import allow_descriptors
from support.hosts import host, most_within
from support.pools import until
from support.processes import line_of, program

pytestmark = pytest.mark.timeout(90)

CONNECTING = 4


def keeping(number: int, **config: Any) -> ConnectionPoolConfig:
    """Of a pool that keeps so many connections."""
    return ConnectionPoolConfig(min_connections=number, max_connections=number, max_total=number, **config)


@pytest.mark.parametrize(
    ("number", "rate", "down", "late"),
    [(150, 150, 0.4, 2.5), pytest.param(1000, 250, 3.0, 5.0, marks=pytest.mark.load)],
)
async def test_case_13_after_a_restart_all_connections_come_back_and_none_of_them_in_a_herd(
    number: int, rate: int, down: float, late: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if number < 1000:
        monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.1)
    allow_descriptors(3 * number)
    now = asyncio.get_running_loop().time
    attempts: list[float] = []

    async def connect(url: str, **options: Any) -> penstock.Connection:
        attempts.append(now())
        return await penstock.connect(url, ping_interval=None, **options)

    config = keeping(number, connect_rate=rate, max_connecting=CONNECTING)
    async with host() as server, ConnectionPool(config, connect=connect, random=lambda: 0.5) as pool:
        await pool.warm_up(server.url)
        await until(lambda: pool.stats().idle == number, 30)
        assert len(server.accepted) == number
        await server.crash()
        crashed_at = now()
        await asyncio.sleep(down)
        assert pool.stats().idle == 0
        await server.start()
        started_at = now()
        await until(lambda: pool.stats().idle == number, 30)
        seconds = now() - started_at
        assert pool.stats().closed == {"peer": number}
        assert len(server.peers) == number
        assert len(server.accepted) == 2 * number
        bound = rate + CONNECTING + 5
        assert server.most_within(1.0) <= bound
        assert most_within(attempts, 1.0) <= bound
        assert most_within(attempts, 0.1) <= rate / 10 + CONNECTING + 5, "evenly spread"
        missed = len([when for when in attempts if crashed_at <= when < started_at])
        assert missed <= 5 + 4 + down, "who is down is asked by few"
        assert seconds < number / rate + late, "attempts that fail together are one reason to wait, not many"


async def test_case_13_programs_that_lose_a_server_together_do_not_ask_for_it_together() -> None:
    now = asyncio.get_running_loop().time
    second_attempts: list[float] = []
    began = now()

    async def lose(seed: int) -> None:
        attempts: list[float] = []

        async def connect(url: str, **options: Any) -> penstock.Connection:
            attempts.append(now() - began)
            raise ConnectionRefusedError

        pool = ConnectionPool(connect=connect, random=random.Random(seed).random)
        async with pool:
            for _ in range(2):
                with pytest.raises(ConnectionFailed):
                    await pool.get_connection("ws://server")
        second_attempts.append(attempts[1])

    await asyncio.gather(*(lose(seed) for seed in range(100)))
    assert most_within(sorted(second_attempts), 0.02) <= 45, "spread over 0.1 s"
    assert max(second_attempts) > 0.08


@pytest.mark.parametrize("number", [200, pytest.param(1000, marks=pytest.mark.load)])
async def test_many_have_connections_at_once_and_each_gets_the_own_answer(number: int) -> None:
    allow_descriptors(3 * number)
    everybody = asyncio.Barrier(number)

    async def talk(name: int) -> None:
        async with pool.get_connection(server.url) as conn:
            await everybody.wait()
            for turn in range(3):
                await conn.send(f"{name}/{turn}")
                assert await conn.recv() == f"{name}/{turn}"
            await everybody.wait()

    config = ConnectionPoolConfig(max_connections=number)
    async with host() as server, ConnectionPool(config) as pool:
        async with asyncio.TaskGroup() as crowd:
            for name in range(number):
                crowd.create_task(talk(name))
        stats = pool.stats()
        assert (stats.idle, stats.opened, stats.failed, stats.closed) == (number, number, 0, {})


SERVER = """
    import asyncio, penstock
    from penstock.traffic.resources import allow_descriptors
    from support.servers import echo, port_of

    async def main():
        allow_descriptors(3000)
        async with penstock.serve(echo, "127.0.0.1", 0, ping_interval=None) as server:
            print(port_of(server), flush=True)
            await server.serve_forever()

    asyncio.run(main())
"""


@pytest.mark.load
async def test_a_thousand_idle_connections_take_less_than_a_hundredth_of_a_core() -> None:
    number, seconds = 1000, 25.0
    allow_descriptors(3 * number)
    async with program(SERVER) as server:
        url = f"ws://127.0.0.1:{await line_of(server)}/"
        async with ConnectionPool(keeping(number, check_interval=20.0)) as pool:
            await pool.warm_up(url)
            await until(lambda: pool.stats().idle == number, 30)
            began, spent = time.perf_counter(), time.thread_time()
            await asyncio.sleep(seconds)
            part = (time.thread_time() - spent) / (time.perf_counter() - began)
            assert (pool.stats().idle, pool.stats().closed) == (number, {})
    assert part < 0.01, f"{part:.2%} of a core"
