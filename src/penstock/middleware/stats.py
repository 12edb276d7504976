"""What the middleware tells about itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from penstock.batch.stats import BatchTotals, add_counts
from penstock.cache.stats import CacheStats
from penstock.manager.budget import Budget
from penstock.manager.switch import Mode, Stage, Transition
from penstock.metrics.histogram import HistogramSnapshot
from penstock.middleware.line import Line
from penstock.pool.stats import PoolStats


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingStats:
    """What `PerformanceMiddleware.send` has and has done; counters count from the middleware's making."""

    urls: int
    """Servers that messages were sent to lately."""
    pending_messages: int
    """Messages that were accepted and are not written."""
    pending_bytes: int
    """Bytes of payload, likewise."""
    waiting: int
    """Callers that wait because too much is pending."""
    dropped: dict[str, int]
    """Messages that were accepted and not sent, by reason: those of `BatchStats.dropped`."""
    delivered: int
    """Messages that left in batches; those that went to a connection at once are its own."""
    deduplicated: int
    """Messages that were not sent because an equal one was, or will be."""
    conflated: int
    """Messages that were not sent because a later one with the same key was, or will be."""
    batches: dict[str, int]
    """Batches that left, by reason, as in `BatchStats.batches`."""
    sizes: dict[int, int]
    """Batches that left, by messages, as in `BatchStats.sizes`."""
    wait: HistogramSnapshot
    """Seconds that the first message of each batch waited."""
    undelivered: int
    """Messages of which it is not known whether they arrived, of connections that could not be resumed, or that the
    server closed before it told."""
    breaks: int
    """Connections that ended otherwise than in order."""
    unread: int
    """Messages that servers sent and that were dropped, because there is no ``on_message``."""


class SendingCounts:
    """What lines have counted that are not there any more."""

    def __init__(self) -> None:
        self.batches = BatchTotals()
        self.dropped: dict[str, int] = {}
        self.undelivered = self.breaks = self.unread = 0

    def add(self, line: Line) -> None:
        """A line is given up, and its counts go on."""
        self.batches.add(line.totals())
        add_counts(self.dropped, line.dropped)
        self.undelivered += line.carrier.undelivered
        self.breaks += line.carrier.breaks
        self.unread += line.carrier.unread

    def snapshot(self, lines: Collection[Line], budget: Budget) -> SendingStats:
        """What these lines and those before them have counted."""
        total = SendingCounts()
        total.batches.add(self.batches)
        total.dropped |= self.dropped
        total.undelivered, total.breaks, total.unread = self.undelivered, self.breaks, self.unread
        for line in lines:
            total.add(line)
        batches = total.batches
        return SendingStats(
            urls=len(lines),
            pending_messages=budget.messages,
            pending_bytes=budget.bytes,
            waiting=budget.waiting,
            dropped=total.dropped,
            delivered=batches.delivered,
            deduplicated=batches.deduplicated,
            conflated=batches.conflated,
            batches=batches.batches,
            sizes=batches.sizes,
            wait=batches.wait,
            undelivered=total.undelivered,
            breaks=total.breaks,
            unread=total.unread,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceStats:
    """A snapshot of all stages."""

    uptime: float
    """Seconds since the middleware was made."""
    pool: PoolStats
    plain_connections: int
    """Connections that are lent and are not the pool's, because that is bypassed."""
    sending: SendingStats
    cache: CacheStats | None
    """None where it is not enabled."""
    modes: dict[str, dict[Stage, Mode]]
    """The mode of each stage, by URL."""
    speedups: dict[Stage, float | None]
    """How many times as long the plain way takes; None where that is not known."""
    failures: dict[Stage, int]
    """Operations that took the plain way because a stage had failed."""
    transitions: tuple[Transition, ...]
    """The latest changes of mode, oldest first."""
    memory_bytes: int
    """What is pending and what is cached, in bytes of payload."""
