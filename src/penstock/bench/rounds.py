"""Running a scenario: each library in turn, the order turned round each time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec

from penstock.bench.scenarios import Scenario
from penstock.traffic.loop import cores
from penstock.traffic.measure import Run, median_run
from penstock.traffic.processes import run_job, server


@dataclass(slots=True)
class Outcome:
    """What a scenario has shown so far."""

    scenario: Scenario
    runs: dict[str, list[Run]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    """Packages that are not installed; what needs them was left out."""

    @property
    def rounds(self) -> int:
        """Rounds in which every library has had its turn."""
        return min((len(runs) for runs in self.runs.values()), default=0)

    @property
    def medians(self) -> dict[str, Run]:
        """Of each library that has run."""
        return {library: median_run(runs) for library, runs in self.runs.items() if runs}


Report = Callable[[str, float], object]
"""Told what is being done, and the share of all that is done."""


async def run_all(outcomes: Sequence[Outcome], rounds: int, report: Report) -> None:
    """Run every scenario. Cancelled, it keeps what was measured until then.

    Raises:
        JobFailed: a library could not do its work.
    """
    for number, outcome in enumerate(outcomes):

        def tell(label: str, share: float, number: int = number) -> None:
            report(label, (number + share) / len(outcomes))

        await run_rounds(outcome, rounds, tell)
    report("done", 1)


async def run_rounds(outcome: Outcome, rounds: int, report: Report) -> None:
    """Make ``rounds`` rounds of one scenario."""
    scenario = outcome.scenario
    packages = {library: re.split(r"\W", library, maxsplit=1)[0] for library in scenario.messages}
    outcome.missing = {package for package in (*scenario.needs, *packages.values()) if find_spec(package) is None}
    if not outcome.missing.isdisjoint(scenario.needs):
        return
    libraries = [library for library, package in packages.items() if package not in outcome.missing]
    outcome.runs = {library: [] for library in libraries}
    client_core, server_core = cores()
    total, done = rounds * len(libraries), 0
    async with AsyncExitStack() as stack:
        kinds = {kind for library in libraries if (kind := scenario.server_of(library)) is not None}
        urls = {kind: await stack.enter_async_context(server(kind, server_core)) for kind in sorted(kinds)}
        for number in range(rounds):
            for library in libraries if number % 2 == 0 else reversed(libraries):
                label = f"{scenario.name}: {library}, round {number + 1} of {rounds}"

                def tell(share: float, label: str = label, done: int = done) -> None:
                    report(label, (done + share) / total)

                tell(0)
                url = urls.get(scenario.server_of(library) or "", "")
                run = await run_job(scenario.job(library, url), client_core, tell)
                outcome.runs[library].append(run)
                done += 1
                await asyncio.sleep(0.1)  # lets the sockets of one client be gone before the next comes
