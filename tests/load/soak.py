"""Middlewares of both transports under varied load, for as long as is wanted: nothing grows, nothing is lost.

``python tests/load/soak.py [SECONDS]``, with ``tests`` on the path; `make soak` does it. Connections are cut, servers
restarted and callers cancelled meanwhile. Again and again all traffic pauses, and what is held then is counted: bursts
do not show, so that the limits are tight. Each of these quiet moments has a line, and the end a verdict; the exit code
is 0 if all is well.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from statistics import linear_regression
from typing import Any, Literal, TypeAlias

import penstock
from penstock import ConnectionPoolConfig, PerformanceConfig, PerformanceError, PerformanceMiddleware, SessionConfig
from penstock.config.sections import AlertsConfig, EnvelopeConfig, MetricsConfig
from penstock.transport.base import ConnectionClosed
from support.relay import Relay, relaying
from support.resources import Resources

MIB = 1024 * 1024
TRANSPORTS: tuple[Literal["picows", "websockets"], ...] = ("picows", "websockets")
ROUND = 10.0
"""Seconds of traffic between two quiet moments."""
CUT_EVERY, RESTART_EVERY = 3.0, 35.0
SESSION_TTL = 5.0
"""Seconds for which a server waits for a client that is gone for good."""
SETTLING = 20.0
"""Seconds that what was accepted may take until it has arrived, once nothing more is sent."""
STEADY = 2.0
"""Seconds for which nothing may change until a moment is quiet."""
CONNECTIONS = 4
"""Of each pool to each URL, at every quiet moment; no more and no fewer."""
HISTORY = 1.0
"""Seconds of metrics that are kept; the quarter of an hour that is usual would fill until the end, and longer."""
MOST_SPREAD = {"tasks": 2, "descriptors": 2, "timers": 6}
"""By how much quiet moments may differ from each other."""
MOST_GROWTH = {"blocks": 600.0, "heap_bytes": 128.0 * 1024}
"""What the second half may take on in a minute. What is resident is not judged: it grows in steps, as the allocator
keeps what is free between what is used."""
LONG_ENOUGH = 600.0
"""Seconds of a run whose growth is judged: before, the allocator and bounded buffers find their size."""
FAILURES = (PerformanceError, ConnectionClosed, OSError, TimeoutError)

Moment: TypeAlias = tuple[float, Resources]
"""Seconds from the beginning, and what was held then."""


@dataclass
class Account:
    """What became of the messages of one middleware; takes no more room than those that are on their way."""

    outstanding: set[str] = field(default_factory=set)
    sent: int = 0
    arrived: int = 0
    undelivered: int = 0
    refused: int = 0
    """Sends that raised or were cancelled; their messages were not sent."""
    unexpected: int = 0
    """Arrivals of what was not outstanding: doubled ones, and those that were told to be undelivered."""
    calls: int = 0
    loans: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """Calls and loans that ended with an error, or were cancelled, by kind and error."""
    wrong: int = 0
    """Answers to another question."""

    def arrive(self, message: str) -> None:
        if message in self.outstanding:
            self.outstanding.remove(message)
            self.arrived += 1
        else:
            self.unexpected += 1

    def give_up(self, _: str, messages: Sequence[Any]) -> None:
        self.undelivered += len(messages)
        self.outstanding.difference_update(map(str, messages))

    def line(self) -> str:
        return (
            f"{self.sent:,} sent, {self.arrived:,} arrived, {self.undelivered:,} told as undelivered, "
            f"{self.refused:,} refused or cancelled, {self.unexpected:,} unexpected, {len(self.outstanding):,} missing"
            f"; {self.calls:,} calls, {self.loans:,} loans, {self.wrong:,} answers wrong, failures {dict(self.failed)}"
        )


class Site:
    """A server behind a relay, which can be restarted, and the traffic of one middleware to it."""

    def __init__(self, transport: Literal["picows", "websockets"], seed: int) -> None:
        self.transport = transport
        self.account = Account()
        self.cuts = self.restarts = 0
        self._chance = Random(seed)
        self._numbers = count()
        self._restart_at = time.monotonic() + RESTART_EVERY
        self._server: penstock.Server
        self._relay: Relay
        self._pipe: PerformanceMiddleware

    async def serve(self) -> int:
        """Start a server; return its port."""
        self._server = await penstock.serve(
            self._handle,
            "127.0.0.1",
            0,
            transport=self.transport,
            sessions=SessionConfig(ttl=SESSION_TTL),
            ping_interval=2,
            ping_timeout=2,
            open_timeout=1,
        )
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _handle(self, conn: Any) -> None:
        path = conn.request.path
        with contextlib.suppress(ConnectionClosed):
            async for message in conn:
                if path == "/sink":
                    self.account.arrive(message)
                elif path == "/echo":
                    await conn.send(message)
                else:
                    asked = json.loads(message)
                    await conn.send(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": asked["params"]}))

    async def trouble(self) -> None:
        """Cut and restart, again and again."""
        relay = self._relay
        while True:
            await asyncio.sleep(CUT_EVERY * (0.5 + self._chance.random()))
            if time.monotonic() < self._restart_at:
                relay.cut(hard=self._chance.random() < 0.5)
                self.cuts += 1
                continue
            old = self._server
            relay.target = await self.serve()
            relay.cut()
            old.close()
            await old.wait_closed()
            self.restarts += 1
            self._restart_at = time.monotonic() + RESTART_EVERY

    async def send(self, url: str) -> None:
        pipe = self._pipe
        while True:
            for _ in range(self._chance.choice((1, 20, 400))):
                message = f"{next(self._numbers)} {'x' * self._chance.choice((0, 50, 2000))}"
                self.account.outstanding.add(message)
                patience = self._chance.choice((0.0, 0.0002)) if self._chance.random() < 0.002 else None
                try:
                    async with asyncio.timeout(patience):
                        await pipe.send(url, message)
                    self.account.sent += 1
                except (asyncio.CancelledError, *FAILURES) as exc:
                    self.account.outstanding.discard(message)
                    self.account.refused += 1
                    if isinstance(exc, asyncio.CancelledError):
                        raise
            await asyncio.sleep(0.03 * self._chance.random())

    async def borrow(self, url: str) -> None:
        pipe = self._pipe

        async def use(question: str) -> None:
            self.account.loans += 1
            try:
                async with asyncio.timeout(self._chance.choice((0.001, 5, 5, 5))), pipe.connection(url) as conn:
                    await conn.send(question)
                    self.account.wrong += await conn.recv() != question
            except FAILURES as exc:
                self.account.failed[f"loan {type(exc).__name__}"] += 1

        while True:
            await asyncio.gather(*(use(f"{number}") for number in range(self._chance.randint(1, 20))))
            await asyncio.sleep(0.03 * self._chance.random())

    async def call(self, url: str) -> None:
        rpc, last = self._pipe.rpc(url), next(self._numbers)

        async def ask(number: int) -> None:
            self.account.calls += 1
            try:
                async with asyncio.timeout(self._chance.choice((0.001, 5, 5, 5))):
                    self.account.wrong += await rpc.call("echo", [number], ttl=5) != [number]
            except FAILURES as exc:
                self.account.failed[f"call {type(exc).__name__}"] += 1

        while True:
            last += self._chance.randrange(40)
            await asyncio.gather(*(ask(max(0, last - self._chance.randrange(300))) for _ in range(50)))
            await asyncio.sleep(0.03 * self._chance.random())

    async def work(self) -> None:
        """Traffic and trouble, for a round; whatever is under way at its end is cancelled."""
        work = (self.send, "sink"), (self.borrow, "echo"), (self.call, "rpc")
        tasks = [asyncio.create_task(do(self._relay.url + path)) for do, path in work]
        tasks.append(asyncio.create_task(self.trouble()))
        await asyncio.wait(tasks, timeout=ROUND, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if not task.cancel():
                task.result()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._relay.heads.clear()

    @property
    def is_settled(self) -> bool:
        """Whether all is accounted for, and the connections are those that the pool keeps."""
        pool = self._pipe.stats().pool
        kept = pool.idle + pool.in_use
        under_way = pool.waiting + pool.connecting + pool.closing + len(self.account.outstanding)
        return not under_way and kept == pool.urls * CONNECTIONS == len(self._server.connections)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        config = PerformanceConfig(
            pool=ConnectionPoolConfig(
                max_connections=CONNECTIONS, min_connections=CONNECTIONS, max_request_count=2000, check_interval=1
            ),
            alerts=AlertsConfig(enabled=False),
            envelope=EnvelopeConfig(reliable=True),
            metrics=MetricsConfig(history=HISTORY),
        )
        async with relaying(await self.serve()) as self._relay:
            try:
                self._pipe = PerformanceMiddleware(
                    config, transport=self.transport, on_undelivered=self.account.give_up
                )
                async with self._pipe:
                    yield
            finally:
                await self.stop()


async def quiet_moment(sites: Sequence[Site]) -> Resources:
    """Wait until all is settled and stays as it is, and count; after `SETTLING` seconds count in any case."""
    held, since = Resources.now(), time.monotonic()
    deadline = since + SETTLING
    while (now := time.monotonic()) < min(since + STEADY, deadline):
        await asyncio.sleep(0.2)
        before, held = held, Resources.now()
        is_same = (held.tasks, held.descriptors) == (before.tasks, before.descriptors)
        if not (is_same and all(site.is_settled for site in sites)):
            since = now
    return held


async def rounds(seconds: float, sites: Sequence[Site]) -> list[Moment]:
    """Traffic for so long, with a quiet moment after each round."""
    moments: list[Moment] = []
    began = time.monotonic()
    while (now := time.monotonic()) < began + seconds or not moments:
        await asyncio.gather(*(site.work() for site in sites))
        held = await quiet_moment(sites)
        moments.append((time.monotonic() - began, held))
        tell(moments[-1], sites, time.monotonic() - now - ROUND)
    return moments


def spreads(moments: Sequence[Moment]) -> dict[str, float]:
    """By how much quiet moments differ from each other."""

    def spread(name: str) -> float:
        values: list[int] = [getattr(held, name) for _, held in moments]
        return max(values) - min(values)

    return {name: spread(name) for name in MOST_SPREAD}


def growths(moments: Sequence[Moment]) -> dict[str, float]:
    """What the second half took on in a minute, by a line through its quiet moments; nothing if it was too short."""
    if moments[-1][0] < LONG_ENOUGH:
        return {}
    later = moments[len(moments) // 2 :]
    minutes = [at / 60 for at, _ in later]

    def grown(name: str) -> float:
        return linear_regression(minutes, [getattr(held, name) for _, held in later]).slope

    return {name: grown(name) for name in MOST_GROWTH}


class Tracebacks(logging.Handler):
    """Collects what is logged with a traceback. That connections break is what this is for, and no such thing."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.texts.add(f"{record.getMessage()}: {record.exc_info[1]!r}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell(moment: Moment, sites: Sequence[Site], settling: float) -> None:
    at, held = moment
    traffic = ", ".join(
        f"{site.transport}: {site.account.sent:,} sent, {site.account.calls:,} calls, {site.account.loans:,} loans, "
        f"{site.cuts} cuts, {site.restarts} restarts"
        for site in sites
    )
    say(
        f"{at:5.0f} s  {held.resident_bytes / MIB:6.2f} MiB resident  {held.heap_bytes / MIB:6.2f} MiB heap  "
        f"{held.blocks:7} blocks  {held.tasks:4} tasks  "
        f"{held.descriptors:4} descriptors  {held.timers:4} timers  settled in {settling:4.1f} s  {traffic}"
    )


def judge(moments: Sequence[Moment], sites: Sequence[Site]) -> list[str]:
    """What is wrong; it says what was measured, and what is allowed."""
    faults: list[str] = []
    for name, value in spreads(moments).items():
        say(f"{name}: quiet moments differ by {value:,.0f}, {MOST_SPREAD[name]} allowed")
        if value > MOST_SPREAD[name]:
            faults.append(f"{name} differ by {value:,.0f}")
    grown = growths(moments)
    if not grown:
        say(f"growth of memory is not judged in less than {LONG_ENOUGH:.0f} s")
    for name, value in grown.items():
        say(f"{name}: {value:+,.0f} a minute in the second half, {MOST_GROWTH[name]:+,.0f} allowed")
        if value > MOST_GROWTH[name]:
            faults.append(f"{name} grew by {value:,.0f} a minute")
    for site in sites:
        account = site.account
        say(f"{site.transport}: {account.line()}")
        if account.outstanding:
            faults.append(f"{site.transport}: {len(account.outstanding)} messages were lost")
        if account.wrong:
            faults.append(f"{site.transport}: {account.wrong} answers were wrong")
        if not (account.arrived and account.calls and account.loans):
            faults.append(f"{site.transport}: there was no traffic")
    return faults


async def soak(seconds: float) -> bool:
    """Whether nothing grew and nothing was lost."""
    sites = [Site(transport, seed) for seed, transport in enumerate(TRANSPORTS)]
    tracebacks = Tracebacks()
    logging.getLogger().addHandler(tracebacks)
    before = Resources.now()
    async with contextlib.AsyncExitStack() as stack:
        for site in sites:
            await stack.enter_async_context(site.up())
        moments = await rounds(seconds, sites)
    await asyncio.sleep(0.2)
    after = Resources.now()
    faults = judge(moments, sites)
    for name in ("tasks", "descriptors"):
        left = getattr(after, name) - getattr(before, name)
        say(f"{name}: {left:+} at the end, +0 allowed")
        if left > 0:
            faults.append(f"{left} {name} are left")
    faults += sorted(tracebacks.texts)
    say("failed: " + "; ".join(faults) if faults else "passed: nothing grew, nothing was lost")
    return not faults


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(soak(float(sys.argv[1]) if len(sys.argv) > 1 else 600)) else 1)
