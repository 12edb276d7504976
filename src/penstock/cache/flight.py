"""One load, and all who wait for it."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError, Future
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from contextvars import ContextVar
from inspect import isawaitable
from typing import Any, TypeAlias

from penstock.cache.entry import Node

Loader: TypeAlias = Callable[[], Awaitable[Any] | Any]

current: ContextVar[Flight | None] = ContextVar("penstock.cache.flight", default=None)
"""The load that this task does, or was begun by."""


class Flight:
    """Runs a loader in a task of its own, so that no caller's cancelling ends it for the others.

    Callers may be on other event loops than the loader: each waits on a future of its own.
    """

    __slots__ = (
        "_asked",
        "_failed",
        "_result",
        "ended",
        "key",
        "loop",
        "needs",
        "refreshed",
        "tags",
        "task",
        "ttl",
        "waiters",
    )

    def __init__(self, key: Hashable, ttl: float, tags: tuple[str, ...], loop: asyncio.AbstractEventLoop) -> None:
        self.key, self.ttl, self.tags, self.loop = key, ttl, tags, loop
        self.task: asyncio.Task[None] | None = None
        self.waiters: set[Future[None]] = set()
        self.refreshed: Node | None = None
        """The stale node that the result is to replace, while nobody waits for it."""
        self.needs: set[Flight] = set()
        """What its loader waits for."""
        self.ended = False
        self._result: Any = None
        self._failed: BaseException | None = None

    def waits_for(self, other: Flight) -> bool:
        """Whether it could not end before another one does."""
        todo, seen = [self], {self}
        while todo:
            one = todo.pop()
            if one is other:
                return True
            todo += one.needs - seen
            seen |= one.needs
        return False

    async def load(self, loader: Loader) -> Any:
        """Call the loader. What it returns or raises is what `answer` gives."""
        current.set(self)
        try:
            result = loader()
            self._result = await result if isawaitable(result) else result
        except BaseException as exc:
            self._failed = exc
            raise
        return self._result

    def answer(self) -> Any:
        """What was loaded, once `ended`.

        Raises:
            BaseException: whatever the loader raised, to everybody.
        """
        if self._failed is not None:
            raise self._failed.with_traceback(None)
        return self._result

    @property
    def was_cancelled(self) -> bool:
        return isinstance(self._failed, CancelledError)

    def end(self, waiters: set[Future[None]]) -> None:
        """Wake up all who wait; runs on the loader's event loop."""
        for waiter in waiters:
            if waiter.get_loop() is self.loop:
                wake(waiter)
            else:
                with suppress(RuntimeError):  # its loop is closed: nobody waits any more
                    waiter.get_loop().call_soon_threadsafe(wake, waiter)

    def cancel(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the load, for nobody waits any more; ``loop`` is the caller's."""
        assert self.task is not None
        if loop is self.loop:
            self.task.cancel()
        else:
            with suppress(RuntimeError):  # closed: it has ended
                self.loop.call_soon_threadsafe(self.task.cancel)


def wake(waiter: Future[None]) -> None:
    """Unless it was cancelled in the same moment."""
    if not waiter.done():
        waiter.set_result(None)
