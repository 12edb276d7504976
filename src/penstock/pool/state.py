"""Who gets which connection, and what has to be opened or closed for it. Pure: time is an argument, nothing waits.

Every change leaves what must be done in `PoolState.todo`, in order; the shell does it after the change. At every step
idle + leased + opening + closing connections of a key are at most ``max_connections``, and of all keys at most
``max_total``. While somebody waits for a key, none of its connections is idle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

Key = Hashable
C = TypeVar("C")
"""What a connection is to the shell."""


class Member(Generic[C]):
    """One connection of the pool, from the end of its opening to the end of its closing."""

    __slots__ = ("connection", "expires_at", "key", "opened_at", "retired", "used_at", "uses")

    def __init__(self, key: Key, connection: C, opened_at: float, expires_at: float) -> None:
        self.key = key
        self.connection = connection
        self.opened_at = opened_at
        self.expires_at = expires_at
        self.used_at = opened_at
        """When it was lent or returned last."""
        self.uses = 0
        """Times that it was lent."""
        self.retired: str | None = None
        """Why it is to be closed when it is returned."""


class Waiter(Protocol[C]):
    """Who waits for a connection."""

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

    __slots__ = ("closing", "idle", "leased", "members", "opening", "waiters")

    def __init__(self) -> None:
        self.idle: list[Member[C]] = []
        """The one returned last is at the end, and lent first, so that the spare ones grow old."""
        self.leased = 0
        self.opening = 0
        self.closing = 0
        self.members: set[Member[C]] = set()
        """Idle and leased ones."""
        self.waiters: OrderedDict[Waiter[C], int] = OrderedDict()
        """With their tickets: numbers that grow with every waiter of the pool."""

    @property
    def total(self) -> int:
        return len(self.members) + self.opening + self.closing


class PoolState(Generic[C]):
    """All keys of a pool.

    Args:
        min_connections: how many a key keeps once it has been used.
    """

    def __init__(self, *, max_connections: int, min_connections: int, max_total: int) -> None:
        self.max_connections = max_connections
        self.min_connections = min_connections
        self.max_total = max_total
        self.keys: dict[Key, Slots[C]] = {}
        self.total = 0
        """Connections of all keys, those that are being opened or closed among them."""
        self.waiting = 0
        self.closing = False
        self.todo: list[Open | Close[C]] = []
        self._ticket = 0
        self._closing = 0
        self._starved: set[Key] = set()
        """Keys that could have another connection if there were not so many of all."""

    # Lending

    def take(self, key: Key, now: float) -> Member[C] | None:
        """Lend the idle connection that was used last; None if there is none that lives."""
        slots = self.keys.get(key)
        if slots is None:
            return None
        while slots.idle:
            member = slots.idle.pop()
            if member.expires_at <= now:
                self._close(slots, member, "lifetime")
                continue
            slots.leased += 1
            member.used_at = now
            member.uses += 1
            return member
        return None

    def wait(self, key: Key, waiter: Waiter[C]) -> None:
        """Queue up, behind all who wait for the same key; a connection is opened if the pool may grow."""
        slots = self.keys.get(key)
        if slots is None:
            slots = self.keys[key] = Slots()
        self._ticket += 1
        slots.waiters[waiter] = self._ticket
        self.waiting += 1
        self._grow(key, slots)

    def forget(self, key: Key, waiter: Waiter[C]) -> None:
        """A waiter has lost interest; what is being opened for it goes to the next."""
        slots = self.keys.get(key)
        if slots is not None and waiter in slots.waiters:
            del slots.waiters[waiter]
            self.waiting -= 1
            self._grow(key, slots)
            self._drop_if_unused(key, slots)

    def give_back(self, member: Member[C], now: float, *, broken: str | None = None) -> None:
        """A lent connection is returned.

        Args:
            broken: why it cannot be lent again, if so.
        """
        slots = self.keys[member.key]
        slots.leased -= 1
        member.used_at = now
        reason = broken or member.retired
        if reason is None and member.expires_at <= now:
            reason = "lifetime"
        if reason is not None:
            self._close(slots, member, reason)
        else:
            self._place(slots, member)

    # What became of what was to be done

    def opened(self, key: Key, connection: C, now: float, expires_at: float) -> Member[C]:
        """A connection is open: the first who waits gets it."""
        slots = self.keys[key]
        slots.opening -= 1
        member = Member(key, connection, now, expires_at)
        slots.members.add(member)
        self._place(slots, member)
        return member

    def failed(self, key: Key, cause: Exception) -> None:
        """A connection could not be opened: the first who waits is told why, and the slot is free."""
        slots = self.keys[key]
        slots.opening -= 1
        self.total -= 1
        while slots.waiters:
            if self._next_waiter(key, slots).refuse(cause):
                break
        self._freed(key, slots)

    def closed(self, member: Member[C]) -> None:
        """A connection is gone: the slot is free."""
        slots = self.keys[member.key]
        slots.closing -= 1
        self._closing -= 1
        self.total -= 1
        self._freed(member.key, slots)

    def lost(self, member: Member[C], reason: str) -> None:
        """An idle connection broke; one that is lent is told of when it is returned."""
        slots = self.keys[member.key]
        if member in slots.idle:
            slots.idle.remove(member)
            self._close(slots, member, reason)
        elif member.retired is None:
            member.retired = reason

    # Care

    def refill(self, key: Key) -> None:
        """Open connections until there are `min_connections`."""
        slots = self.keys.setdefault(key, Slots())
        while slots.total < self.min_connections and self.total < self.max_total and not self.closing:
            self._open(key, slots)

    def trim(self, now: float, max_idle_time: float) -> None:
        """Close idle connections that have grown old, and spare ones that nobody has used for long."""
        for slots in list(self.keys.values()):
            keep: list[Member[C]] = []
            spare = slots.total - self.min_connections
            for member in slots.idle:  # the one that has been idle for longest comes first
                if member.expires_at <= now:
                    self._close(slots, member, "lifetime")
                elif spare > 0 and now - member.used_at >= max_idle_time:
                    self._close(slots, member, "idle")
                else:
                    keep.append(member)
                    continue
                spare -= 1
            slots.idle = keep

    def resize(self, max_connections: int) -> None:
        """Allow more connections for each key, or fewer: idle ones are closed now, lent ones when they return."""
        self.max_connections = max_connections
        self.min_connections = min(self.min_connections, max_connections)
        for key, slots in self.keys.items():
            while slots.idle and self._oversized(slots):
                self._close(slots, slots.idle.pop(0), "resize")
            self._grow(key, slots)

    def drain(self, key: Key) -> None:
        """Retire every connection that a key has now: idle ones at once, lent ones when they return."""
        slots = self.keys.get(key)
        if slots is None:
            return
        for member in slots.members:
            member.retired = "drain"
        while slots.idle:
            self._close(slots, slots.idle.pop(), "drain")

    def close(self, make_cause: Callable[[], Exception]) -> None:
        """Send away all who wait, close what is idle now and the rest as it comes back; nothing is opened any more."""
        self.closing = True
        for key, slots in self.keys.items():
            while slots.waiters:
                self._next_waiter(key, slots).refuse(make_cause())
            self.drain(key)
        self._starved.clear()

    # Steps

    def _place(self, slots: Slots[C], member: Member[C]) -> None:
        if self.closing:
            self._close(slots, member, "close")
            return
        if self._oversized(slots):
            self._close(slots, member, "resize")
            return
        while slots.waiters and not self._others_first(_first_ticket(slots)):
            if self._next_waiter(member.key, slots).accept(member):
                slots.leased += 1
                member.uses += 1
                return
        if slots.waiters or self._others_first(self._ticket + 1):
            self._close(slots, member, "total")
        else:
            slots.idle.append(member)

    def _others_first(self, ticket: int) -> bool:
        """Whether somebody has waited for longer for a key that cannot grow, and no place is being made already."""
        return self._lacking(ticket) > self._closing

    def _lacking(self, ticket: int) -> int:
        """Connections for which starved keys have waited since before ``ticket``."""
        lacking = 0
        for key in self._starved:
            slots = self.keys[key]
            room = self.max_connections - slots.total
            wanting = [number for number in slots.waiters.values() if number < ticket][slots.opening :]
            lacking += min(room, len(wanting))
        return lacking

    def _oversized(self, slots: Slots[C]) -> bool:
        return slots.total - slots.closing > self.max_connections

    def _next_waiter(self, key: Key, slots: Slots[C]) -> Waiter[C]:
        waiter, _ = slots.waiters.popitem(last=False)
        self.waiting -= 1
        if not slots.waiters:
            self._starved.discard(key)
        return waiter

    def _open(self, key: Key, slots: Slots[C]) -> None:
        slots.opening += 1
        self.total += 1
        self.todo.append(Open(key))

    def _close(self, slots: Slots[C], member: Member[C], reason: str) -> None:
        slots.members.remove(member)
        slots.closing += 1
        self._closing += 1
        self.todo.append(Close(member, reason))

    def _grow(self, key: Key, slots: Slots[C]) -> None:
        """Open as many connections as there are waiters without one under way, within the bounds."""
        while slots.opening < len(slots.waiters) and slots.total < self.max_connections and not self.closing:
            if self.total >= self.max_total:
                self._starved.add(key)
                self._evict()
                return
            self._open(key, slots)
        self._starved.discard(key)

    def _evict(self) -> None:
        """Make place for starved keys: close the connections that have been idle for longest, of whatever key."""
        while self._others_first(self._ticket + 1):
            idle = [slots for slots in self.keys.values() if slots.idle]
            if not idle:
                return
            slots = min(idle, key=lambda slots: slots.idle[0].used_at)
            self._close(slots, slots.idle.pop(0), "total")

    def _freed(self, key: Key, slots: Slots[C]) -> None:
        """A slot of a key, and so of all, is free: who has waited for longest goes first."""
        for starved in sorted(self._starved, key=lambda starved: _first_ticket(self.keys[starved])):
            if self.total < self.max_total:
                self._grow(starved, self.keys[starved])
        self._grow(key, slots)
        self._drop_if_unused(key, slots)

    def _drop_if_unused(self, key: Key, slots: Slots[C]) -> None:
        wanted = self.min_connections > 0 and len(self.keys) <= self.max_total and not self.closing
        if not (slots.total or slots.waiters or wanted):
            del self.keys[key]


def _first_ticket(slots: Slots[C]) -> int:
    return next(iter(slots.waiters.values()))
