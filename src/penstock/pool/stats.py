"""What a pool counts, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from penstock.metrics.histogram import Histogram, HistogramSnapshot
from penstock.pool.state import PoolState


class Counts:
    """A pool's counters: plain numbers, written by its own event loop alone."""

    def __init__(self) -> None:
        self.refused = self.waited = self.timeouts = self.cancelled = self.errors = 0
        self.opened = self.failed = self.dropped = self.replaced = self.leaked = 0
        """`refused`: loans handed to callers who were cancelled in the same moment."""
        self.closed: dict[str, int] = {}
        self.wait = Histogram()
        self.use = Histogram()

    def snapshot(self, state: PoolState[Any], connect: Histogram) -> PoolStats:
        """What a pool in this state has, and what was counted."""
        slots = list(state.keys.values())
        loans = state.finished_loans + sum(member.uses for one in slots for member in one.members)
        return PoolStats(
            urls=len(slots),
            idle=sum(len(one.idle) for one in slots),
            in_use=sum(one.leased for one in slots),
            connecting=sum(one.opening for one in slots),
            closing=sum(one.closing for one in slots),
            waiting=state.waiting,
            max_connections=state.max_connections,
            min_connections=state.min_connections,
            max_total=state.max_total,
            immediate=loans - self.waited - self.refused,
            waited=self.waited,
            timeouts=self.timeouts,
            cancelled=self.cancelled,
            errors=self.errors,
            opened=self.opened,
            failed=self.failed,
            replaced=self.replaced,
            leaked=self.leaked,
            closed=dict(self.closed),
            dropped_messages=self.dropped,
            wait=self.wait.snapshot(),
            use=self.use.snapshot(),
            connect=connect.snapshot(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A snapshot; counters count from the pool's making."""

    urls: int
    """Servers, and ways to ask for connections to them, that are in use."""
    idle: int
    """Connections that wait to be lent."""
    in_use: int
    """Connections that are lent."""
    connecting: int
    """Connections that are being opened."""
    closing: int
    """Connections that are being closed."""
    waiting: int
    """Callers that wait for a connection."""
    max_connections: int
    """The bound for each URL."""
    min_connections: int
    """What each URL keeps."""
    max_total: int
    """The bound for all URLs."""
    immediate: int
    """Loans that did not wait."""
    waited: int
    """Loans that did."""
    timeouts: int
    """Callers that waited in vain."""
    cancelled: int
    """Callers that gave up."""
    errors: int
    """Callers that were told why no connection could be opened."""
    opened: int
    """Connections that were opened."""
    failed: int
    """Connections that could not be opened."""
    replaced: int
    """Loans that went on another connection, because the peer had just closed theirs."""
    leaked: int
    """Loans that were never returned, and found when they were collected as garbage."""
    closed: dict[str, int] = field(default_factory=dict)
    """Connections that were closed, by reason."""
    dropped_messages: int = 0
    """Frames that arrived while nobody had borrowed their connection, or were left unread by who had."""
    wait: HistogramSnapshot
    """Seconds that callers waited for a connection, those that got one at once left out."""
    use: HistogramSnapshot
    """Seconds that loans lasted: one in sixteen."""
    connect: HistogramSnapshot
    """Seconds that opening took, authentication by ``on_connect`` among them."""

    @property
    def size(self) -> int:
        """All connections, those that are being opened or closed among them."""
        return self.idle + self.in_use + self.connecting + self.closing
