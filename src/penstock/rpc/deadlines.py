"""Until when calls are waited for: one timer for all of a client."""

from __future__ import annotations

import asyncio
from typing import Any


class Deadlines:
    """Has futures told that their time is over, in place of a timer for each.

    Args:
        late: what they get as their result.
    """

    def __init__(self, late: object) -> None:
        self._late = late
        self._queues: dict[float, dict[asyncio.Future[Any], float]] = {}
        """Deadlines by how long is waited at most: within one, they come in the order of arrival."""
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def add(self, future: asyncio.Future[Any], timeout: float | None, loop: asyncio.AbstractEventLoop) -> None:
        """Mind a future until it is removed.

        Args:
            timeout: seconds until it is told: at once where there are none; None for never.
            loop: the future's, which is running.
        """
        if timeout is None:
            return
        try:
            has_none = timeout <= 0
        except TypeError:
            raise no_time(timeout) from None
        if has_none:
            future.set_result(self._late)
            return
        deadline = loop.time() + timeout
        queue = self._queues.get(timeout)
        if queue is None:
            queue = self._queues[timeout] = {}
        queue[future] = deadline
        if self._timer is None or self._rings_at > deadline:
            self._set(deadline, loop)

    def remove(self, future: asyncio.Future[Any], timeout: float | None) -> None:
        """A future that was added is not waited for any more."""
        if timeout is None:
            return
        queue = self._queues.get(timeout)
        if queue is not None:
            queue.pop(future, None)
            if not queue:
                del self._queues[timeout]

    def _set(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = when
        self._timer = loop.call_at(when, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = max(loop.time(), self._rings_at)  # some clocks ring a trifle early
        ahead: list[float] = []
        for queue in self._queues.values():
            for future, deadline in queue.items():
                if deadline > now:
                    ahead.append(deadline)
                    break
                if not future.done():
                    future.set_result(self._late)
        if ahead:
            self._set(min(ahead), loop)

    def stop(self) -> None:
        """Tell nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def no_time(timeout: object) -> TypeError:
    """What to raise for a time-out that is none."""
    return TypeError(f"timeout={timeout!r}: must be a number of seconds, or None")
