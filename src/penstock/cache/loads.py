"""Who loads what, and what becomes of it: the decisions, made while the cache's lock is held."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from penstock.cache.entry import Failure, Node
from penstock.cache.flight import Flight, current
from penstock.cache.store import Store
from penstock.errors import LoadCycle

if TYPE_CHECKING:  # it needs an extra
    from penstock.cache.shared.tier import SharedTier


@dataclass(slots=True)
class Answer:
    """What the cache has, and what has to be done.

    `error` is raised, or `flight` waited for with `waiter`, or else `value` returned; `begins` is a flight whose loader
    the caller has to start in either case.
    """

    value: Any = None
    error: Exception | None = None
    flight: Flight | None = None
    waiter: Future[None] | None = None
    begins: Flight | None = None
    kept: bool = False
    """It came from the cache."""


class Loads:
    """Decides over `Store.loads`."""

    def __init__(
        self, store: Store, negative_ttl: Mapping[type[Exception], float], shared: SharedTier | None = None
    ) -> None:
        self._store = store
        self._shared = shared
        self._negative_ttl = negative_ttl
        self._flights = store.loads
        self.coalesced = self.stale_hits = self.begun = self.errors = 0
        self.led = 0
        """Who wait for what `lead` told them of; all of them have missed."""

    def ask(self, key: Hashable, ttl: float, tags: tuple[str, ...], now: float, loop: AbstractEventLoop) -> Answer:
        """What to do for one who asks for a key that was not found fresh.

        Raises:
            LoadCycle: the load of the key waits for the one who asks.
        """
        node = self._store.order.nodes.get(key)
        if node is None:
            return self._join(key, ttl, tags, loop)
        if node.expires_at > now:  # another thread has loaded it meanwhile
            return Answer(node.value, kept=True)
        if self._store.is_over(node, now):
            self._store.drop_expired(key, node, now)
            return self._join(key, ttl, tags, loop)
        if isinstance(node.value, Failure):
            return Answer(error=node.value.error, kept=True)
        self.stale_hits += 1
        self._store.touch(key, node)
        answer = Answer(node.value, kept=True)
        if self._under_way(key) is None:
            answer.begins = self._begin(key, ttl, tags, loop)
            answer.begins.refreshed = node
        return answer

    def lead(
        self,
        key: Hashable,
        ttl: float,
        now: float,
        waiter: Future[Any],
        may_begin: bool,
    ) -> Flight | None:
        """Have one wait for a load that is made on its event loop, or for a new one, which the caller has to make.

        None if neither is possible, there is an entry, or it asks in the course of a load: `ask` finds circles.
        """
        node = self._store.order.nodes.get(key)
        if node is not None:
            if not self._store.is_over(node, now):
                return None
            self._store.drop_expired(key, node, now)
        flight, loop = self._under_way(key), waiter.get_loop()
        if current.get() is not None:
            return None
        if flight is None:
            if not may_begin:
                return None
            flight = self._begin(key, ttl, (), loop)
        elif flight.loop is loop:
            self.coalesced += 1
            flight.refreshed = None
        else:
            return None
        flight.waiters.add(waiter)
        self.led += 1
        return flight

    def _under_way(self, key: Hashable) -> Flight | None:
        flight = self._flights.get(key)
        if flight is not None and flight.loop.is_closed():  # without having been cancelled
            del self._flights[key]
            return None
        return flight

    def _begin(self, key: Hashable, ttl: float, tags: tuple[str, ...], loop: AbstractEventLoop) -> Flight:
        flight = self._flights[key] = Flight(key, ttl, tags, loop)
        self.begun += 1
        return flight

    def _join(self, key: Hashable, ttl: float, tags: tuple[str, ...], loop: AbstractEventLoop) -> Answer:
        answer = Answer(waiter=loop.create_future())
        flight, asking = self._under_way(key), current.get()
        if flight is None:
            flight = answer.begins = self._begin(key, ttl, tags, loop)
        else:
            if asking is not None and flight.waits_for(asking):
                raise LoadCycle(key)
            self.coalesced += 1
            flight.refreshed = None  # it is a load like any other, now that somebody waits for it
        if asking is not None:
            asking.needs.add(flight)
        assert answer.waiter is not None
        flight.waiters.add(answer.waiter)
        answer.flight = flight
        return answer

    def leave(self, flight: Flight, waiter: Future[None]) -> bool:
        """One who waited was cancelled. Whether the load is to be cancelled, for nobody is left."""
        flight.waiters.discard(waiter)
        if flight.waiters or flight.ended:
            return False
        self._forget(flight)
        return True

    def land(self, flight: Flight, value: Any, now: float, weight: int) -> set[Future[None]]:
        """A load has ended well. Who is to be told."""
        if self._may_store(flight):
            self._store.put(flight.key, value, now + flight.ttl, weight, flight.tags, now)
            if self._shared is not None and flight.ticket is not None and flight.packed is not None:
                self._shared.keep(flight.ticket, flight.packed)
        return self._end(flight)

    def fail(self, flight: Flight, error: BaseException, now: float) -> set[Future[None]]:
        """A load has ended badly. Who is to be told."""
        if isinstance(error, Exception):
            self.errors += 1
            seconds = next((ttl for kind, ttl in self._negative_ttl.items() if isinstance(error, kind)), 0.0)
            if seconds > 0 and flight.refreshed is None and self._may_store(flight):
                failure = Failure(error.with_traceback(None), now + seconds)
                self._store.put(flight.key, failure, -inf, 0, flight.tags, now)
        return self._end(flight)

    def _may_store(self, flight: Flight) -> bool:
        """Not after the key was set or dropped meanwhile; what is refreshed has to be there still."""
        if self._flights.get(flight.key) is not flight:
            return False
        node: Node | None = flight.refreshed
        return node is None or self._store.order.nodes.get(flight.key) is node

    def _end(self, flight: Flight) -> set[Future[None]]:
        flight.ended = True
        self._forget(flight)
        waiters, flight.waiters = flight.waiters, set()
        return waiters

    def _forget(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
