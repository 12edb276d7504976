"""Middlewares of both transports under varied load, for as long as is wanted: nothing grows, nothing is lost.

``python tests/load/soak.py [SECONDS]``, with ``tests`` on the path; `make soak` does it. It prints a line a minute and
a verdict; the exit code is 0 if all is well. Connections are cut, servers restarted and callers cancelled meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from statistics import linear_regression
from typing import Any, Literal

import penstock
from penstock import PerformanceConfig, PerformanceError, PerformanceMiddleware, SessionConfig
from penstock.config.sections import AlertsConfig, EnvelopeConfig
from penstock.transport.base import ConnectionClosed
from support.relay import Relay, relaying
from support.resources import Resources

MIB = 1024 * 1024
TRANSPORTS: tuple[Literal["picows", "websockets"], ...] = ("picows", "websockets")
SAMPLE_EVERY = 1.0
WINDOW = 6
"""Samples of which the lowest counts."""
TOLD_EVERY = 60.0
CUT_EVERY, RESTART_EVERY = 3.0, 20.0
SESSION_TTL = 5.0
"""Seconds for which a server waits for a client that is gone for good; they would pile up."""
SETTLING = 20.0
"""Seconds that what was accepted may take until it has arrived, once nothing more is sent."""
GROWTH_LIMITS = {"resident_bytes": 8 * MIB, "tasks": 150, "descriptors": 50}
"""What the second half may take on; bursts of calls have a hundred tasks or more."""
FAILURES = (PerformanceError, ConnectionClosed, OSError, TimeoutError)


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
        self._server: Any = None

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

    async def trouble(self, relay: Relay) -> None:
        """Cut and restart, again and again."""
        restart_at = time.monotonic() + RESTART_EVERY
        while True:
            await asyncio.sleep(CUT_EVERY * (0.5 + self._chance.random()))
            if time.monotonic() < restart_at:
                relay.cut(hard=self._chance.random() < 0.5)
                self.cuts += 1
                continue
            old = self._server
            relay.target = await self.serve()
            relay.cut()
            old.close()
            await old.wait_closed()
            self.restarts += 1
            restart_at = time.monotonic() + RESTART_EVERY

    async def send(self, pipe: PerformanceMiddleware, url: str) -> None:
        number = 0
        while True:
            for _ in range(self._chance.choice((1, 20, 400))):
                number += 1
                message = f"{number} {'x' * self._chance.choice((0, 50, 2000))}"
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

    async def borrow(self, pipe: PerformanceMiddleware, url: str) -> None:
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

    async def call(self, pipe: PerformanceMiddleware, url: str) -> None:
        rpc, last = pipe.rpc(url), 0

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

    async def settle(self, pipe: PerformanceMiddleware) -> None:
        """Wait until what was accepted is accounted for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLING):
                with contextlib.suppress(*FAILURES):
                    await pipe.drain()
                while self.account.outstanding:
                    await asyncio.sleep(0.05)

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Traffic and trouble; at the end all is settled."""
        config = PerformanceConfig(alerts=AlertsConfig(enabled=False), envelope=EnvelopeConfig(reliable=True))
        async with relaying(await self.serve()) as relay:
            pipe = PerformanceMiddleware(config, transport=self.transport, on_undelivered=self.account.give_up)
            async with pipe:
                work: list[Callable[[PerformanceMiddleware, str], Any]] = [self.send, self.borrow, self.call]
                at = [relay.url + path for path in ("sink", "echo", "rpc")]
                tasks = [asyncio.create_task(do(pipe, url)) for do, url in zip(work, at, strict=True)]
                tasks.append(asyncio.create_task(self.trouble(relay)))
                try:
                    yield
                    for task in tasks:
                        if task.done():
                            task.result()
                finally:
                    for task in tasks:
                        task.cancel()
                    await asyncio.gather(*tasks, return_exceptions=True)
                await self.settle(pipe)
            await self.stop()


def growths(samples: Sequence[tuple[float, Resources]]) -> dict[str, float]:
    """What the second half took on, by a line through the lowest values of each `WINDOW`: bursts do not count."""
    later = samples[len(samples) // 2 :]
    windows = [later[start : start + WINDOW] for start in range(0, len(later), WINDOW)]
    times = [window[0][0] for window in windows]
    lasted = later[-1][0] - later[0][0]

    def grown(name: str) -> float:
        lowest = [min(getattr(sample, name) for _, sample in window) for window in windows]
        return linear_regression(times, lowest).slope * lasted

    return {name: grown(name) for name in GROWTH_LIMITS}


async def watch(seconds: float, sites: Sequence[Site]) -> list[tuple[float, Resources]]:
    """Look again and again, and tell each minute."""
    samples: list[tuple[float, Resources]] = []
    began = told = time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        samples.append((now - began, Resources.now()))
        if now >= told + TOLD_EVERY:
            told = now
            tell(samples[-1], sites)
        await asyncio.sleep(SAMPLE_EVERY)
    tell(samples[-1], sites)
    return samples


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def tell(sample: tuple[float, Resources], sites: Sequence[Site]) -> None:
    at, held = sample
    traffic = ", ".join(
        f"{site.transport}: {site.account.sent:,} sent, {site.account.calls:,} calls, {site.account.loans:,} loans, "
        f"{site.cuts} cuts, {site.restarts} restarts"
        for site in sites
    )
    say(
        f"{at:5.0f} s  {held.resident_bytes / MIB:6.1f} MiB  {held.tasks:4} tasks  {held.descriptors:4} descriptors  "
        f"{traffic}"
    )


async def soak(seconds: float) -> bool:
    """Whether nothing grew and nothing was lost."""
    sites = [Site(transport, seed) for seed, transport in enumerate(TRANSPORTS)]
    before = Resources.now()
    async with contextlib.AsyncExitStack() as stack:
        for site in sites:
            await stack.enter_async_context(site.busy())
        samples = await watch(seconds, sites)
    await asyncio.sleep(0.2)
    after = Resources.now()
    grown = growths(samples)
    faults = [f"{name} grew by {grown[name]:,.0f}" for name, most in GROWTH_LIMITS.items() if grown[name] > most]
    for name in ("tasks", "descriptors"):
        left = getattr(after, name) - getattr(before, name)
        if left > 0:
            faults.append(f"{left} {name} are left")
    for site in sites:
        account = site.account
        say(f"{site.transport}: {account.line()}")
        if account.outstanding:
            faults.append(f"{site.transport}: {len(account.outstanding)} messages were lost")
        if account.wrong:
            faults.append(f"{site.transport}: {account.wrong} answers were wrong")
        if not (account.arrived and account.calls and account.loans):
            faults.append(f"{site.transport}: there was no traffic")
    say("second half: " + ", ".join(f"{name} {value:+,.1f}" for name, value in grown.items()))
    say("failed: " + "; ".join(faults) if faults else "passed: nothing grew, nothing was lost")
    return not faults


if __name__ == "__main__":
    logging.getLogger("penstock").setLevel(logging.CRITICAL)  # that connections break is what it is for
    sys.exit(0 if asyncio.run(soak(float(sys.argv[1]) if len(sys.argv) > 1 else 600)) else 1)
