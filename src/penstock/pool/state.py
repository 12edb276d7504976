"""Who gets which connection, and what has to be opened or closed for it. Pure.

Every change leaves what must be done in `PoolState.todo`, in order; the shell does it after the change. At every step
idle + leased + opening + closing connections of a key are at most ``max_connections``, and of all keys at most
``max_total``. While somebody waits for a key, none of its connections is idle; while a key is starved by ``max_total``,
nothing is being opened that nobody waits for.

A connection is lent to one borrower, or shared by several up to a capacity; a shared one counts as one that is leased.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from penstock.pool.slots import Abandon, C, Close, Key, Member, Open, Slots, Waiter


class PoolState(Generic[C]):
    """All keys of a pool.

    Args:
        min_connections: how many a key keeps once it has been used.
        max_uses: loans after which a connection is closed; 0 for no limit.
        tidied: whether each connection that is returned has to be tidied up.
        capacity: weight that can share a connection.
        spread: whether a key has several endpoints.
        kept: whether a key keeps `min_connections` at all.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        min_connections: int,
        max_total: int,
        max_uses: int = 0,
        tidied: bool = False,
        capacity: int = 1,
        spread: Callable[[Key], bool] = lambda _: False,
        kept: Callable[[Key], bool] = lambda _: True,
    ) -> None:
        self.max_connections, self.min_connections, self.max_total = max_connections, min_connections, max_total
        self._least = min_connections
        self.max_uses = max_uses
        self.capacity = capacity
        self.keys: dict[Key, Slots[C]] = {}
        self.total = 0
        """Connections of all keys, those that are being opened or closed among them."""
        self.waiting = 0
        self.closing = False
        self.todo: list[Open | Abandon | Close[C]] = []
        self._spread, self._kept = spread, kept
        self._ticket = 0
        self._leaving = 0
        """Connections that are being closed, or abandoned: places that are being made."""
        self._any_spread = False
        self._special = self._always_special = tidied or max_uses > 0
        """More may be due at a return than to park."""
        self.finished_loans = 0  # of connections that are closed
        self._shrunk = False
        """Some keys may have more connections than `max_connections`."""
        self._starved: set[Key] = set()
        """Keys that could have another connection if there were not so many of all."""

    def _mark_special(self) -> None:
        self._special = bool(self._always_special or self._starved or self._shrunk or self._any_spread)

    # Lending

    def take(self, key: Key, now: float) -> Member[C] | None:
        """Lend the idle connection that was used last; None if there is none that lives."""
        slots = self.keys.get(key)
        if slots is None:
            return None
        idle = slots.idle
        while idle:
            member = slots.pop_least_loaded() if slots.spread else idle.pop()
            if member.expires_at > now:
                member.idle = False
                member.used_at = now
                member.uses += 1
                return member
            if slots.spread:
                member.endpoint.leased -= 1
            self._close(slots, member, "lifetime")
        return None

    def take_share(self, key: Key, weight: int, now: float) -> Member[C] | None:
        """Lend a part of a connection that others have a part of; of an idle one if there is none with room."""
        slots = self.keys.get(key)
        if slots is None or slots.waiters:  # who came first is served first
            return None
        member = slots.roomiest(weight, self.capacity, self.max_uses, now)
        if member is not None:
            slots.share_more(member, weight, now)
        elif (member := self.take(key, now)) is not None:
            slots.share(member, weight, now)
        return member

    def wait(self, key: Key, waiter: Waiter[C]) -> None:
        """Queue up, behind all who wait for the same key; a connection is opened if the pool may grow."""
        slots = self._slots_of(key)
        self._ticket += 1
        slots.waiters[waiter] = self._ticket
        slots.count(waiter, 1)
        self.waiting += 1
        self._grow(key, slots)

    def may_grow(self, key: Key) -> bool:
        """Whether a connection could be opened for another who waits."""
        slots = self.keys.get(key)
        return self.total < self.max_total and (slots is None or slots.total < self.max_connections)

    def _slots_of(self, key: Key) -> Slots[C]:
        slots = self.keys.get(key)
        if slots is None:
            slots = self.keys[key] = Slots(spread=self._spread(key), kept=self._kept(key))
            self._any_spread = self._any_spread or slots.spread
            self._mark_special()
        return slots

    def forget(self, key: Key, waiter: Waiter[C], now: float) -> None:
        """A waiter has lost interest; what is being opened for it goes to the next."""
        slots = self.keys.get(key)
        if slots is not None and waiter in slots.waiters:
            del slots.waiters[waiter]
            slots.count(waiter, -1)
            self.waiting -= 1
            self._serve_sharers(slots, now)
            self._grow(key, slots)
            self._make_places()
            self._drop_if_unused(key, slots)

    def park(self, member: Member[C]) -> bool:
        """Take back a connection that is as good as before, if nobody waits; else False, and `give_back` is due.

        This is nearly every return, and needs no clock: `trim` takes it as used when it looks next.
        """
        slots = member.slots
        if slots.waiters or member.retired is not None or self._special:
            return False
        member.idle = True
        slots.idle.append(member)
        return True

    def give_back(self, member: Member[C], now: float, *, broken: str | None = None) -> None:
        """A lent connection is returned.

        Args:
            broken: why it cannot be lent again, if so.
        """
        slots = member.slots
        member.used_at = now
        if slots.spread:
            member.endpoint.leased -= 1
        reason = broken or member.retired or ("lifetime" if member.expires_at <= now else None)
        if reason is not None:
            self._close(slots, member, reason)
        elif self.max_uses and member.uses >= self.max_uses:
            self._close(slots, member, "requests")
        else:
            self._place(slots, member, now)
            if self._starved:
                self._make_places()

    def give_back_share(self, member: Member[C], weight: int, now: float, *, broken: str | None = None) -> None:
        """A part of a shared connection is returned; the others go on, though with no more to come if it is broken."""
        member.retired = member.retired or broken
        if self.leave(member, weight):
            self.give_back(member, now)
        else:
            self._serve_sharers(member.slots, now)
            self._make_places()

    def leave(self, member: Member[C], weight: int) -> bool:
        """One who shared a connection has done with it; True from the last, who alone has it now, to be given back."""
        member.share -= weight
        if not member.share:
            member.slots.shared.remove(member)
        return not member.share

    # What became of what was to be done

    def opened(self, member: Member[C], now: float) -> None:
        """A connection is open: the first who waits gets it."""
        slots = member.slots = self.keys[member.key]
        self._end_opening(slots)
        slots.members.add(member)
        self._place(slots, member, now)
        self._grow(member.key, slots)  # several may have shared what one was opened for, or fewer than was thought
        self._make_places()

    def failed(self, key: Key, cause: Exception, *, everyone: bool = False) -> None:
        """A connection could not be opened: the first who waits is told why, and the slot is free.

        Args:
            everyone: another attempt would fail as well: tell all who wait.
        """
        slots = self.keys[key]
        self._end_opening(slots)
        while slots.waiters:
            if self._next_waiter(key, slots).refuse(cause) and not everyone:
                break
        self._freed(key, slots)

    def abandoned(self, key: Key) -> None:
        """The opening of a connection was ended, as it was to be: the slot is free."""
        slots = self.keys[key]
        slots.opening -= 1
        slots.abandoned -= 1
        self._leaving -= 1
        self._freed(key, slots)

    def closed(self, member: Member[C]) -> None:
        """A connection is gone: the slot is free."""
        slots = member.slots
        slots.closing -= 1
        self._leaving -= 1
        self._freed(member.key, slots)

    def lost(self, member: Member[C], reason: str) -> None:
        """An idle connection broke; one that is lent is told of when it is returned."""
        slots = member.slots
        if member.idle:
            slots.idle.remove(member)
            self._close(slots, member, reason)
        elif member.retired is None and member in slots.members:
            member.retired = reason

    # Care

    def refill(self, key: Key) -> None:
        """Open connections until there are `min_connections`."""
        slots = self._slots_of(key)
        while slots.total < slots.fewest(self.min_connections) and self.total < self.max_total and not self.closing:
            self._open(key, slots)

    def trim(self, now: float, max_idle_time: float) -> None:
        """Close idle connections that have grown old, and spare ones that nobody has used for long."""
        for slots in list(self.keys.values()):
            for member, reason in slots.pop_old(now, max_idle_time, self.min_connections):
                self._close(slots, member, reason)
        self._shrunk = self._shrunk and any(slots.oversized(self.max_connections) for slots in self.keys.values())
        self._mark_special()

    def rotate(self, now: float, ahead: float) -> None:
        """Open, where there is room, what will replace connections whose lifetime ends within ``ahead`` seconds."""
        for key, slots in self.keys.items():
            for member in slots.replaceable(now, ahead, self.min_connections):
                if slots.total < self.max_connections and self.total < self.max_total and not self.closing:
                    member.replaced = True
                    self._open(key, slots)

    def resize(self, max_connections: int) -> None:
        """Allow more connections for each key, or fewer: idle ones are closed now, lent ones when they return."""
        self.max_connections = max_connections
        self.min_connections = min(self._least, max_connections)
        for key, slots in self.keys.items():
            while slots.idle and slots.oversized(self.max_connections):
                self._close(slots, slots.idle.pop(0), "resize")
            self._shrunk = self._shrunk or slots.oversized(self.max_connections)
            self._grow(key, slots)
        self._mark_special()

    def drain(self, key: Key, reason: str = "drain") -> None:
        """Retire every connection that a key has now: idle ones at once, lent ones when they return."""
        slots = self.keys.get(key)
        if slots is None:
            return
        for member in slots.members:
            member.retired = reason
        while slots.idle:
            self._close(slots, slots.idle.pop(), reason)

    def close(self, make_cause: Callable[[], Exception]) -> None:
        """Send away all who wait, close what is idle now and the rest as it comes back; nothing is opened any more."""
        self.closing = True
        for key, slots in self.keys.items():
            while slots.waiters:
                self._next_waiter(key, slots).refuse(make_cause())
            self.drain(key, "close")
            while slots.coming:
                self._abandon(key, slots)
        self._starved.clear()

    def vanish(self) -> None:
        """All connections are gone, or somebody else's, and nothing can be done any more."""
        self.closing = True
        self.keys.clear()
        self._starved.clear()
        self.total = self.waiting = 0

    # Steps

    def _place(self, slots: Slots[C], member: Member[C], now: float) -> None:
        if self.closing or slots.oversized(self.max_connections):
            self._close(slots, member, "close" if self.closing else "resize")
            return
        while slots.waiters and not (self._starved and self._others_first(slots.first_ticket)):
            waiter = self._next_waiter(member.key, slots)
            if waiter.accept(member):
                slots.lend(member, waiter.weight, now)
                if waiter.weight:
                    self._serve_sharers(slots, now)
                return
        if slots.waiters or (self._starved and self._others_first(self._ticket + 1)):
            self._close(slots, member, "total")
        else:
            member.idle = True
            slots.idle.append(member)

    def _serve_sharers(self, slots: Slots[C], now: float) -> None:
        """Let the first who wait have parts of connections that are shared already, as long as they want such."""
        while slots.waiters:
            waiter = next(iter(slots.waiters))
            member = slots.roomiest(waiter.weight, self.capacity, self.max_uses, now) if waiter.weight else None
            if member is None:
                return
            if self._next_waiter(member.key, slots).accept(member):
                slots.share_more(member, waiter.weight, now)

    def _others_first(self, ticket: int) -> bool:
        """Whether starved keys lack more, for those who have waited since before ``ticket``, than will be free soon."""
        lacking = sum(self.keys[key].lacking(ticket, self.capacity, self.max_connections) for key in self._starved)
        return lacking > self._leaving

    def _next_waiter(self, key: Key, slots: Slots[C]) -> Waiter[C]:
        waiter, _ = slots.waiters.popitem(last=False)
        slots.count(waiter, -1)
        self.waiting -= 1
        if not slots.waiters:
            self._starved.discard(key)
        return waiter

    def _open(self, key: Key, slots: Slots[C]) -> None:
        slots.opening += 1
        self.total += 1
        self.todo.append(Open(key))

    def _end_opening(self, slots: Slots[C]) -> None:
        slots.opening -= 1
        if slots.abandoned > slots.opening:  # it ended before it could be abandoned
            slots.abandoned -= 1
            self._leaving -= 1

    def _abandon(self, key: Key, slots: Slots[C]) -> None:
        slots.abandoned += 1
        self._leaving += 1
        self.todo.append(Abandon(key))

    def _close(self, slots: Slots[C], member: Member[C], reason: str) -> None:
        slots.members.remove(member)
        member.idle = False
        self.finished_loans += member.uses
        slots.closing += 1
        self._leaving += 1
        self.todo.append(Close(member, reason))

    def _grow(self, key: Key, slots: Slots[C]) -> None:
        """Open as many connections as waiters need that have none under way, within the bounds."""
        wanted = slots.wanted(self.capacity)
        while slots.coming < wanted and slots.total < self.max_connections and not self.closing:
            if self.total >= self.max_total:
                self._starved.add(key)
                self._special = True
                self._make_places()
                return
            self._open(key, slots)
        self._starved.discard(key)

    def _make_places(self) -> None:
        """For starved keys: abandon what is being opened for nobody, then close what has been idle for longest."""
        while self._starved and self._others_first(self._ticket + 1):
            for key, slots in self.keys.items():
                if slots.coming > slots.wanted(self.capacity):
                    self._abandon(key, slots)
                    break
            else:
                idle = [slots for slots in self.keys.values() if slots.idle]
                if not idle:
                    return
                slots = min(idle, key=lambda slots: slots.idle[0].used_at)
                self._close(slots, slots.idle.pop(0), "total")

    def _freed(self, key: Key, slots: Slots[C]) -> None:
        """A slot of a key, and so of all, is free: who has waited for longest goes first."""
        self.total -= 1
        for starved in sorted(self._starved, key=lambda starved: self.keys[starved].first_ticket):
            if self.total < self.max_total:
                self._grow(starved, self.keys[starved])
        self._grow(key, slots)
        self._make_places()
        self._drop_if_unused(key, slots)

    def _drop_if_unused(self, key: Key, slots: Slots[C]) -> None:
        kept = slots.fewest(self.min_connections) > 0 and len(self.keys) <= self.max_total and not self.closing
        if not (slots.total or slots.waiters or kept):
            del self.keys[key]
