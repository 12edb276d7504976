"""What the demo does, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from penstock.errors.urls import shown_url
from penstock.traffic.loop import cores
from penstock.traffic.measure import Job, Run, median_run
from penstock.traffic.processes import JobFailed, run_job, server
from penstock.traffic.syscalls import SyscallCounter

PLAIN, PENSTOCK = "websockets", "penstock"
TIME_LIMIT = 33.0
"""Seconds that all steps may take together; those that are missing then show as not measured."""
ONE_WAY_SECONDS = 1.5
"""What one run of sending should take; how many messages that needs is tried out first."""
TRIAL_MESSAGES = 20_000
ROUND_TRIPS = 4_000
CONNECTS = 200
COUNTED_MESSAGES = 5_000
UNPLUGGED_MESSAGES = 20_000
CALLS, CALLERS, REPEATS = 40_000, 64, 0.9
CROWD = 1000
"""Connections that are held at once."""
ROUNDS = 40
"""After those that warm the process up."""
ACKNOWLEDGED = "penstock, acknowledged"
"""How penstock sends to a server that is penstock, too."""

Report = Callable[[str, float], object]
Tell = Callable[[float], None]


@dataclass(slots=True)
class Findings:
    """What was measured of one library."""

    one_way: list[Run] = field(default_factory=list)
    round_trip: list[Run] = field(default_factory=list)
    connects: list[Run] = field(default_factory=list)
    both_ends: list[Run] = field(default_factory=list)
    """One way to a server of the same library."""
    unplugged: Run | None = None
    """Sending while the connection is cut, again and again."""
    calling: Run | None = None
    """Calls by many tasks at a time, most of them repeated."""
    crowd: Run | None = None
    """Connections held at once; its messages are those that answered."""
    rounds: Run | None = None
    """One process that works for a while, and what its memory does meanwhile."""
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
        async with AsyncExitStack() as stack:
            if self.url is None:
                kinds = ("picows", "jsonrpc", PLAIN, PENSTOCK)
                urls = {kind: await stack.enter_async_context(server(kind, server_core)) for kind in kinds}
                once, again = self._steps(urls["picows"])
                steps = [*once, *_steps_of_calls(urls["jsonrpc"]), *_steps_that_last(urls)]
                steps += [*self._steps_of_both_ends(urls), *again]
            else:
                once, again = self._steps(self.url)
                steps = [*once, *again]
            step = steps[0]
            try:
                async with asyncio.timeout(TIME_LIMIT):
                    for number, step in enumerate(steps):

                        def tell(share: float, step: Step = step, number: int = number) -> None:
                            report(f"{step.of}: {step.doing}", (number + share) / len(steps))

                        tell(0)
                        await self._take(step, client_core, tell)
            except TimeoutError:
                if not all(findings.one_way for findings in self.findings.values()):
                    place = shown_url(step.job.url)
                    raise JobFailed(step.job, f"{place} took longer than {TIME_LIMIT:.0f} s") from None
        report("done", 1)

    async def _take(self, step: Step, core: int | None, tell: Tell) -> None:
        try:
            await step.take(step.job, self.findings[step.of], core, tell)
        except JobFailed as failure:
            if self.url is None or failure.unreachable:
                raise
            sent = f"text messages of {self.size_bytes} digits" if self.size_bytes else "empty text messages"
            remedy = f"it was sent {sent}: try a server that takes any text, such as an echo server"
            raise JobFailed(failure.job, f"{failure.reason}; {remedy}") from None

    def _steps(self, url: str) -> tuple[list[Step], list[Step]]:
        """What any server will do for; what is done again, the other way round, if there is time."""
        embedded = self.url is None
        base = Job(work="", library="", url=url, size_bytes=self.size_bytes, embedded=embedded)
        sink = replace(base, work="one-way", url=url + "/sink" if embedded else url)
        echo = replace(base, work="round-trip", url=url + "/echo" if embedded else url, messages=ROUND_TRIPS)
        connects = replace(echo, work="connect", messages=CONNECTS)
        forth, back = (PLAIN, PENSTOCK), (PENSTOCK, PLAIN)

        def in_order(libraries: tuple[str, str]) -> list[Step]:
            return [
                *(Step(replace(sink, library=library), "sending", send) for library in libraries),
                *(Step(replace(connects, library=library), "connecting", connect) for library in libraries),
                *(
                    Step(replace(echo, library=library), "asking and waiting for the answer", ask)
                    for library in libraries
                ),
            ]

        counting = [Step(replace(sink, library=library), "counting system calls", count) for library in forth]
        return in_order(forth), [*counting, *in_order(back)]

    def _steps_of_both_ends(self, urls: dict[str, str]) -> list[Step]:
        """What a server of the same library is needed for."""
        base = Job(work="one-way", library="", size_bytes=self.size_bytes)
        senders = ((PLAIN, PLAIN), (PENSTOCK, ACKNOWLEDGED))
        return [
            *(
                Step(replace(base, library=library, url=urls[kind] + "/sink"), "sending to its own server", send_to_own)
                for kind, library in senders
            ),
            *(
                Step(
                    Job(work="unplug", library=kind, url=urls[kind] + "/ledger", messages=UNPLUGGED_MESSAGES),
                    "pulling the plug",
                    unplug,
                )
                for kind, _ in senders
            ),
        ]


def _steps_of_calls(url: str) -> list[Step]:
    """What a server of JSON-RPC is needed for."""
    job = Job(work="calls", library="", url=url, messages=CALLS, callers=CALLERS, repeats=REPEATS)
    return [Step(replace(job, library=library), "calling", call) for library in (PLAIN, PENSTOCK)]


def _steps_that_last(urls: dict[str, str]) -> list[Step]:
    """What only penstock is asked for."""
    crowd = Job(work="crowd", library=PENSTOCK, url=urls["picows"] + "/echo", messages=CROWD, connections=CROWD)
    rounds = Job(work="rounds", library=PENSTOCK, url=urls["jsonrpc"], messages=ROUNDS)
    return [
        Step(crowd, f"holding {CROWD:,} connections", hold),
        Step(rounds, "working for a while", endure),
    ]


@dataclass(frozen=True, slots=True)
class Step:
    """One client's job, and what becomes of its result."""

    job: Job
    doing: str
    take: Callable[[Job, Findings, int | None, Tell], Awaitable[None]]

    @property
    def of(self) -> str:
        """The library whose findings it adds to."""
        return PLAIN if self.job.library == PLAIN else PENSTOCK


async def send(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Send messages one way, as many as take `ONE_WAY_SECONDS`."""
    known = findings.sending or await run_job(replace(job, messages=TRIAL_MESSAGES), core)
    messages = max(TRIAL_MESSAGES, round(known.rate * ONE_WAY_SECONDS))
    findings.one_way.append(await run_job(replace(job, messages=messages), core, tell))


async def send_to_own(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Send messages one way, to a server of the same library."""
    known = await run_job(replace(job, messages=TRIAL_MESSAGES), core)
    messages = max(TRIAL_MESSAGES, round(known.rate * ONE_WAY_SECONDS))
    findings.both_ends.append(await run_job(replace(job, messages=messages), core, tell))


async def unplug(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Send messages while the connection is cut, and count what has arrived."""
    findings.unplugged = await run_job(job, core, tell)


async def call(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Make calls, most of them repeated; with penstock through its cache."""
    findings.calling = await run_job(job, core, tell)


async def hold(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Hold many connections at once."""
    findings.crowd = await run_job(job, core, tell)


async def endure(job: Job, findings: Findings, core: int | None, tell: Tell) -> None:
    """Work round after round, and see what memory does."""
    findings.rounds = await run_job(job, core, tell)


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
