"""Threads for functions of the program that may block."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

MOST = 32
"""Threads, at most; what more is to be called waits."""

Work = tuple[asyncio.Future[object], Callable[[], object]]


class CallbackThreads:
    """Calls functions in threads of its own, at whose end the program's exit does not wait: one may block for ever.

    To be used in the event loop alone.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._threads = self._calls = 0

    def call(self, function: Callable[[], object]) -> asyncio.Future[object]:
        """What a function gives, or raises. Cancelling leaves it alone, or undone if it was not called yet."""
        future: asyncio.Future[object] = self._loop.create_future()
        self._calls += 1
        if self._calls > self._threads and self._threads < MOST:
            self._threads += 1
            Thread(target=self._run, name=f"penstock-sync-callbacks-{self._threads}", daemon=True).start()
        self._work.put((future, function))
        return future

    def end(self) -> None:
        """Call nothing more; what is being called may end."""
        for _ in range(self._threads):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            future, function = work
            result: Any = None
            failure: Exception | None = None
            try:
                if not future.cancelled():
                    result = function()
            except BaseException as exc:  # noqa: BLE001 - the top of a thread; who waits for it is told
                failure = _bearable(exc)
            try:
                self._loop.call_soon_threadsafe(self._settle, future, result, failure)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
            del work, future, function, result, failure  # while it waits for more

    def _settle(self, future: asyncio.Future[object], result: object, failure: Exception | None) -> None:
        self._calls -= 1
        if future.done():
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)


def _bearable(exc: BaseException) -> Exception:
    """What a function has raised, as a task can: SystemExit would end the event loop, StopIteration no future takes."""
    if isinstance(exc, Exception) and not isinstance(exc, StopIteration):
        return exc
    error = RuntimeError(f"a callback has raised {exc!r}")
    error.__cause__ = exc
    return error
