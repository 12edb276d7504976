"""One load, and all who wait for it."""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Future
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from contextvars import ContextVar
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from penstock.cache.entry import Node

if TYPE_CHECKING:  # it needs an extra
    from penstock.cache.shared.notes import Put, Ticket
    from penstock.cache.shared.tier import SharedTier

Loader: TypeAlias = Callable[[], Awaitable[Any] | Any]
Loaded: TypeAlias = tuple[Any, int]
"""A value, and what it weighs."""


class Cancellable(Protocol):
    """A task, or what ends a load without one."""

    def cancel(self) -> object: ...


class Flight:
    """A loader that runs apart from its callers, so that no caller's cancelling ends it for the others.

    Callers may be on other event loops than the loader: each waits on a future of its own.
    """

    task: Cancellable | None = None
    """What ends the load by being cancelled."""
    refreshed: Node | None = None
    """The stale node that the result is to replace, while nobody waits for it."""
    ticket: Ticket | None = None
    packed: Put | None = None
    """For the shared tier, which has nothing that is as good."""
    ended = False
    is_waiting = False
    """For the first connection of the shared tier."""
    _value: Any = None
    _error: BaseException | None = None
    _trace: TracebackType | None = None

    def __init__(self, key: Hashable, ttl: float, tags: tuple[str, ...], loop: AbstractEventLoop) -> None:
        self.key, self.ttl, self.tags, self.loop = key, ttl, tags, loop
        self.waiters: set[Future[None]] = set()
        self.needs: set[Flight] = set()
        """Loads that its loader waits for."""

    async def load(
        self, loader: Loader, size_of: Callable[[Any], int] | None, shared: SharedTier | None = None
    ) -> Loaded:
        """Ask the shared tier, then call the loader; runs in a task of its own."""
        current.set(self)
        kept = None if shared is None else await shared.fetch(self)
        if kept is not None:
            value = kept.value
            self.ttl = min(self.ttl, kept.left)
        else:
            result = loader()
            value = await result if isawaitable(result) else result
            if shared is not None:
                self.packed = shared.pack(self.key, value, self.ttl, self.tags)
        return value, 0 if size_of is None else size_of(value)

    def waits_for(self, other: Flight) -> bool:
        """Whether it cannot end before another one does."""
        todo, seen = [self], {self}
        while todo:
            one = todo.pop()
            if one is other:
                return True
            todo += one.needs - seen
            seen |= one.needs
        return False

    def end(self, value: Any, error: BaseException | None) -> None:
        """Note what `answer` gives."""
        self._value = value
        if error is not None:
            self._error, self._trace = error, error.__traceback__

    def answer(self) -> Any:
        """What was loaded; raises what the loader raised, to everybody with the same traceback."""
        if self._error is not None:
            raise self._error.with_traceback(self._trace)
        return self._value

    @property
    def was_cancelled(self) -> bool:
        return isinstance(self._error, CancelledError)

    def wake(self, waiters: set[Future[None]]) -> None:
        """Wake up all who waited; on the loader's event loop."""
        for waiter in waiters:
            loop = waiter.get_loop()
            if loop is self.loop:
                _wake(waiter)
            else:
                with suppress(RuntimeError):  # closed: nobody waits there any more
                    loop.call_soon_threadsafe(_wake, waiter)

    def cancel(self, loop: AbstractEventLoop) -> None:
        """End the load, for nobody waits any more; ``loop`` is the caller's."""
        task = self.task  # which another thread may drop
        if task is None:
            return  # it has ended, or its caller will find that nobody waits
        if loop is self.loop:
            task.cancel()
        else:
            with suppress(RuntimeError):  # closed: it has ended
                self.loop.call_soon_threadsafe(task.cancel)


current: ContextVar[Flight | None] = ContextVar("penstock.cache.flight", default=None)
"""The load that this task does, or was begun by."""


def _wake(waiter: Future[None]) -> None:
    if not waiter.done():  # it was cancelled in this moment
        waiter.set_result(None)
