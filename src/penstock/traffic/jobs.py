"""What a client process can be asked to do, and how it is timed."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from penstock.traffic.caches import CACHES
from penstock.traffic.calls import calls
from penstock.traffic.libraries import BROADCASTERS, LIBRARIES, Client
from penstock.traffic.measure import Job, Run, quantile
from penstock.traffic.pools import CONNECTORS, POOLS, trusting
from penstock.traffic.resources import allow_descriptors, resident_bytes
from penstock.traffic.steady import crowd, rounds
from penstock.traffic.telemetry import make_telemetry
from penstock.traffic.unplug import unplug

ASK = "count"
"""What a client sends to the embedded server's ``/sink`` to be told how much has arrived since it last asked."""
STEPS = 20
"""Times that a job tells how far it is."""
WARM_UP = 200
"""Messages sent before the clock starts."""
BEGIN, END = -0x7E57, -0x7E58
"""File descriptors that are none: closing them marks, for who counts system calls, where the job begins and ends."""

Tell = Callable[[int], None]
Turns = Callable[[int], Awaitable[Any]]
"""Does something so many times."""


class LossError(Exception):
    """The server counted another number of messages than were sent."""

    def __init__(self, sent: int, arrived: int) -> None:
        super().__init__(sent, arrived)
        self.sent, self.arrived = sent, arrived

    def __str__(self) -> str:
        return f"{self.sent} messages were sent, but {self.arrived} arrived"


def messages_of(job: Job) -> list[str]:
    """What the job sends."""
    if job.content == "telemetry":
        return make_telemetry(job.messages)
    return make_messages(job.messages, job.size_bytes)


def make_messages(count: int, size_bytes: int) -> list[str]:
    """Texts of one size, no two alike where the size allows it."""
    return [f"{number:0{size_bytes}d}"[-size_bytes:] if size_bytes else "" for number in range(count)]


def mark(descriptor: int) -> None:
    """Make a system call that cannot be mistaken for another."""
    with suppress(OSError):
        os.close(descriptor)


def written(sock: Any) -> int | None:
    """Bytes that were ever sent on a TCP socket, retransmissions not counted; Linux tells (``tcpi_bytes_sent``)."""
    if sock is None or not sys.platform.startswith("linux"):
        return None
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    if len(info) < 216:  # pragma: no cover - a kernel before 4.19
        return None
    sent, again = struct.unpack_from("=QQ", info, 200)
    return int(sent - again)


class Clock:
    """Wall-clock, processor time and bytes between two moments."""

    def __init__(self, client: Client) -> None:
        self._socket = client.socket()
        self._bytes = written(self._socket)
        mark(BEGIN)
        self._cpu = time.process_time()
        self._wall = time.perf_counter()

    def stop(self) -> dict[str, Any]:
        """The fields of a `Run`."""
        wall = time.perf_counter() - self._wall
        cpu = time.process_time() - self._cpu
        mark(END)
        now = written(self._socket)
        wire = None if now is None or self._bytes is None else now - self._bytes
        return {"seconds": wall, "client_cpu": cpu / wall, "wire_bytes": wire}


async def one_way(job: Job, tell: Tell) -> Run:
    """Send messages; the time ends when the server says that all have arrived."""
    client = await LIBRARIES[job.library](job.url)
    if not job.embedded:
        return await _one_way_to_any(client, job, tell)
    messages = messages_of(job)
    await client.send_all(make_messages(WARM_UP, job.size_bytes))
    await client.round_trip(ASK)
    clock = Clock(client)
    await _send_telling(client, messages, tell)
    told = json.loads(await client.round_trip(ASK))
    timing = clock.stop()
    await client.close()
    if told["messages"] != job.messages:
        raise LossError(job.messages, told["messages"])
    return Run(messages=job.messages, server_cpu=told["cpu"] / timing["seconds"], **timing)


async def _one_way_to_any(client: Client, job: Job, tell: Tell) -> Run:
    """The same to a server that may answer or not: answers are read and dropped, a pong tells the end."""

    async def drain() -> None:
        while True:
            await client.recv()

    drain_task = asyncio.create_task(drain())
    messages = make_messages(job.messages, job.size_bytes)
    try:
        await client.send_all(make_messages(WARM_UP, job.size_bytes))
        await client.ping()
        clock = Clock(client)
        await _send_telling(client, messages, tell)
        await client.ping()
        timing = clock.stop()
        await client.close()  # while answers are still read: with a full queue websockets takes its close_timeout
    finally:
        drain_task.cancel()
        await asyncio.gather(drain_task, return_exceptions=True)
    return Run(messages=job.messages, **timing)


async def _send_telling(client: Client, messages: list[str], tell: Tell) -> None:
    step = max(1, len(messages) // STEPS)
    for start in range(0, len(messages), step):
        await client.send_all(messages[start : start + step])
        tell(min(start + step, len(messages)))


async def round_trip(job: Job, tell: Tell) -> Run:
    """Send a message and wait for its echo, over and over: what a lone message takes."""
    client = await LIBRARIES[job.library](job.url)
    messages = make_messages(job.messages, job.size_bytes)
    once: Callable[[str], Awaitable[Any]] = client.round_trip if job.embedded else lambda _: client.ping()
    for message in messages[:WARM_UP]:
        await once(message)
    times: list[float] = []
    now = time.perf_counter
    clock = Clock(client)
    step = max(1, len(messages) // STEPS)
    for start in range(0, len(messages), step):
        for message in messages[start : start + step]:
            before = now()
            await once(message)
            times.append(now() - before)
        tell(len(times))
    timing = clock.stop()
    await client.close()
    times.sort()
    return Run(messages=len(times), p50=quantile(times, 0.5), p99=quantile(times, 0.99), **timing)


async def connect(job: Job, tell: Tell) -> Run:
    """Have a connection and be done with it, over and over: a new one each time, or one of a pool."""
    times: list[float] = []
    now = time.perf_counter
    options = {"ssl": await trusting(job.url)} if job.embedded and job.url.startswith("wss:") else {}
    async with CONNECTORS[job.library](job.url, **options) as use:
        await use()
        wall, cpu, thread = now(), time.process_time(), time.thread_time()
        step = max(1, job.messages // STEPS)
        for start in range(0, job.messages, step):
            for _ in range(min(step, job.messages - start)):
                before = now()
                await use()
                times.append(now() - before)
            tell(len(times))
        wall, cpu, thread = now() - wall, time.process_time() - cpu, time.thread_time() - thread
    times.sort()
    p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
    uses = len(times)
    return Run(messages=uses, seconds=wall, client_cpu=cpu / wall, cpu_each=thread / uses, p50=p50, p99=p99)


async def acquire(job: Job, tell: Tell) -> Run:
    """Borrow a connection and return it at once, over and over, with nobody else about."""
    async with POOLS[job.library](job.connections) as borrow:

        async def turns(count: int) -> None:
            for _ in range(count):
                async with borrow():
                    pass

        return await _in_blocks(job, tell, turns)


async def contend(job: Job, tell: Tell) -> Run:
    """Borrow connections in more tasks than there are; what letting the others run costs by itself is taken off."""
    async with POOLS[job.library](job.connections) as borrow:

        async def borrowing(count: int) -> None:
            for _ in range(count):
                async with borrow():
                    await asyncio.sleep(0)

        async def sleeping(count: int) -> None:
            for _ in range(count):
                await asyncio.sleep(0)

        def everybody(turns: Turns, count: int) -> Awaitable[Any]:
            return asyncio.gather(*(turns(count // job.callers) for _ in range(job.callers)))

        return await _in_blocks(job, tell, partial(everybody, borrowing), partial(everybody, sleeping))


async def cache_hit(job: Job, tell: Tell) -> Run:
    """Ask a cache for what it has, over and over; what going through the keys takes is taken off."""
    get, keys = CACHES[job.library]()

    async def asking(count: int) -> None:
        for _ in range(count // len(keys)):
            for key in keys:
                get(key)

    async def counting(count: int) -> None:
        for _ in range(count // len(keys)):
            for _ in keys:
                pass

    assert all(get(key) for key in keys)
    return await _in_blocks(replace(job, callers=len(keys)), tell, asking, counting)


async def _in_blocks(job: Job, tell: Tell, work: Turns, idle: Turns | None = None) -> Run:
    """Time ``work`` a block of turns after the other, less what as many turns of ``idle`` take; the median counts."""
    count = max(job.callers, job.messages // STEPS // job.callers * job.callers)
    await work(count)
    each: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(STEPS):
        spent = await _thread_seconds(work, count)
        each.append((spent if idle is None else spent - await _thread_seconds(idle, count)) / count)
        await asyncio.sleep(0)  # what the pool has to do besides is done between blocks
        tell(job.messages * (number + 1) // STEPS)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(messages=count * STEPS, seconds=wall, client_cpu=cpu / wall, cpu_each=median(each))


async def _thread_seconds(work: Turns, count: int) -> float:
    before = time.thread_time()
    await work(count)
    return time.thread_time() - before


async def gather(job: Job, tell: Tell) -> Run:
    """Add messages to a batcher, a thousand at a time, with the batches that become full delivered meanwhile."""
    from penstock.batch.batcher import MessageBatcher  # noqa: PLC0415 - only in the process that uses it

    async def deliver(_: Any) -> None:
        """Nowhere."""

    times: list[float] = []
    thousand = make_messages(1000, job.size_bytes)
    cpu, wall = time.process_time(), time.perf_counter()
    async with MessageBatcher(deliver) as batcher:
        for number in range(job.messages // 1000):
            before = time.perf_counter()
            for message in thousand:
                await batcher.add_message(message)
            times.append(time.perf_counter() - before)
            await batcher.flush_messages()
            tell(1000 * (number + 1))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    times.sort()
    share = cpu / wall
    return Run(
        messages=job.messages, seconds=wall, client_cpu=share, p50=quantile(times, 0.5), p99=quantile(times, 0.99)
    )


async def broadcast(job: Job, tell: Tell) -> Run:
    """Serve, and send messages to all connections; the clock runs until each connection has received them.

    ``job.url`` is an audience's.
    """
    heard: list[float] = []
    async with BROADCASTERS[job.library]() as (port, send_to_all):
        address = urlsplit(job.url)
        assert address.hostname is not None
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        order = {"url": f"ws://127.0.0.1:{port}", "connections": job.connections}
        writer.write(json.dumps(order).encode() + b"\n")
        await reader.readline()
        cpu = time.process_time()
        messages = make_messages(job.messages, job.size_bytes)
        for start in range(0, len(messages), job.burst):
            burst = messages[start : start + job.burst]
            before = time.perf_counter()
            for message in burst:
                send_to_all(message)
            for _ in burst:
                await reader.readline()
            heard.append(time.perf_counter() - before)
            tell(start + len(burst))
        cpu = time.process_time() - cpu
        writer.close()
        await writer.wait_closed()
    heard.sort()
    return Run(
        messages=job.messages * job.connections,
        seconds=sum(heard),
        client_cpu=cpu / sum(heard),
        p50=quantile(heard, 0.5),
        p99=quantile(heard, 0.99),
    )


async def hold(job: Job, tell: Tell) -> Run:
    """Open connections and keep them for longer than a ping interval: what each takes, and what all cost."""
    opener = LIBRARIES[job.library]
    allow_descriptors(job.connections + 100)
    kept = [await opener(job.url) for _ in range(WARM_UP)]
    before = resident_bytes()
    while len(kept) < WARM_UP + job.connections:
        kept += await asyncio.gather(*(opener(job.url) for _ in range(50)))
        tell(job.messages * len(kept) // (2 * job.connections))
    each = (resident_bytes() - before) / job.connections
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.sleep(job.seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - wall)
    for start in range(0, len(kept), 50):
        await asyncio.gather(*(client.close() for client in kept[start : start + 50]))
    return Run(messages=job.connections, bytes_each=each, client_cpu=share)


async def import_(job: Job, tell: Tell) -> Run:
    """Start an interpreter that imports the library, over and over."""
    times: list[float] = []
    command = [sys.executable, "-c", f"import {job.library}"]
    for number in range(job.messages + 1):
        before = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*command)
        await process.wait()
        times.append(time.perf_counter() - before)
        tell(number)
    del times[0]  # it fetched the files
    times.sort()
    return Run(messages=job.messages, seconds=sum(times), p50=quantile(times, 0.5), p99=quantile(times, 0.99))


WORK: dict[str, Callable[[Job, Tell], Awaitable[Run]]] = {
    "acquire": acquire,
    "broadcast": broadcast,
    "cache-hit": cache_hit,
    "calls": calls,
    "connect": connect,
    "contend": contend,
    "crowd": crowd,
    "gather": gather,
    "hold": hold,
    "import": import_,
    "one-way": one_way,
    "round-trip": round_trip,
    "rounds": rounds,
    "unplug": unplug,
}
