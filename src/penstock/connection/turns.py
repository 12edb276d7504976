"""Senders that wait for their turn: first come, first served, and what has been promised to them."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections import OrderedDict
from collections.abc import Callable


class Turn:
    """One sender's place in the queue."""

    __slots__ = ("exclusive", "future", "size")

    def __init__(self, future: Future[bool], size: int, exclusive: bool) -> None:
        self.future = future
        """Completes with whether the sender may go ahead."""
        self.size = size
        """Bytes that it wants to send."""
        self.exclusive = exclusive
        """It wants the connection to itself, for a message in fragments."""


class Turns:
    """The queue.

    A sender that is let through takes its message a moment later, in its own task, so that a ``send`` which is
    cancelled in between has not sent. Until then its place is promised: it counts as if it had been taken, and nobody
    overtakes.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.promised = 0
        """Senders that have been let through, and have not taken their messages yet."""
        self.promised_bytes = 0
        self._loop = loop
        self._queue: OrderedDict[Turn, None] = OrderedDict()

    def __bool__(self) -> bool:
        """Whether anybody waits, or has been promised something."""
        return bool(self._queue) or self.promised > 0

    def join(self, size: int, *, exclusive: bool) -> Turn:
        """Queue up."""
        turn = Turn(self._loop.create_future(), size, exclusive)
        self._queue[turn] = None
        return turn

    def let_through(self, may_go: Callable[[Turn], bool]) -> None:
        """Promise senders what they want, from the first on, as long as ``may_go``."""
        queue = self._queue
        while queue:
            turn = next(iter(queue))
            if turn.future.done():  # cancelled, and about to withdraw
                del queue[turn]
                continue
            if not may_go(turn):
                return
            del queue[turn]
            self.promised += 1
            self.promised_bytes += turn.size
            turn.future.set_result(True)

    def keep(self, turn: Turn) -> None:
        """A sender that was let through takes what it was promised, or gives it up."""
        self.promised -= 1
        self.promised_bytes -= turn.size

    def withdraw(self, turn: Turn) -> bool:
        """A sender was cancelled; return whether it had been let through, and has given that up."""
        self._queue.pop(turn, None)
        if turn.future.cancelled() or not turn.future.result():
            return False
        self.keep(turn)
        return True

    def refuse_all(self) -> None:
        """Send everybody away who still waits."""
        for turn in self._queue:
            if not turn.future.done():
                turn.future.set_result(False)
        self._queue.clear()
