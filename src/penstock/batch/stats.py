"""What a batcher counts, and what it tells about itself."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from penstock.batch.queue import BatchQueue
from penstock.metrics.histogram import EMPTY, Histogram, HistogramSnapshot

K = TypeVar("K", bound=Hashable)


class BatchCounts:
    """A batcher's counters: plain numbers, written by its own event loop alone."""

    def __init__(self) -> None:
        self.rejected = self.delivered = self.failures = 0
        self.dropped: dict[str, int] = {}
        self.batches: dict[str, int] = {}
        self.sizes: dict[int, int] = {}
        self.wait = Histogram()
        self.deliver = Histogram()

    def batch(self, trigger: str, messages: int) -> None:
        """A batch of so many messages leaves."""
        bound = 1 << (messages - 1).bit_length()
        self.batches[trigger] = self.batches.get(trigger, 0) + 1
        self.sizes[bound] = self.sizes.get(bound, 0) + 1

    def drop(self, reason: str, messages: int = 1) -> None:
        """So many messages were dropped."""
        self.dropped[reason] = self.dropped.get(reason, 0) + messages

    def snapshot(self, queue: BatchQueue, delivering: int, waiting: int) -> BatchStats:
        """What a batcher with this queue has, and what was counted."""
        return BatchStats(
            pending=queue.count,
            pending_bytes=queue.size,
            delivering=delivering,
            waiting=waiting,
            added=queue.added,
            rejected=self.rejected,
            delivered=self.delivered,
            deduplicated=queue.deduplicated,
            conflated=queue.conflated,
            dropped=dict(self.dropped),
            failures=self.failures,
            batches=dict(self.batches),
            sizes=dict(sorted(self.sizes.items())),
            wait=self.wait.snapshot(),
            deliver=self.deliver.snapshot(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStats:
    """A snapshot; counters count from the batcher's making.

    Every message that was added is one of ``pending``, ``delivering``, ``delivered``, ``deduplicated``, ``conflated``
    and ``dropped``.
    """

    pending: int
    """Messages that wait to be batched."""
    pending_bytes: int
    """Bytes of payload, likewise."""
    delivering: int
    """Messages in the batch that ``deliver`` has."""
    waiting: int
    """Callers of ``add_message`` that wait for room."""
    added: int
    """Messages that were accepted."""
    rejected: int
    """Messages that were refused because the queue was full; no others count here."""
    delivered: int
    """Messages for which ``deliver`` has returned."""
    deduplicated: int
    """Messages that were not delivered because an equal one was, or will be."""
    conflated: int
    """Messages that were not delivered because a later one with the same key was, or will be."""
    dropped: dict[str, int]
    """Messages that were accepted and will not be delivered, by reason: ``expired``, ``overflow`` (``drop_oldest`` or
    ``drop_newest``), ``failed`` (``deliver`` raised each time), ``closed`` (too late)."""
    failures: int
    """Calls of ``deliver`` that raised."""
    batches: dict[str, int]
    """Batches that left, by what made them leave: ``size``, ``bytes``, ``time``, ``tick`` (the end of the loop
    iteration), ``urgent``, ``manual`` (``flush_messages``), ``close``."""
    sizes: dict[int, int]
    """Batches that left, by messages: up to 1, 2, 4, 8 and so on, but more than the bound before."""
    wait: HistogramSnapshot
    """Seconds that the first message of each batch waited before the batch was handed to ``deliver``."""
    deliver: HistogramSnapshot
    """Seconds that calls of ``deliver`` took, those that raised among them."""


class BatchTotals:
    """What batchers have counted, those among them that are gone."""

    def __init__(self) -> None:
        self.batches: dict[str, int] = {}
        self.sizes: dict[int, int] = {}
        self.delivered = self.deduplicated = self.conflated = 0
        self.wait = EMPTY

    def add(self, other: BatchStats | BatchTotals) -> None:
        """Count these as well."""
        add_counts(self.batches, other.batches)
        add_counts(self.sizes, other.sizes)
        self.delivered += other.delivered
        self.deduplicated += other.deduplicated
        self.conflated += other.conflated
        self.wait = self.wait.merged(other.wait)


def add_counts(mine: dict[K, int], theirs: Mapping[K, int]) -> None:
    """Add counts by key."""
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count
