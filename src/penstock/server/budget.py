"""What sessions may keep together while their clients are away."""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from contextlib import suppress
from threading import Lock


class Waiting:
    """A session that waits for its client.

    Args:
        loop: its own.
        size: bytes that it keeps.
        end: ends it, if it still waits; called in its event loop.
    """

    __slots__ = ("end", "loop", "size")

    def __init__(self, loop: AbstractEventLoop, size: int, end: Callable[[], None]) -> None:
        self.loop, self.size, self.end = loop, size, end

    def end_for(self, other: Waiting) -> None:
        """End it to make room; if that is for one of another event loop, as soon as its own gets to it."""
        if self.loop is other.loop:
            self.end()
        else:
            with suppress(RuntimeError):  # its event loop was closed, and it went with that
                self.loop.call_soon_threadsafe(self.end)


class SessionBudget:
    """Bounds the sessions without a connection of all servers that share it, in whatever threads they run.

    By default all servers of a process share one, ``penstock.server.budget.PROCESS``. When it is exceeded, the session
    that has waited for longest ends, whosever it is. What a session keeps is counted when its connection breaks, and
    each second after.

    Args:
        max_detached: sessions that wait at a time.
        max_detached_bytes: bytes that all of them keep, received and not taken or sent and not acknowledged.

    Raises:
        ValueError: an argument is out of bounds; the message names it, its value and the bound.
    """

    def __init__(self, *, max_detached: int = 10_000, max_detached_bytes: int = 256 * 1024 * 1024) -> None:
        check_bounds(max_detached=max_detached, max_detached_bytes=max_detached_bytes)
        self.max_detached, self.max_detached_bytes = max_detached, max_detached_bytes
        self._lock = Lock()
        self._waiting: dict[Waiting, int] = {}
        """In the order in which they began to wait, with the bytes that are counted of each."""
        self._size = 0

    def __repr__(self) -> str:
        return (
            f"<SessionBudget {self.detached} of {self.max_detached} sessions, "
            f"{self.detached_bytes} of {self.max_detached_bytes} bytes>"
        )

    @property
    def detached(self) -> int:
        """Sessions that wait."""
        return len(self._waiting)

    @property
    def detached_bytes(self) -> int:
        """Bytes that they keep."""
        return self._size

    def keep(self, waiting: Waiting) -> None:
        """Count a session that begins to wait, or what it keeps now; others may end for it, or itself."""
        with self._lock:
            self._size += waiting.size - self._waiting.get(waiting, 0)
            self._waiting[waiting] = waiting.size
            over = self._take_excess()
        for first in over:
            first.end_for(waiting)

    def release(self, waiting: Waiting) -> None:
        """A session does not wait any more."""
        with self._lock:
            self._size -= self._waiting.pop(waiting, 0)

    def _take_excess(self) -> list[Waiting]:
        over: list[Waiting] = []
        while self._waiting:
            first = next(iter(self._waiting))
            is_gone = first.loop.is_closed()  # nobody has ended what waited there
            if not is_gone and len(self._waiting) <= self.max_detached and self._size <= self.max_detached_bytes:
                break
            self._size -= self._waiting.pop(first)
            if not is_gone:
                over.append(first)
        return over


def check_bounds(**bounds: int) -> None:
    """Refuse what is no count.

    Raises:
        ValueError: one is not a whole number of at least 0.
    """
    for name, value in bounds.items():
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name}={value!r}: must be a whole number of at least 0")


PROCESS = SessionBudget()
"""Shared by all servers of a process that are given no other."""
