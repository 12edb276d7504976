"""What penstock is to reach, and what of the tour tells whether it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from penstock.demo.tour import CROWD, PENSTOCK, PLAIN, Tour

MIB = 1024 * 1024


class Criterion(NamedTuple):
    """One thing to reach."""

    name: str
    key: str
    target: str
    bound: float
    measured: Callable[[Tour], float | None]
    """In the unit of ``bound``; None if it was not measured."""
    show: Callable[[float], str]
    at_most: bool = False
    """``bound`` may not be exceeded; else it has to be reached."""
    embedded: bool = False
    """Whether only servers that the tour itself starts can tell it."""

    def met(self, value: float) -> bool:
        """Whether ``value`` is enough."""
        return value <= self.bound if self.at_most else value >= self.bound


def _connecting(tour: Tour) -> float | None:
    plain, ours = tour.findings[PLAIN].connecting, tour.findings[PENSTOCK].connecting
    return None if plain is None or ours is None else (1 - ours.p50 / plain.p50) * 100


def _throughput(tour: Tour) -> float | None:
    plain, ours = tour.findings[PLAIN].sending, tour.findings[PENSTOCK].sending
    return None if plain is None or ours is None else (ours.rate / plain.rate - 1) * 100


def _hit_ratio(tour: Tour) -> float | None:
    calling = tour.findings[PENSTOCK].calling
    return None if calling is None else (1 - calling.reached / calling.messages) * 100


def _cached_latency(tour: Tour) -> float | None:
    calling = tour.findings[PENSTOCK].calling
    return None if calling is None else calling.p99 * 1e3


def _connections(tour: Tour) -> float | None:
    crowd = tour.findings[PENSTOCK].crowd
    return None if crowd is None else crowd.messages


def _rate(tour: Tour) -> float | None:
    sending = tour.findings[PENSTOCK].sending
    return None if sending is None else sending.rate


def _growth(tour: Tour) -> float | None:
    rounds = tour.findings[PENSTOCK].rounds
    return None if rounds is None or rounds.grown_bytes is None else rounds.grown_bytes / MIB


CRITERIA = (
    Criterion(
        "having a connection, against a new one",
        "connection_time_saved_percent",
        "50 % less",
        50,
        _connecting,
        "{:.2f} % less".format,
    ),
    Criterion(
        "throughput, against the plain way",
        "throughput_gained_percent",
        "30 % more",
        30,
        _throughput,
        "{:+,.0f} %".format,
    ),
    Criterion("hit ratio of the cache", "hit_ratio_percent", "40 %", 40, _hit_ratio, "{:.1f} %".format, embedded=True),
    Criterion(
        "a cached answer, p99",
        "cached_latency_milliseconds",
        "10 ms at most",
        10,
        _cached_latency,
        "{:.3f} ms".format,
        at_most=True,
        embedded=True,
    ),
    Criterion("connections at once", "connections", f"{CROWD:,}", CROWD, _connections, "{:,.0f}".format, embedded=True),
    Criterion("messages a second", "messages_per_second", "10,000", 10_000, _rate, "{:,.0f}".format),
    Criterion(
        "memory growth under load, once warm",
        "memory_growth_mib",
        "4 MiB at most",
        4,
        _growth,
        "{:+.2f} MiB".format,
        at_most=True,
        embedded=True,
    ),
)
