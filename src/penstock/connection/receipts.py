"""Who waits until the peer's application has taken what was sent."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable


class Receipts:
    """Futures, by the number of the frame that has to be taken for each."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._expected: deque[tuple[int, Future[None]]] = deque()
        self._asked = 0  # the number that the peer was last asked for

    def expect(self, seq: int) -> Future[None]:
        """What to await until frame ``seq`` was taken; numbers come in ascending order."""
        receipt: Future[None] = self._loop.create_future()
        self._expected.append((seq, receipt))
        return receipt

    def wanted(self) -> int:
        """The first number that somebody waits for, which the peer is asked for now; 0 if nobody does."""
        self._asked = self._first()
        return self._asked

    @property
    def has_news(self) -> bool:
        """Whether somebody waits for a number that the peer was not asked for."""
        return self._first() > self._asked

    def _first(self) -> int:
        while self._expected and self._expected[0][1].done():
            self._expected.popleft()
        return self._expected[0][0] if self._expected else 0

    def move(self, seq: int) -> None:
        """What all wait for has been numbered anew, up to ``seq``."""
        self._expected = deque((seq, receipt) for _, receipt in self._expected)
        self._asked = 0

    def resolve(self, acked: int) -> None:
        """All frames up to ``acked`` were taken."""
        while self._expected and self._expected[0][0] <= acked:
            receipt = self._expected.popleft()[1]
            if not receipt.done():
                receipt.set_result(None)

    def fail(self, make_cause: Callable[[], Exception]) -> None:
        """It will never be known."""
        if self._first():
            cause = make_cause()  # the same for all, since it holds what may be lost
            for _, receipt in self._expected:
                if not receipt.done():
                    receipt.set_exception(cause)
        self._expected.clear()
