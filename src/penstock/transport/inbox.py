"""Messages that have arrived and wait to be received; pauses reading when too many do."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, TypeAlias


class Part(NamedTuple):
    """A frame of a fragmented message."""

    text: bool
    """Whether the message is text; meaningful in its first part."""
    data: bytes
    fin: bool


class BadText(NamedTuple):
    """A text message that is not UTF-8; fails the connection when it is received as text."""

    data: bytes


Item: TypeAlias = str | bytes | Part | BadText


class Inbox:
    """A queue with one reader.

    The bound is soft: a single read from the socket can bring thousands of frames, which all have to be kept; reading
    pauses above ``high`` and goes on at ``low``.
    """

    def __init__(self, loop: AbstractEventLoop, high: int | None, low: int | None) -> None:
        self._loop = loop
        self.high = float("inf") if high is None else high
        self.low = float("inf") if low is None else low
        self.items: deque[Item] = deque()
        self.busy = False
        """A reader waits, or has read a message in part."""
        self.paused = False
        self.ended = False
        self.last_paused = float("-inf")
        self._waiter: Future[None] | None = None
        self._overflow_is_dropped = False
        self.on_full: Callable[[], bool] | None = None
        """Asked when too many wait, before reading pauses: True if it made room."""
        self._sink: Callable[[Item], None] | None = None
        self._pause: Callable[[], object] = lambda: None
        self._resume: Callable[[], object] = lambda: None

    def connect(self, pause: Callable[[], object], resume: Callable[[], object]) -> None:
        """Tell how to stop reading from the socket, and to go on."""
        self._pause, self._resume = pause, resume

    def put(self, item: Item) -> None:
        """Add what arrived."""
        items = self.items
        items.append(item)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if len(items) > self.high:
            self._overflow()

    def divert(self, sink: Callable[[Item], None]) -> None:
        """Give what is here, and whatever comes, to ``sink`` instead of keeping it."""
        self._sink = sink
        self.high = -1  # so that `put`, which is in a hurry, does not have to look
        while self.items:
            sink(self.items.popleft())
        if self.paused:
            self._go_on()

    def _overflow(self) -> None:
        if self._sink is not None:
            self._sink(self.items.pop())
        elif self._overflow_is_dropped:
            self._drop_the_rest()
        elif not self.paused and not (self.on_full is not None and self.on_full()):
            self.paused = True
            self._pause()

    def _drop_the_rest(self) -> None:
        """Drop what came last, with the parts of its message that are here, and all that is still to come."""
        self.high = -1
        items = self.items
        if isinstance(items.pop(), Part):
            while items and isinstance(items[-1], Part) and not items[-1].fin:
                items.pop()

    def relax(self) -> None:
        """Go on reading if enough was taken out."""
        if self.paused and len(self.items) <= self.low:
            self._go_on()

    def _go_on(self) -> None:
        self.paused = False
        self.last_paused = self._loop.time()
        self._resume()

    def discard_whole(self) -> int:
        """Drop the whole messages that are here, and tell of how many frames; what is left is part of one."""
        items = self.items
        before = len(items)
        rest: list[Item] = []
        while items and isinstance(items[-1], Part) and not items[-1].fin:
            rest.insert(0, items.pop())
        items.clear()
        items.extend(rest)
        self.relax()
        return before - len(rest)

    def deaf_since(self, when: float) -> bool:
        """Whether reading was paused at any time since ``when``: a pong may be unread in the socket."""
        return self.paused or self.last_paused >= when

    async def wait(self) -> None:
        """Wait for an item.

        Cancelling is safe: nothing is taken out.

        Raises:
            EOFError: nothing more will arrive.
        """
        while not self.items:
            was_busy = self.busy
            arrival = self.expect()
            try:
                await arrival
            finally:
                self.expected(still_busy=was_busy)

    def expect(self) -> Future[None]:
        """What to await while there are no items, before calling `expected` in any case; `wait` without its frame.

        Raises:
            EOFError: nothing more will arrive.
        """
        if self.ended:
            raise EOFError("nothing more will arrive")
        self.busy = True
        self._waiter = self._loop.create_future()
        return self._waiter

    def expected(self, *, still_busy: bool = False) -> None:
        """The future that `expect` gave is done or cancelled."""
        self.busy = still_busy
        self._waiter = None

    def close(self) -> None:
        """We are closing: keep reading, so that the peer's CLOSE is seen; what does not fit is dropped."""
        self._overflow_is_dropped = True
        if self.paused:
            self._go_on()

    def end(self) -> None:
        """Nothing more will arrive; what is here can still be taken."""
        self.ended = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
