"""What the demo does, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace

from penstock.traffic.loop import cores
from penstock.traffic.measure import Job, Run, median_run, shown
from penstock.traffic.processes import JobFailed, run_job, server
from penstock.traffic.syscalls import SyscallCounter

PLAIN, PENSTOCK = "websockets", "penstock"
TIME_LIMIT = 28.0
"""Seconds that all steps may take together; those that are missing then show as not measured."""
ONE_WAY_SECONDS = 1.5
"""What one run of sending should take; how many messages that needs is tried out first."""
TRIAL_MESSAGES = 20_000
ROUND_TRIPS = 4_000
CONNECTS = 200
COUNTED_MESSAGES = 5_000

Report = Callable[[str, float], object]
Tell = Callable[[float], None]


@dataclass(slots=True)
class Findings:
    """What was measured of one library."""

    one_way: list[Run] = field(default_factory=list)
    round_trip: list[Run] = field(default_factory=list)
    connects: list[Run] = field(default_factory=list)
    syscalls: float | None = None
    """The client's system calls for each message sent."""

    @property
    def sending(self) -> Run | None:
        """The median of what was measured one way."""
        return median_run(self.one_way) if self.one_way else None

    @property
    def answering(self) -> Run | None:
        """The median of the round trips."""
        return median_run(self.round_trip) if self.round_trip else None

    @property
    def connecting(self) -> Run | None:
        """The median of having a connection and being done with it."""
        return median_run(self.connects) if self.connects else None


@dataclass(slots=True)
class Tour:
    """One demo: all its steps against one server.

    Args:
        url: of the user's server; None starts an embedded one.
        size_bytes: of each message.
    """

    url: str | None
    size_bytes: int
    findings: dict[str, Findings] = field(default_factory=lambda: {PLAIN: Findings(), PENSTOCK: Findings()})

    async def run(self, report: Report) -> None:
        """Do all steps; ``report`` is told what is being done and the share that is done.

        Cancelled, it keeps what was measured until then, and leaves no process behind.

        Raises:
            JobFailed: a client could not do its work.
        """
        client_core, server_core = cores()
        async with self._server(server_core) as url:
            steps = self._steps(url)
            step = steps[0]
            try:
                async with asyncio.timeout(TIME_LIMIT):
                    for number, step in enumerate(steps):

                        def tell(share: float, step: Step = step, number: int = number) -> None:
                            report(f"{step.job.library}: {step.doing}", (number + share) / len(steps))

                        tell(0)
                        await step.take(step.job, self.findings[step.job.library], client_core, tell)
            except TimeoutError:
                if not all(findings.one_way for findings in self.findings.values()):
                    raise JobFailed(step.job, f"{shown(step.job.url)} took longer than {TIME_LIMIT:.0f} s") from None
        report("done", 1)

    def _server(self, core: int | None) -> AbstractAsyncContextManager[str]:
        return server("picows", core) if self.url is None else _given(self.url)

    def _steps(self, url: str) -> list[Step]:
        embedded = self.url is None
        base = Job(work="", library="", url=url, size_bytes=self.size_bytes, embedded=embedded)
        sink = replace(base, work="one-way", url=url + "/sink" if embedded else url)
        echo = replace(base, work="round-trip", url=url + "/echo" if embedded else url, messages=ROUND_TRIPS)
        connects = replace(echo, work="connect", messages=CONNECTS)
        forth, back = (PLAIN, PENSTOCK), (PENSTOCK, PLAIN)
        return [
            *(Step(replace(sink, library=library), "sending", send) for library in forth + back),
            *(
                Step(replace(echo, library=library), "asking and waiting for the answer", ask)
                for library in forth + back
            ),
            *(Step(replace(connects, library=library), "connecting", connect) for library in forth + back),
            *(Step(replace(sink, library=library), "counting system calls", count) for library in forth),
        ]


@dataclass(frozen=True, slots=True)
class Step:
    """One client's job, and what becomes of its result."""

    job: Job
    doing: str
    take: Callable[[Job, Findings, int | None, Tell], Awaitable[None]]


async def send(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Send messages one way, as many as take `ONE_WAY_SECONDS`."""
    known = findings.sending or await run_job(replace(job, messages=TRIAL_MESSAGES), core)
    messages = max(TRIAL_MESSAGES, round(known.rate * ONE_WAY_SECONDS))
    findings.one_way.append(await run_job(replace(job, messages=messages), core, tell))


async def ask(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Make round trips, one after the other."""
    findings.round_trip.append(await run_job(job, core, tell))


async def connect(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Have a connection and be done with it, over and over: a new one, or with penstock one of its pool."""
    findings.connects.append(await run_job(job, core, tell))


async def count(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:  # noqa: ARG001 - a step like others
    """Count system calls, which takes a run of its own."""
    counter = SyscallCounter(replace(job, messages=COUNTED_MESSAGES))
    try:
        findings.syscalls = await asyncio.to_thread(counter.per_message)
    finally:
        counter.stop()


@asynccontextmanager
async def _given(url: str) -> AsyncIterator[str]:
    yield url
