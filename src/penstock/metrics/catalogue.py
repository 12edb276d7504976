"""Every metric there is: one table, from which all names, exports and reference pages are made. Pure.

Naming is mechanical: ``penstock.pool.acquire_wait`` in seconds is ``penstock_pool_acquire_wait_seconds``. No label has
a URL, a peer or a connection in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["", "seconds", "bytes", "ratio"]

DURATION_BOUNDS = (
    *(0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025),
    *(0.05, 0.1, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0),
)
"""Seconds at which exported histograms count; the thresholds of the default alerts are among them."""
COUNT_BOUNDS = tuple(float(1 << power) for power in range(17))


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """What is measured. Two metrics are equal if they are the same object."""

    name: str
    """With dots, without its unit."""
    kind: Kind
    help: str
    """A phrase without a full stop."""
    unit: Unit = ""
    labels: tuple[str, ...] = ()

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus' text format: with the unit, and ``_total`` if it counts."""
        unit = f"_{self.unit}" if self.unit else ""
        total = "_total" if self.kind == "counter" else ""
        return self.name.replace(".", "_") + unit + total

    @property
    def bounds(self) -> tuple[float, ...]:
        """At which an exported histogram counts, in the metric's unit."""
        return DURATION_BOUNDS if self.unit == "seconds" else COUNT_BOUNDS

    def __repr__(self) -> str:
        return f"<Metric {self.name}>"


CATALOGUE: dict[str, Metric] = {}
"""Metrics by their names with dots, in the order of their definition."""


def find(name: str | Metric) -> Metric:
    """The metric with this name, which may have dots or be Prometheus'; ``penstock.`` may be left out.

    Raises:
        KeyError: there is none.
    """
    if isinstance(name, Metric):
        return name
    found = CATALOGUE.get(name) or CATALOGUE.get(f"penstock.{name}") or _by_prometheus_name(name)
    if found is None:
        raise KeyError(f"{name!r} is no metric; penstock.metrics.catalogue has them all")
    return found


def _by_prometheus_name(name: str) -> Metric | None:
    full = name if name.startswith("penstock_") else f"penstock_{name}"
    return next((metric for metric in CATALOGUE.values() if metric.prometheus_name == full), None)


def _add(name: str, kind: Kind, text: str, unit: Unit = "", *, labels: str = "") -> Metric:
    metric = CATALOGUE[f"penstock.{name}"] = Metric(f"penstock.{name}", kind, text, unit, tuple(labels.split()))
    return metric


POOL_CONNECTIONS = _add(
    "pool.connections",
    "gauge",
    "Connections of a pool; state is idle, in_use, connecting or closing",
    labels="pool state",
)
POOL_CONNECTIONS_MAX = _add("pool.connections_max", "gauge", "Connections that a pool may have", labels="pool")
POOL_CONNECTIONS_MIN = _add("pool.connections_min", "gauge", "Connections that a pool keeps", labels="pool")
POOL_WAITERS = _add("pool.waiters", "gauge", "Callers that wait for a connection", labels="pool")
POOL_ACQUIRES = _add(
    "pool.acquires",
    "counter",
    "Requests for a connection; outcome is immediate, waited, timeout, cancelled or error",
    labels="pool outcome",
)
POOL_ACQUIRE_WAIT = _add(
    "pool.acquire_wait", "histogram", "How long callers waited for a connection", "seconds", labels="pool"
)
POOL_USE = _add("pool.use", "histogram", "How long connections were lent", "seconds", labels="pool")
POOL_CONNECT = _add("pool.connect", "histogram", "How long opening a connection took", "seconds", labels="pool")
POOL_CONNECTS = _add(
    "pool.connects", "counter", "Attempts to open a connection; outcome is opened or failed", labels="pool outcome"
)
POOL_CLOSED = _add("pool.closed", "counter", "Connections that a pool has closed", labels="pool reason")

BATCH_FLUSHES = _add("batch.flushes", "counter", "Batches that left, by what made them leave", labels="reason")
BATCH_MESSAGES = _add("batch.messages", "histogram", "Messages of a batch")
BATCH_WAIT = _add("batch.wait", "histogram", "How long the oldest message of a batch waited", "seconds")
BATCH_WAIT_MAX = _add("batch.wait_max", "gauge", "How long a message may wait for others, as configured", "seconds")
BATCH_PENDING_MESSAGES = _add("batch.pending_messages", "gauge", "Messages that wait to be sent")
BATCH_PENDING_MESSAGES_MAX = _add("batch.pending_messages_max", "gauge", "Messages that may wait to be sent")
BATCH_PENDING = _add("batch.pending", "gauge", "Payload that waits to be sent", "bytes")
BATCH_DROPPED = _add(
    "batch.dropped_messages", "counter", "Messages that were accepted and will not be delivered", labels="reason"
)
BATCH_DEDUPLICATED = _add(
    "batch.deduplicated_messages",
    "counter",
    "Messages for which another is delivered; reason is duplicate or conflated",
    labels="reason",
)

CACHE_REQUESTS = _add(
    "cache.requests", "counter", "Questions to the cache; result is hit, miss, stale or coalesced", labels="result"
)
CACHE_EVICTIONS = _add("cache.evictions", "counter", "Entries that left the cache", labels="reason")
CACHE_ENTRIES = _add("cache.entries", "gauge", "Entries of the cache")
CACHE_SIZE = _add("cache.size", "gauge", "What the cache's values weigh", "bytes")

MESSAGES = _add("messages", "counter", "Messages; direction is sent or received", labels="role direction")
MESSAGE_BYTES = _add(
    "message",
    "counter",
    "Payload of messages; of those that came together over the envelope as it was packed, 1 to 5 bytes more for each",
    "bytes",
    labels="role direction",
)
WIRE_BYTES = _add(
    "wire",
    "counter",
    "What was written to the network, headers of frames included, opening handshakes not; direction is sent",
    "bytes",
    labels="role direction",
)
SESSION_RESUMES = _add("session.resumes", "counter", "Sessions that went on over another connection")
SESSION_LOST = _add("session.lost", "counter", "Sessions that could not go on")
REDELIVERED = _add("redelivered_messages", "counter", "Messages that were sent again after a break")
PING_RTT = _add("ping.rtt", "histogram", "Round trips of pings", "seconds", labels="role")
CONNECTION_DURATION = _add(
    "connection.duration", "histogram", "How long connections were open", "seconds", labels="role"
)
ERRORS = _add("errors", "counter", "What went wrong on connections, by the exception's name", labels="role error_type")
CLOSES = _add("closes", "counter", "Connections that ended, by close code", labels="role code")

FALLBACK_ACTIVE = _add("fallback.active", "gauge", "1 while a stage is bypassed", labels="stage")
FALLBACK_TRANSITIONS = _add("fallback.transitions", "counter", "Changes of a stage's mode", labels="stage to reason")
OPTIMIZATION_SPEEDUP = _add(
    "optimization.speedup", "gauge", "How many times faster a stage is than the plain way", "ratio", labels="stage"
)
MEMORY = _add("memory", "gauge", "What is kept for pending messages and the cache", "bytes")
MEMORY_BUDGET = _add("memory_budget", "gauge", "What may be kept for them, as configured", "bytes")

EVENT_LOOP_LAG = _add("event_loop_lag", "histogram", "How late the event loop calls what is due", "seconds")
SELF = _add("self", "counter", "Time spent on reading metrics and judging alerts", "seconds")
SELF_FAILURES = _add(
    "self_failures",
    "counter",
    "What went wrong in doing so; what is source, watcher, rule, sink or queue",
    labels="what",
)
ALERTS_FIRING = _add("alerts.firing", "gauge", "Alerts that are firing", labels="alertname severity")
BUILD_INFO = _add("build_info", "gauge", "1; its labels say what runs", labels="version python")
