"""What the charts show: a value of each series for each reading. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from penstock.metrics import catalogue as m
from penstock.metrics.catalogue import Metric
from penstock.metrics.history import quantile_between
from penstock.metrics.samples import Labels, MetricsSnapshot


@dataclass(frozen=True, slots=True)
class Step:
    """What happened between two readings. Everything is None where nothing is known."""

    before: MetricsSnapshot
    now: MetricsSnapshot

    def gauge(self, metric: Metric, **labels: str | Labels) -> float | None:
        """What it is now."""
        return self.now.value(metric, **labels)

    def counted(self, metric: Metric, **labels: str | Labels) -> float | None:
        """What was counted; where the counter began anew, all that it has."""
        now = self.now.value(metric, **labels)
        then = self.before.value(metric, **labels) or 0.0
        return now if now is None or now < then else now - then

    def rate(self, metric: Metric, **labels: str | Labels) -> float | None:
        """The same for each second."""
        counted, elapsed = self.counted(metric, **labels), self.now.at - self.before.at
        return counted / elapsed if counted is not None and elapsed > 0 else None

    def quantile(self, metric: Metric, q: float, **labels: str) -> float | None:
        """Of what was recorded."""
        return quantile_between([(self.now.histogram(metric, **labels), self.before.histogram(metric, **labels))], q)

    def mean(self, metric: Metric) -> float | None:
        """Likewise."""
        values = self.now.histogram(metric).since(self.before.histogram(metric))
        return values.mean if values.count else None

    def share(self, metric: Metric, **labels: str | Labels) -> float | None:
        """Which part of all that was counted has these labels."""
        of_all = self.counted(metric)
        return (self.counted(metric, **labels) or 0.0) / of_all if of_all else None


Of: TypeAlias = Callable[[Step], float | None]


def _gauge(metric: Metric, **labels: str) -> Of:
    return lambda step: step.gauge(metric, **labels)


def _rate(metric: Metric, **labels: str) -> Of:
    return lambda step: step.rate(metric, **labels)


def _quantile(metric: Metric, q: float, **labels: str) -> Of:
    return lambda step: step.quantile(metric, q, **labels)


SERIES: Mapping[str, Of] = {
    "messages_sent": _rate(m.MESSAGES, role="client", direction="sent"),
    "messages_received": _rate(m.MESSAGES, role="client", direction="received"),
    "bytes_sent": _rate(m.MESSAGE_BYTES, role="client", direction="sent"),
    "bytes_received": _rate(m.MESSAGE_BYTES, role="client", direction="received"),
    "pool_in_use": _gauge(m.POOL_CONNECTIONS, state="in_use"),
    "pool_idle": _gauge(m.POOL_CONNECTIONS, state="idle"),
    "pool_waiting": _gauge(m.POOL_WAITERS),
    "pool_max": _gauge(m.POOL_CONNECTIONS_MAX),
    "acquire_p50": _quantile(m.POOL_ACQUIRE_WAIT, 0.5),
    "acquire_p99": _quantile(m.POOL_ACQUIRE_WAIT, 0.99),
    "batch_size": lambda step: step.mean(m.BATCH_MESSAGES),
    "batch_pending": _gauge(m.BATCH_PENDING_MESSAGES),
    "batch_wait_p50": _quantile(m.BATCH_WAIT, 0.5),
    "batch_wait_p99": _quantile(m.BATCH_WAIT, 0.99),
    "cache_hit_ratio": lambda step: step.share(m.CACHE_REQUESTS, result=("hit", "stale")),
    "cache_entries": _gauge(m.CACHE_ENTRIES),
    "ping_p50": _quantile(m.PING_RTT, 0.5, role="client"),
    "ping_p99": _quantile(m.PING_RTT, 0.99, role="client"),
    "lag_p50": _quantile(m.EVENT_LOOP_LAG, 0.5),
    "lag_p99": _quantile(m.EVENT_LOOP_LAG, 0.99),
    "memory": _gauge(m.MEMORY),
}
"""By name, in the units of the metrics, rates for each second. The dashboard's own connections are a server's."""


def points_after(snapshots: Iterable[MetricsSnapshot], since: float) -> dict[str, list[Any]]:
    """The series in columns, for each reading that is younger; ``at`` is their times, in monotonic seconds.

    Values have six digits. The first reading of all has no point: nothing is known from before it.
    """
    steps = [Step(before, now) for before, now in pairwise(snapshots) if now.at > since]
    columns: dict[str, list[Any]] = {name: [_short(of(step)) for step in steps] for name, of in SERIES.items()}
    return {"at": [step.now.at for step in steps], **columns}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
