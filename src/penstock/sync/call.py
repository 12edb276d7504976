"""One call from a thread into the event loop, which the thread waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from threading import TIMEOUT_MAX, Lock
from typing import Generic, TypeVar

from penstock.errors import LoopEnded, WaitTimeout

T = TypeVar("T")


class Call(Generic[T]):
    """Work that a thread waits for.

    A lock that the loop releases costs a quarter of what ``concurrent.futures.Future`` and its condition do.
    """

    __slots__ = ("_done", "_is_unwanted", "_loop", "_name", "_task", "_work")

    def __init__(self, name: str, work: Callable[[], Awaitable[T]], loop: asyncio.AbstractEventLoop) -> None:
        self._name, self._work, self._loop = name, work, loop
        self._is_unwanted = False
        self._task: asyncio.Task[T]
        self._done = Lock()
        self._done.acquire()

    # In the loop

    def start(self) -> None:
        """Begin it."""
        self._task = self._loop.create_task(_do(self._work))
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled():
            task.exception()  # an interrupted caller does not ask for it
        self._done.release()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._is_unwanted = True
        self._task.cancel()

    # In the thread

    def wait(self, timeout: float | None) -> bool:
        """Whether it has ended within ``timeout`` seconds."""
        return self._done.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), TIMEOUT_MAX))

    def outcome(self, timeout: float | None) -> T:
        """What has become of it; one that ended just before it was cancelled has ended well.

        Raises:
            WaitTimeout: it was cancelled, after ``timeout`` seconds.
            LoopEnded: it was cancelled because the loop ended.
        """
        task, name, is_unwanted = self._task, self._name, self._is_unwanted
        del self  # the traceback of what is raised keeps this frame, which is not to keep what was raised
        try:
            if not task.cancelled():
                return task.result()
        finally:
            del task
        if is_unwanted and timeout is not None:
            raise WaitTimeout(name, timeout)
        raise LoopEnded(name)


async def _do(work: Callable[[], Awaitable[T]]) -> T:
    return await work()  # no method: its frame is in the traceback of what is raised, which is not to keep a `Call`
