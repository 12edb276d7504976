"""What may wait to be sent, over all connections: beyond it callers wait, or are refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from penstock.errors import LimitReached

RECOUNT = 0.005
"""Seconds between looks whether there is room again, while somebody waits for it."""


class Budget:
    """Bounds messages and bytes that are pending.

    Each sender says what it has pending as it changes (`charge`), and asks for `room` before it takes more. Those who
    wait for room get it in the order in which they came.

    Args:
        recount: says again what all senders have pending; it is asked while somebody waits.
        raises: refuse instead of waiting.
    """

    def __init__(
        self, max_messages: int | None, max_bytes: int | None, recount: Callable[[], object], *, raises: bool
    ) -> None:
        self.messages = self.bytes = 0
        """Pending at the last look."""
        self.used_elsewhere = 0
        """Bytes of other things that the same memory is for."""
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._recount, self._raises = recount, raises
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Callers that wait for room."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether one message more would be too many."""
        return (self._max_messages is not None and self.messages >= self._max_messages) or (
            self._max_bytes is not None and self.bytes + self.used_elsewhere >= self._max_bytes
        )

    def charge(self, messages: int, size: int) -> None:
        """So much more is pending, or less."""
        self.messages += messages
        self.bytes += size

    async def room(self) -> None:
        """Wait until there is room; cancelling is safe.

        Raises:
            LimitReached: there is none, and callers are to be refused.
        """
        if not self.is_full and not self._waiting:
            return
        if self._raises:
            raise LimitReached(self.messages, self._max_messages, self.bytes + self.used_elsewhere, self._max_bytes)
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        self._watch(loop)
        try:
            await turn
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is None:
            self._timer = loop.call_later(RECOUNT, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let one caller through for each look that finds room: what it sends counts at the next."""
        self._timer = None
        self._recount()
        while self._waiting and not self.is_full:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        if self._waiting:
            self._timer = loop.call_later(0 if not self.is_full else RECOUNT, self._look, loop)

    def close(self) -> None:
        """Let all who wait go on: what they wanted to send is refused elsewhere."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
