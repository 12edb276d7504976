"""Loads that whoever begins them makes without a task of the cache's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Any

from penstock.cache.changes import Changes
from penstock.cache.entry import payload_bytes
from penstock.cache.flight import Flight
from penstock.cache.loads import Loads


class Leads:
    """A cache's, for loaders that need no task: a call whose answer comes by itself.

    Whoever asks for a key waits on a future of its own, and then has `Flight.answer`. One who finds that the load has
    no `Flight.task` yet has to make it: to set that to what ends the load by being cancelled when nobody waits any
    more, and to say what becomes of it, with `land` or `fail`. Others may wait in `MessageCache.get_or_load` as well.

    Args:
        clock: the cache's.
        seconds: for which what is loaded is fresh, by what the caller gives.
        size_of: what a value weighs.
        is_alone: the cache has no shared tier.
    """

    def __init__(
        self,
        loads: Loads,
        changes: Changes,
        clock: Callable[[], float],
        seconds: Callable[[float | None], float],
        size_of: Callable[[Any], int] | None,
        *,
        is_alone: bool,
    ) -> None:
        self._loads, self._change, self._clock, self._seconds = loads, changes.make, clock, seconds
        self._size_of = size_of
        self._is_possible = is_alone and size_of in {None, payload_bytes}  # any other may wait, or raise

    def ask(
        self, key: Hashable, ttl: float | None, waiter: asyncio.Future[Any], *, may_begin: bool = True
    ) -> Flight | None:
        """The load to wait for, which counts as a miss; None if it is for `get_or_load` to find out.

        Args:
            ttl: seconds; by default the cache's own.
            waiter: on the running event loop; is woken up when the load has ended, if it still waits.
            may_begin: the caller can make the load, if nobody does.
        """
        if not self._is_possible:
            return None
        seconds, now = self._seconds(ttl), self._clock()
        return self._change(self._loads.lead, key, seconds, now, waiter, may_begin)

    def land(self, flight: Flight, value: Any) -> None:
        """A load has ended well: store its result, unless the key was changed meanwhile, and tell all who wait."""
        weight = 0 if self._size_of is None else self._size_of(value)
        flight.end(value, None)
        flight.wake(self._change(self._loads.land, flight, value, self._clock(), weight) or set())
        flight.task = None

    def fail(self, flight: Flight, error: BaseException) -> None:
        """A load has ended badly: all who wait have that raised."""
        flight.end(None, error)
        flight.wake(self._change(self._loads.fail, flight, error, self._clock()) or set())
        flight.task = None

    def leave(self, flight: Flight, waiter: asyncio.Future[Any]) -> None:
        """One waits no more, on the event loop where it runs; if it was the last, the load is cancelled."""
        if self._change(self._loads.leave, flight, waiter):
            flight.cancel(waiter.get_loop())
