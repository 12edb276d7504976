"""Callers that wait for a connection, and until when."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from penstock.pool.slots import Key, Member

C = TypeVar("C")


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
        self.future.set_exception(cause)
        return True


class Deadlines(Generic[C]):
    """One timer for all who wait.

    Args:
        expire: called with each whose time is over.
    """

    def __init__(self, loop: AbstractEventLoop, expire: Callable[[Caller[C]], None]) -> None:
        self._loop, self._expire = loop, expire
        self._queues: dict[float, deque[Caller[C]]] = {}
        """By how long they wait at most: within one, deadlines come in the order of arrival."""
        self._timer: TimerHandle | None = None

    def add(self, caller: Caller[C], timeout: float) -> None:
        """Mind a caller's deadline until its future is done."""
        queue = self._queues.get(timeout)
        if queue is None:
            queue = self._queues[timeout] = deque()
        while queue and queue[0].future.done():  # who came first is served first, so few others are left
            queue.popleft()
        queue.append(caller)
        if self._timer is None or self._timer.when() > caller.deadline:
            self._set(caller.deadline)

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
        late: list[Caller[C]] = []
        for timeout, queue in list(self._queues.items()):
            waiting = deque(caller for caller in queue if not caller.future.done())
            while waiting and waiting[0].deadline <= now:
                late.append(waiting.popleft())
            if waiting:
                self._queues[timeout] = waiting
            else:
                del self._queues[timeout]
        for caller in late:
            self._expire(caller)
        ahead = [queue[0].deadline for queue in self._queues.values() if queue]
        if ahead:
            self._set(min(ahead))
