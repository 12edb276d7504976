"""What a pool's state is made of: connections, who waits for them, and what is to be done. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
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
        "shared_at",
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
        self.shared_at = inf
        """Since when it is shared without a break."""
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
class Abandon:
    """End one of the openings under way, and report with `PoolState.abandoned`; as usual if it ended by itself."""

    key: Key


@dataclass(frozen=True, slots=True)
class Close(Generic[C]):
    """Close a connection, and report with `PoolState.closed`."""

    member: Member[C]
    reason: str


class Slots(Generic[C]):
    """The connections of one key, and who waits for them."""

    __slots__ = (
        "abandoned",
        "alone",
        "closing",
        "idle",
        "kept",
        "members",
        "opening",
        "shared",
        "spread",
        "waiters",
        "weights",
    )

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
        self.abandoned = 0
        """Openings among these that are to be ended."""
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

    @property
    def coming(self) -> int:
        """Connections that are being opened, and not to be abandoned."""
        return self.opening - self.abandoned

    def fewest(self, least: int) -> int:
        """Connections to keep, if ``least`` are kept for a key at all."""
        return least if self.kept else 0

    def oversized(self, most: int) -> bool:
        """Whether there are more connections than allowed, those left out that are being closed already."""
        return len(self.members) + self.coming > most

    def count(self, waiter: Waiter[C], number: int) -> None:
        """A waiter comes (1) or goes (-1)."""
        self.weights += waiter.weight * number
        self.alone += 0 if waiter.weight else number

    def wanted(self, capacity: int) -> int:
        """Connections for all who wait."""
        return self.alone + rounded_up(self.weights, capacity)

    @property
    def first_ticket(self) -> int:
        """Of the one who has waited for longest."""
        return next(iter(self.waiters.values()))

    def lacking(self, ticket: int, capacity: int, most: int) -> int:
        """Connections that are to be had in place of other keys', for those who have waited since before a ticket.

        One at a time until one is open: a server that does not answer must not take the places of those that do.
        """
        early = [waiter for waiter, number in self.waiters.items() if number < ticket]
        alone = sum(not waiter.weight for waiter in early)
        missing = alone + rounded_up(sum(waiter.weight for waiter in early), capacity) - self.coming
        if not self.members:
            missing = min(missing, 1 - self.coming)
        return max(0, min(most - self.total, missing))

    def roomiest(self, weight: int, capacity: int, max_uses: int, now: float) -> Member[C] | None:
        """The shared connection with most room, if there is one that has enough, and may be lent again."""
        open_to_more = [
            member
            for member in self.shared
            if member.retired is None and member.expires_at > now and not (max_uses and member.uses >= max_uses)
        ]
        member = min(open_to_more, key=lambda member: member.share, default=None)
        return None if member is None or member.share + weight > capacity else member

    def lend(self, member: Member[C], weight: int, now: float) -> None:
        """A connection goes to one who waited."""
        member.used_at = now
        member.uses += 1
        if self.spread:
            member.endpoint.leased += 1
        if weight:
            self.share(member, weight, now)

    def share(self, member: Member[C], weight: int, now: float) -> None:
        """A connection that one had alone is shared from now on."""
        member.share = weight
        member.shared_at = now
        self.shared.append(member)

    def share_more(self, member: Member[C], weight: int, now: float) -> None:
        """A connection that is shared is shared with another."""
        member.used_at = now
        member.uses += 1
        member.share += weight

    def pop_old(self, now: float, max_idle_time: float, least: int) -> list[tuple[Member[C], str]]:
        """Take out idle connections that are past their time, and those beside ``least`` that nobody has used for long.

        They come with the reason.
        """
        old: list[tuple[Member[C], str]] = []
        keep: list[Member[C]] = []
        spare = self.total - self.fewest(least)
        for member in self.idle:  # the one that has been idle for longest comes first
            if member.seen != member.uses:
                member.seen, member.used_at = member.uses, now
            if member.expires_at <= now:
                old.append((member, "lifetime"))
            elif spare > len(old) and now - member.used_at >= max_idle_time:
                old.append((member, "idle"))
            else:
                keep.append(member)
        self.idle = keep
        return old

    def replaceable(self, now: float, ahead: float, least: int) -> Iterator[Member[C]]:
        """Connections that end within ``ahead`` seconds, but not spare ones: those idle beside ``least`` others."""
        for member in self.members:
            soon = member.expires_at < inf and member.expires_at - now <= ahead
            if soon and not member.replaced and (self.total <= self.fewest(least) or not member.idle):
                yield member

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
