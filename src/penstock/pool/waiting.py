"""Callers that wait for a connection, and until when."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from penstock.pool.state import Key, Member

C = TypeVar("C")


class Caller(Generic[C]):
    """One who waits; see `penstock.pool.state.Waiter`."""

    __slots__ = ("deadline", "future", "key", "since")

    def __init__(self, key: Key, future: Future[Member[C]], since: float, deadline: float) -> None:
        self.key, self.future, self.since, self.deadline = key, future, since, deadline

    def accept(self, member: Member[C]) -> bool:
        if self.future.done():
            return False
        self.future.set_result(member)
        return True

    def refuse(self, cause: Exception) -> bool:
        if self.future.done():
            return False
        self.future.set_exception(cause)
        return True


class Deadlines(Generic[C]):
    """One timer for all who wait.

    Args:
        expire: called with each whose time is over.
    """

    def __init__(self, loop: AbstractEventLoop, expire: Callable[[Caller[C]], None]) -> None:
        self._loop, self._expire = loop, expire
        self._queues: dict[float, OrderedDict[Caller[C], None]] = {}
        """By how long they wait at most: within one, deadlines come in the order of arrival."""
        self._timer: TimerHandle | None = None

    def add(self, caller: Caller[C], timeout: float) -> None:
        """Mind a caller's deadline until `remove`."""
        queue = self._queues.get(timeout)
        if queue is None:
            queue = self._queues[timeout] = OrderedDict()
        queue[caller] = None
        if self._timer is None or self._timer.when() > caller.deadline:
            self._set(caller.deadline)

    def remove(self, caller: Caller[C], timeout: float) -> None:
        """A caller waits no more."""
        queue = self._queues.get(timeout)
        if queue is not None:
            queue.pop(caller, None)
            if not queue:
                del self._queues[timeout]

    def stop(self) -> None:
        """Forget all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queues.clear()

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = [caller for queue in self._queues.values() for caller in _late(queue, now)]
        for caller in late:
            self._expire(caller)
        ahead = [next(iter(queue)).deadline for queue in self._queues.values() if queue]
        if ahead:
            self._set(min(ahead))


def _late(queue: OrderedDict[Caller[C], None], now: float) -> list[Caller[C]]:
    late = []
    for caller in queue:
        if caller.deadline > now:
            break
        late.append(caller)
    return late
