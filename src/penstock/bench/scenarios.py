"""What is measured, against whom, and what it has to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from penstock.traffic.measure import Job, Run


@dataclass(frozen=True, slots=True)
class Figure:
    """What of a run is compared."""

    name: str
    unit: str
    of: Callable[[Run], float]
    scale: float
    """The unit's worth in the run's own: 1e6 shows seconds in microseconds."""
    better: Literal["more", "less"]


RATE = Figure("throughput", "messages/s", lambda run: run.rate, 1, "more")
CALLS = Figure("throughput", "calls/s", lambda run: run.rate, 1, "more")
REACHED = Figure("asked of the server", "% of calls", lambda run: run.reached / run.messages, 100, "less")
P50 = Figure("p50", "us", lambda run: run.p50, 1e6, "less")
P99 = Figure("p99", "us", lambda run: run.p99, 1e6, "less")
MEMORY = Figure("memory", "KiB/connection", lambda run: run.bytes_each, 1 / 1024, "less")
CORE = Figure("idle core", "% of a core", lambda run: run.client_cpu, 100, "less")
CPU = Figure("CPU", "us each", lambda run: run.cpu_each, 1e6, "less")
HIT = Figure("CPU", "ns each", lambda run: run.cpu_each, 1e9, "less")
BOTH = Figure("both CPU", "us each", lambda run: run.cpu_of_both, 1e6, "less")
WIRE = Figure("wire", "B each", lambda run: run.wire_each, 1, "less")
START = Figure("time", "ms", lambda run: run.p50, 1e3, "less")


@dataclass(frozen=True, slots=True)
class Target:
    """What ``penstock`` has to reach in one figure.

    ``bound`` limits the ratio penstock / peer (at least, where more is better; at most, where less is); with
    ``difference`` it limits penstock - peer in the figure's unit, and without a peer the figure itself; with ``saving``
    it is how many per cent less than the peer's the figure has to be.
    """

    figure: Figure
    against: str | None
    bound: float
    difference: bool = False
    saving: bool = False
    of: str = "penstock"
    """Whose figure it is, where penstock is measured in several ways."""

    def value(self, runs: dict[str, Run]) -> float:
        """What was reached."""
        mine = self.figure.of(runs[self.of])
        if self.against is None:
            return mine * self.figure.scale
        other = self.figure.of(runs[self.against])
        if self.saving:
            return (1 - mine / other) * 100
        return (mine - other) * self.figure.scale if self.difference else mine / other

    def met(self, value: float) -> bool:
        """Whether that is enough."""
        return value >= self.bound if self.saving or self.figure.better == "more" else value <= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing to measure. Every library does the same work; only how much of it differs, so that all take as long."""

    name: str
    title: str
    server: str | dict[str, str] | None
    """The embedded server's kind, of `penstock.traffic.server.SERVERS`, for all libraries or for each; None where the
    work needs none."""
    path: str = ""
    work: str
    messages: dict[str, int]
    """For each library, penstock among them, how many."""
    connections: int = 1
    callers: int = 1
    repeats: float = 0.0
    burst: int = 1
    content: Literal["digits", "telemetry"] = "digits"
    figures: tuple[Figure, ...]
    targets: tuple[Target, ...]
    needs: tuple[str, ...] = ()
    """Packages, beside the libraries themselves, without which nothing of it can be measured."""

    def job(self, library: str, url: str) -> Job:
        """What a client of ``library`` has to do."""
        return Job(
            work=self.work,
            library=library,
            url=url + self.path,
            messages=self.messages[library],
            connections=self.connections,
            callers=self.callers,
            repeats=self.repeats,
            burst=self.burst,
            content=self.content,
        )

    def server_of(self, library: str) -> str | None:
        """The kind of server that a library's client talks to."""
        return self.server[library] if isinstance(self.server, dict) else self.server


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="one-way",
            title="one way, 64 B, coalesced, to an unmodified picows server",
            server="picows",
            path="/sink",
            work="one-way",
            messages={
                "websockets": 200_000,
                "picows.websockets": 300_000,
                "picows": 300_000,
                "penstock": 2_000_000,
                "penstock.accelerate": 2_000_000,
            },
            figures=(RATE,),
            targets=(Target(RATE, "websockets", 12), Target(RATE, "picows", 6)),
        ),
        Scenario(
            name="one-way-websockets",
            title="one way, 64 B, coalesced, to an unmodified websockets server",
            server="websockets",
            path="/sink",
            work="one-way",
            messages={"websockets": 200_000, "picows": 300_000, "penstock": 400_000},
            figures=(RATE,),
            targets=(Target(RATE, "websockets", 2),),
        ),
        Scenario(
            name="round-trip",
            title="sequential round trip, 64 B, to an unmodified picows server",
            server="picows",
            path="/echo",
            work="round-trip",
            messages={"websockets": 20_000, "picows.websockets": 20_000, "picows": 20_000, "penstock": 20_000},
            figures=(P50, P99),
            targets=(Target(P50, "picows.websockets", 1.05), Target(P99, "picows.websockets", 1.1)),
        ),
        Scenario(
            name="envelope",
            title="one way, 64 B, each library at both ends; penstock's with every message acknowledged",
            server={
                "websockets": "websockets",
                "picows.websockets": "picows.websockets",
                "penstock reliable=False": "penstock",
                "penstock, acknowledged": "penstock",
            },
            path="/sink",
            work="one-way",
            messages={
                "websockets": 200_000,
                "picows.websockets": 300_000,
                "penstock reliable=False": 1_500_000,
                "penstock, acknowledged": 4_000_000,
            },
            figures=(RATE,),
            targets=(
                Target(RATE, "websockets", 30, of="penstock, acknowledged"),
                Target(RATE, "picows.websockets", 18, of="penstock, acknowledged"),
            ),
        ),
        Scenario(
            name="middleware",
            title="one way, 64 B, envelope at both ends, acknowledged: what the middleware takes of it",
            server="penstock",
            path="/sink",
            work="one-way",
            messages={
                "penstock, acknowledged": 4_000_000,
                "penstock, pipe.connection": 4_000_000,
                "penstock, pipe.send": 2_000_000,
                "penstock, metrics off": 4_000_000,
                "penstock, metrics on": 4_000_000,
            },
            figures=(RATE, BOTH),
            targets=(
                Target(RATE, "penstock, acknowledged", 0.85, of="penstock, pipe.connection"),
                Target(RATE, "penstock, acknowledged", 0.5, of="penstock, pipe.send"),
                Target(RATE, "penstock, metrics off", 0.97, of="penstock, metrics on"),
            ),
        ),
        Scenario(
            name="envelope-round-trip",
            title="sequential round trip, 64 B, with the envelope and without, penstock at both ends",
            server="penstock",
            path="/echo",
            work="round-trip",
            messages={"penstock reliable=False": 20_000, "penstock": 20_000},
            figures=(P50, P99),
            targets=(Target(P50, "penstock reliable=False", 1.1),),
        ),
        Scenario(
            name="telemetry",
            title="JSON of 75 to 300 B one way, compressed; each library at both ends",
            server={
                "websockets, deflate": "websockets, deflate",
                "penstock, acknowledged": "penstock",
                "penstock, compressed": "penstock",
            },
            path="/sink",
            work="one-way",
            content="telemetry",
            messages={
                "websockets, deflate": 60_000,
                "penstock, acknowledged": 500_000,
                "penstock, compressed": 500_000,
            },
            figures=(WIRE, BOTH, RATE),
            targets=(
                Target(WIRE, "websockets, deflate", 0.6, of="penstock, compressed"),
                Target(BOTH, "websockets, deflate", 0.1, of="penstock, compressed"),
            ),
        ),
        Scenario(
            name="broadcast",
            title="one message to 1000 connections",
            server="audience",
            work="broadcast",
            messages={"websockets": 100, "penstock": 100},
            connections=1000,
            figures=(RATE, P50),
            targets=(Target(RATE, "websockets", 2),),
        ),
        Scenario(
            name="broadcast-burst",
            title="ten messages in a row to 1000 connections",
            server="audience",
            work="broadcast",
            messages={"websockets": 200, "penstock": 200},
            connections=1000,
            burst=10,
            figures=(RATE, P50),
            targets=(Target(RATE, "websockets", 2),),
        ),
        Scenario(
            name="hold",
            title="10,000 connections held in one process, pinged every 20 s",
            server="picows",
            path="/sink",
            work="hold",
            messages={"websockets": 10_000, "penstock": 10_000},
            connections=10_000,
            figures=(MEMORY, CORE),
            targets=(Target(MEMORY, "websockets", 1.3), Target(CORE, None, 10)),
        ),
        Scenario(
            name="pool-connect",
            title="a connection of a warm pool, borrowed and returned, and a new one, opened and closed",
            server="picows",
            path="/echo",
            work="connect",
            messages={"websockets": 1000, "penstock": 100_000},
            figures=(P50, P99, CPU),
            targets=(Target(P50, "websockets", 99.5, saving=True),),
        ),
        Scenario(
            name="pool-connect-tls",
            title="the same over TLS",
            server="picows-tls",
            path="/echo",
            work="connect",
            messages={"websockets": 500, "penstock": 100_000},
            figures=(CPU, P50),
            targets=(Target(CPU, "websockets", 99.9, saving=True),),
            needs=("trustme",),
        ),
        Scenario(
            name="pool-acquire",
            title="a connection borrowed and returned, nobody else about; pools of drivers lend stand-ins, no database",
            server=None,
            work="acquire",
            messages={"psycopg_pool": 50_000, "asyncpg": 20_000, "collections.deque": 1_000_000, "penstock": 400_000},
            connections=10,
            figures=(CPU,),
            targets=(Target(CPU, None, 1.0),),
        ),
        Scenario(
            name="pool-contended",
            title="the same, 100 tasks on 10 connections, less the sleep(0) in each turn",
            server=None,
            work="contend",
            messages={"psycopg_pool": 20_000, "asyncpg": 10_000, "collections.deque": 200_000, "penstock": 100_000},
            connections=10,
            callers=100,
            figures=(CPU,),
            targets=(Target(CPU, None, 4.5),),
        ),
        Scenario(
            name="pool-crowded",
            title="a connection borrowed and returned, in a pool with many others",
            server=None,
            work="acquire",
            messages={"penstock": 400_000, "penstock, 10,000 idle": 400_000, "penstock, 1000 URLs": 400_000},
            figures=(CPU,),
            targets=(
                Target(CPU, "penstock", 1.1, of="penstock, 10,000 idle"),
                Target(CPU, "penstock", 1.1, of="penstock, 1000 URLs"),
            ),
        ),
        Scenario(
            name="batcher",
            title="1000 messages added to a batcher, its full batches delivered meanwhile",
            server=None,
            work="gather",
            messages={"penstock": 200_000},
            figures=(START,),
            targets=(Target(START, None, 1.0),),
        ),
        Scenario(
            name="cache-hit",
            title="a hit in a cache of 1000 entries, time to live checked; penstock counts it, and others may use it",
            server=None,
            work="cache-hit",
            messages={
                "cachetools": 400_000,
                "moka_py": 2_000_000,
                "theine": 400_000,
                "penstock": 2_000_000,
                "penstock, S3-FIFO": 2_000_000,
            },
            figures=(HIT,),
            targets=(Target(HIT, None, 150),),
        ),
        Scenario(
            name="calls",
            title="64 tasks calling a JSON-RPC server of picows over one URL, no two calls alike",
            server="jsonrpc",
            work="calls",
            messages={
                "websockets": 60_000,
                "websockets, msgspec": 60_000,
                "penstock": 200_000,
                "penstock, arrays": 200_000,
            },
            callers=64,
            figures=(CALLS, P50, P99),
            targets=(Target(CALLS, "websockets", 5), Target(CALLS, "websockets", 5, of="penstock, arrays")),
        ),
        Scenario(
            name="calls-repeated",
            title="the same, nine of ten calls as one of the last 500 before; times of these",
            server="jsonrpc",
            work="calls",
            messages={
                "websockets": 60_000,
                "websockets, msgspec": 60_000,
                "penstock": 1_000_000,
                "penstock, arrays": 1_000_000,
            },
            callers=64,
            repeats=0.9,
            figures=(CALLS, P50, P99, REACHED),
            targets=(
                Target(CALLS, "websockets", 40),
                Target(CALLS, "websockets", 40, of="penstock, arrays"),
                Target(P99, None, 50),
            ),
        ),
        Scenario(
            name="import",
            title="import time",
            server=None,
            work="import",
            messages={"websockets": 10, "penstock": 10},
            figures=(START,),
            targets=(Target(START, "websockets", 15, difference=True),),
        ),
    )
}
"""All of them, by name."""
