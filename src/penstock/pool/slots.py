"""What a pool's state is made of: connections, who waits for them, and what is to be done. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from math import inf
from typing import Generic, Protocol, TypeVar

from penstock.pool.endpoints import Endpoint

Key = Hashable
C = TypeVar("C")
"""What a connection is to the shell."""


class Member(Generic[C]):
    """One connection of the pool, from the end of its opening to the end of its closing."""

    __slots__ = (
        "check_at",
        "connection",
        "endpoint",
        "expires_at",
        "idle",
        "key",
        "lent_from",
        "opened_at",
        "replaced",
        "retired",
        "seen",
        "share",
        "slots",
        "used_at",
        "uses",
    )

    def __init__(self, key: Key, endpoint: Endpoint, connection: C, opened_at: float, expires_at: float) -> None:
        self.key = key
        self.endpoint = endpoint
        self.connection = connection
        self.opened_at = opened_at
        self.expires_at = expires_at
        self.check_at = inf
        """When it is to be asked whether it still answers."""
        self.used_at = opened_at
        """When it was lent last, or seen to have been returned."""
        self.idle = False
        """Nobody has it."""
        self.uses = 0
        """Times that it was lent."""
        self.seen = 0
        """What `uses` was at the last look for connections that nobody uses."""
        self.share = 0
        """Weight of those who share it now."""
        self.retired: str | None = None
        """Why it is to be closed when it is returned."""
        self.replaced = False
        """Another has been opened in its place, ahead of the end of its lifetime."""
        self.lent_from: str | None = None
        """Where it was borrowed, if somebody minds; for the warning about one that is not returned."""
        self.slots: Slots[C]


class Waiter(Protocol[C]):
    """Who waits for a connection."""

    weight: int
    """What it takes of a shared connection; 0 for one who wants a connection alone."""

    def accept(self, member: Member[C]) -> bool:
        """Take the connection; False from one who has lost interest meanwhile, for the next gets it then."""

    def refuse(self, cause: Exception) -> bool:
        """Take the bad news; False likewise."""


@dataclass(frozen=True, slots=True)
class Open:
    """Open a connection, and report with `PoolState.opened` or `PoolState.failed`."""

    key: Key


@dataclass(frozen=True, slots=True)
class Close(Generic[C]):
    """Close a connection, and report with `PoolState.closed`."""

    member: Member[C]
    reason: str


class Slots(Generic[C]):
    """The connections of one key, and who waits for them."""

    __slots__ = ("alone", "closing", "idle", "kept", "members", "opening", "shared", "spread", "waiters", "weights")

    def __init__(self, *, spread: bool, kept: bool) -> None:
        self.spread = spread
        """There are several endpoints, over which loans are spread."""
        self.kept = kept
        """Some connections are kept for it, whether or not somebody asks."""
        self.idle: list[Member[C]] = []
        """The one returned last is at the end, and lent first, so that the spare ones grow old."""
        self.shared: list[Member[C]] = []
        """Those that are lent to some who share them."""
        self.opening = 0
        self.closing = 0
        self.members: set[Member[C]] = set()
        """Idle and leased ones."""
        self.waiters: OrderedDict[Waiter[C], int] = OrderedDict()
        """With their tickets: numbers that grow with every waiter of the pool."""
        self.alone = 0
        """Waiters that want a connection alone."""
        self.weights = 0
        """Weight of those that would share one."""

    @property
    def total(self) -> int:
        return len(self.members) + self.opening + self.closing

    @property
    def leased(self) -> int:
        return len(self.members) - len(self.idle)

    def fewest(self, least: int) -> int:
        """Connections to keep, if ``least`` are kept for a key at all."""
        return least if self.kept else 0

    def oversized(self, most: int) -> bool:
        """Whether there are more connections than allowed, those left out that are being closed already."""
        return len(self.members) + self.opening > most

    @property
    def first_ticket(self) -> int:
        """Of the one who has waited for longest."""
        return next(iter(self.waiters.values()))

    def wanted_before(self, ticket: int, capacity: int) -> int:
        """Connections for those who have waited since before a ticket."""
        early = [waiter for waiter, number in self.waiters.items() if number < ticket]
        weights = sum(waiter.weight for waiter in early)
        return sum(not waiter.weight for waiter in early) + rounded_up(weights, capacity)

    def roomiest(self, weight: int, capacity: int, now: float) -> Member[C] | None:
        """The shared connection with most room, if there is one that has enough."""
        open_to_more = [member for member in self.shared if member.retired is None and member.expires_at > now]
        member = min(open_to_more, key=lambda member: member.share, default=None)
        return None if member is None or member.share + weight > capacity else member

    def pop_least_loaded(self) -> Member[C]:
        """Take out the idle connection whose endpoint has fewest lent for its weight; of equals the one used last."""
        last = len(self.idle) - 1
        at = min(range(last, -1, -1), key=lambda at: self.idle[at].endpoint.leased / self.idle[at].endpoint.weight)
        member = self.idle.pop(at)
        member.endpoint.leased += 1
        return member


def rounded_up(weights: int, capacity: int) -> int:
    """Connections that so much weight shares."""
    return -(-weights // capacity)
