"""What a run says about itself. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one client process does."""

    work: str
    """``one-way``, ``round-trip``, ``acquire``: a name of `penstock.traffic.jobs.WORK`."""
    library: str
    """Whose client does it: a name of `penstock.traffic.libraries.LIBRARIES`, or of what else the work is done with."""
    url: str = ""
    messages: int = 0
    size_bytes: int = 64
    """Of each message's payload; messages differ in content."""
    content: Literal["digits", "telemetry"] = "digits"
    """Of messages: digits as text, of that size, or JSON as machines send it, of its own."""
    connections: int = 1
    callers: int = 1
    """Tasks that borrow those connections at the same time."""
    repeats: float = 0.0
    """Share of calls that ask what was asked before."""
    burst: int = 1
    """Messages that are broadcast in one go."""
    seconds: float = 25
    """How long connections are held: a ping is due every 20 s."""
    embedded: bool = True
    """The server is `penstock.traffic.server`, which counts and answers; else it is the user's, asked by ping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job, done once."""

    messages: int = 0
    """Messages that went through."""
    seconds: float = 0.0
    """Wall-clock time for all of them."""
    wire_bytes: int | None = None
    """Bytes that the client wrote to its socket meanwhile; None where the platform does not tell."""
    client_cpu: float = 0.0
    """Share of one core that the client used."""
    server_cpu: float | None = None
    """Share of one core that the embedded server used; None for a server of the user's."""
    lost: int = 0
    """Messages that never arrived."""
    doubled: int = 0
    """Messages that arrived more than once."""
    reached: int = 0
    """Calls that the server was asked; the others were answered by the client's cache."""
    p50: float = 0.0
    """Seconds: half of the round trips were faster."""
    p99: float = 0.0
    """Seconds: 99 of 100 round trips were faster."""
    cpu_each: float = 0.0
    """Processor time of the thread, in seconds, that one use of a connection took."""
    bytes_each: float = 0.0
    """Resident memory that one connection took."""
    grown_bytes: int | None = None
    """Resident memory that came to what the process had when it was warm; None where the platform does not tell."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds if self.seconds else 0.0

    @property
    def wire_each(self) -> float:
        """Bytes on the wire for a message; 0 where the platform does not tell."""
        return (self.wire_bytes or 0) / self.messages if self.messages else 0.0

    @property
    def cpu_of_both(self) -> float:
        """Processor time, in seconds, that a message took at both ends."""
        share = self.client_cpu + (self.server_cpu or 0.0)
        return share * self.seconds / self.messages if self.messages else 0.0

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "rate": self.rate}


def quantile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank quantile of an ascending sequence."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median_run(runs: Sequence[Run]) -> Run:
    """Field by field, the median of several runs."""

    def middle(name: str) -> Any:
        values = [value for run in runs if (value := getattr(run, name)) is not None]
        return median(values) if values else None

    return Run(**{field.name: middle(field.name) for field in fields(Run)})
