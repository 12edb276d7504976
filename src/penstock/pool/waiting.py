"""Callers that wait for a connection, and until when."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections import deque
from collections.abc import Callable
from copy import copy
from typing import Generic, TypeVar

from penstock.pool.slots import Key, Member

C = TypeVar("C")
SWEEP_LEAST = 256
"""Callers that may be done before they are forgotten."""


class Caller(Generic[C]):
    """One who waits; see `penstock.pool.state.Waiter`."""

    __slots__ = ("deadline", "future", "key", "since", "weight")

    def __init__(self, key: Key, weight: int, future: Future[Member[C]], since: float, deadline: float) -> None:
        self.key, self.weight, self.future, self.since, self.deadline = key, weight, future, since, deadline

    def accept(self, member: Member[C]) -> bool:
        if self.future.done():
            return False
        self.future.set_result(member)
        return True

    def refuse(self, cause: Exception) -> bool:
        if self.future.done():
            return False
        self.future.set_exception(_twin(cause))
        return True


def _twin(cause: Exception) -> Exception:
    """The same for another to raise, who adds a traceback to it."""
    try:
        twin = copy(cause)
    except TypeError:  # of a class that is not made of its arguments
        return cause
    twin.__cause__ = cause.__cause__
    return twin


class Deadlines(Generic[C]):
    """One timer for all who wait.

    Args:
        expire: called with each whose time is over.
    """

    def __init__(self, loop: AbstractEventLoop, expire: Callable[[Caller[C]], None]) -> None:
        self._loop, self._expire = loop, expire
        self._queues: dict[float, deque[Caller[C]]] = {}
        """By how long they wait at most: within one, deadlines come in the order of arrival."""
        self._added = 0
        """Since the last look for those that are done."""
        self._patience = SWEEP_LEAST
        """Callers to be added before the next."""
        self._timer: TimerHandle | None = None
        self._rings_at = 0.0  # the handle itself does not tell with uvloop, where the time has come already

    def add(self, caller: Caller[C], timeout: float) -> None:
        """Mind a caller's deadline until its future is done."""
        queue = self._queues.get(timeout)
        if queue is None:
            queue = self._queues[timeout] = deque()
        queue.append(caller)
        self._added += 1
        if self._added > self._patience:
            self._sweep()
        if self._timer is None or self._rings_at > caller.deadline:
            self._set(caller.deadline)

    def stop(self) -> None:
        """Forget all."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._queues.clear()

    def _sweep(self) -> None:
        """Forget those that are done; what that takes is little beside what adding them took."""
        kept: dict[float, deque[Caller[C]]] = {}
        for timeout, queue in self._queues.items():
            if waiting := deque(caller for caller in queue if not caller.future.done()):
                kept[timeout] = waiting
        self._queues = kept
        self._added = 0
        self._patience = max(SWEEP_LEAST, sum(map(len, kept.values())))

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = when
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._sweep()
        now = self._loop.time()
        late: list[Caller[C]] = []
        for queue in self._queues.values():
            while queue and queue[0].deadline <= now:
                late.append(queue.popleft())
        for caller in late:
            self._expire(caller)
        ahead = [queue[0].deadline for queue in self._queues.values() if queue]
        if ahead:
            self._set(min(ahead))
