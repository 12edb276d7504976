"""Under load for a while: nothing grows. Long forms run by `make load`, short ones with all tests."""

from __future__ import annotations

import asyncio
import sys
import time

import pytest

import penstock
from penstock.traffic.resources import allow_descriptors
from support.resources import Resources

MIB = 1024 * 1024

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc, on Linux")


async def echo(conn: penstock.ServerConnection) -> None:
    async for message in conn:
        await conn.send(message)


def port_of(server: penstock.Server) -> int:
    port: int = server.sockets[0].getsockname()[1]
    return port


async def send_at(conn: penstock.Connection, rate: int, seconds: float) -> int:
    """Send numbered messages at a steady rate; return how many."""
    sent, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        due = int(elapsed * rate)
        while sent < due:
            await conn.send(f"{sent:064d}")
            sent += 1
        await asyncio.sleep(0.001)
    return sent


async def check_order(conn: penstock.Connection) -> int:
    """Receive until the connection closes; every message must be the next."""
    expected = 0
    async for message in conn:
        assert int(message) == expected
        expected += 1
    return expected


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.load)])
@pytest.mark.parametrize("transport", ["picows", "websockets"])
async def test_ten_thousand_messages_a_second_make_nothing_grow(seconds: int, transport: str) -> None:
    rate, samples = 10_000, []
    async with penstock.serve(echo, "127.0.0.1", 0, transport=transport, reliable=False) as server:
        conn = await penstock.connect(f"ws://127.0.0.1:{port_of(server)}", transport=transport)
        receiving = asyncio.create_task(check_order(conn))
        sending = asyncio.create_task(send_at(conn, rate, seconds))
        await asyncio.sleep(seconds / 4)  # buffers and caches find their size
        while not sending.done():
            samples.append(Resources.now())
            await asyncio.sleep(seconds / 20)
        sent = await sending
        deadline = asyncio.timeout(10)
        async with deadline:
            await (await conn.ping())
            await asyncio.sleep(0.5)
            await conn.close()
            received = await receiving
    if seconds >= 60:  # the short run is made beside others, which may take the processor from it
        assert sent >= rate * seconds * 0.95
    assert received == sent
    assert samples[-1].resident_bytes - samples[0].resident_bytes < 4 * MIB
    assert len({sample.tasks for sample in samples}) == 1
    assert len({sample.descriptors for sample in samples}) == 1
    assert max(sample.timers for sample in samples) < 50


async def converse(url: str, messages: int, ready: asyncio.Semaphore, all_open: asyncio.Event) -> int:
    async with ready:
        conn = await penstock.connect(url)
    await all_open.wait()
    async with conn:
        for number in range(messages):
            await conn.send(str(number))
        return sum([int(await conn.recv()) for _ in range(messages)])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [3, pytest.param(10, marks=pytest.mark.load)])
async def test_a_thousand_connections_at_once_leave_nothing_behind(rounds: int) -> None:
    count, messages = 1000, 20
    allow_descriptors(2 * count + 200)
    async with penstock.serve(echo, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{port_of(server)}"
        before = Resources.now()
        after: list[Resources] = []
        for _ in range(rounds):
            ready, all_open = asyncio.Semaphore(100), asyncio.Event()
            talks = [asyncio.create_task(converse(url, messages, ready, all_open)) for _ in range(count)]
            async with asyncio.timeout(60):
                while len(server.connections) < count:
                    await asyncio.sleep(0.05)
                all_open.set()
                assert await asyncio.gather(*talks) == [sum(range(messages))] * count
                while server.connections:
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.1)
            after.append(Resources.now())
    assert {sample.tasks for sample in after} == {before.tasks}
    assert {sample.descriptors for sample in after} == {before.descriptors}
    warm = after[len(after) // 3]  # the allocator has found its size; what leaks goes on leaking
    assert after[-1].resident_bytes - warm.resident_bytes < 8 * MIB
