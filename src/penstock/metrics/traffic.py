"""What connections count as they work: plain numbers, a block for each thread and role, summed when somebody asks.

A block has one writer, its thread, so that counting takes no lock; a thread that gets the number of one that is gone
goes on with its block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from typing import Literal

from penstock.metrics import catalogue as m
from penstock.metrics.catalogue import Metric
from penstock.metrics.histogram import Histogram
from penstock.metrics.samples import Sample, total

Role = Literal["client", "server"]
ROLES: tuple[Role, ...] = ("client", "server")

MAX_NAMES = 64
"""Close codes, names of errors, or reasons, that are told apart: others choose them. The rest counts as `OTHER`."""
OTHER = "other"


class Arrivals:
    """Messages that have arrived."""

    __slots__ = ("bytes", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.bytes = 0
        """Their payload."""

    def add(self, other: Arrivals) -> None:
        """Add what another has counted."""
        self.messages += other.messages
        self.bytes += other.bytes


class Traffic:
    """What the connections of one thread, that are all clients' or all servers', have counted."""

    __slots__ = (
        "closes",
        "durations",
        "errors",
        "lost_sessions",
        "received",
        "redelivered",
        "resumes",
        "rtt",
        "sent",
        "sent_bytes",
        "wire_bytes",
    )

    def __init__(self) -> None:
        self.sent = 0
        """Messages."""
        self.sent_bytes = 0
        """Their payload."""
        self.wire_bytes = 0
        """What was written, opening handshakes left out."""
        self.received = Arrivals()
        self.resumes = 0
        """Sessions that went on over another connection."""
        self.lost_sessions = 0
        self.redelivered = 0
        """Messages that were written again, over another connection."""
        self.rtt = Histogram()
        self.durations = Histogram()
        """Of connections that have ended."""
        self.closes = {"1000": 0, "1001": 0, "1006": 0}
        """Connections by close code."""
        self.errors = {"ConnectionClosedError": 0}
        """By the exception's name."""

    def closed(self, code: int | None, seconds: float, error: BaseException | None) -> None:
        """A connection has ended, after so long, with an error if that was not in order."""
        self.durations.record(seconds)
        tally(self.closes, str(code or 1006))
        if error is not None:
            tally(self.errors, type(error.__cause__ or error).__name__)


def tally(numbers: dict[str, int], name: str) -> None:
    """Count one more by a name that somebody else chooses: when there are many names, as `OTHER`."""
    if name not in numbers and len(numbers) >= MAX_NAMES:
        name = OTHER
    numbers[name] = numbers.get(name, 0) + 1


_blocks: dict[tuple[int, Role], Traffic] = {}


def traffic_of(role: Role) -> Traffic:
    """The block in which the calling thread counts for one role."""
    return _blocks.setdefault((get_ident(), role), Traffic())


_NUMBERS: tuple[tuple[Metric, tuple[str, ...], Callable[[Traffic], int]], ...] = (
    (m.MESSAGES, ("sent",), lambda traffic: traffic.sent),
    (m.MESSAGES, ("received",), lambda traffic: traffic.received.messages),
    (m.MESSAGE_BYTES, ("sent",), lambda traffic: traffic.sent_bytes),
    (m.MESSAGE_BYTES, ("received",), lambda traffic: traffic.received.bytes),
    (m.WIRE_BYTES, ("sent",), lambda traffic: traffic.wire_bytes),
)
"""Metrics with a role and a direction, and where they are counted."""


def traffic_samples() -> Iterator[Sample]:
    """A `penstock.metrics.samples.Source`: what all connections of the process have counted."""
    blocks: dict[Role, list[Traffic]] = {role: [] for role in ROLES}
    for (_, role), traffic in list(_blocks.items()):  # the list in one step: other threads add blocks meanwhile
        blocks[role].append(traffic)
    for role, its in blocks.items():
        for metric, direction, count in _NUMBERS:
            yield Sample(metric, sum(map(count, its)), (role, *direction))
        yield Sample(m.PING_RTT, total(traffic.rtt.snapshot() for traffic in its), (role,))
        yield Sample(m.CONNECTION_DURATION, total(traffic.durations.snapshot() for traffic in its), (role,))
        yield from _named(m.CLOSES, role, (traffic.closes for traffic in its))
        yield from _named(m.ERRORS, role, (traffic.errors for traffic in its))
    both = [traffic for its in blocks.values() for traffic in its]
    yield Sample(m.SESSION_RESUMES, sum(traffic.resumes for traffic in both))
    yield Sample(m.SESSION_LOST, sum(traffic.lost_sessions for traffic in both))
    yield Sample(m.REDELIVERED, sum(traffic.redelivered for traffic in both))


def _named(metric: Metric, role: Role, counted: Iterable[dict[str, int]]) -> Iterator[Sample]:
    for numbers in counted:
        for name, number in list(numbers.items()):
            yield Sample(metric, number, (role, name))
