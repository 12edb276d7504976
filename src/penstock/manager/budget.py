"""What may wait to be sent, over all connections: beyond it callers wait, or are refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf

from penstock.errors import LimitReached
from penstock.message import payload_bytes

RECOUNT = 0.005
"""Seconds between looks whether there is room again, while somebody waits for it."""


def size_of(message: object) -> int:
    """Bytes that a message will take; 0 for what is none, or is not whole. Raises SerializationError."""
    if isinstance(message, str):
        return payload_bytes(message)
    return memoryview(message).nbytes if isinstance(message, bytes | bytearray | memoryview) else 0


class Budget:
    """Bounds messages and bytes that are pending.

    Each sender asks for `room` before it takes a message, which counts as pending until it has told what it has
    (`charge`) and that the message is among it, or is not to be (`settle`). So the bounds hold however many come at
    once. Those who wait for room get it in the order in which they came. A message larger than the bound is taken when
    nothing else is pending.

    Args:
        recount: has all senders say again what they have pending; it is asked when there seems to be no room.
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
        self._promised = self._promised_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._recounted_at = -inf

    @property
    def is_bounded(self) -> bool:
        """Whether there is any bound."""
        return self._max_messages is not None or self._max_bytes is not None

    @property
    def waiting(self) -> int:
        """Callers that wait for room."""
        return len(self._waiting)

    def has_room(self, size: int) -> bool:
        """Whether a message of so many bytes may be taken."""
        messages, used = self.messages + self._promised, self.bytes + self._promised_bytes
        if self._max_messages is not None and messages >= self._max_messages:
            return False
        if self._max_bytes is None or used + self.used_elsewhere + size <= self._max_bytes:
            return True
        return not messages and not used and size > self._max_bytes - self.used_elsewhere > 0

    def charge(self, messages: int, size: int) -> None:
        """So much more is pending, or less."""
        self.messages += messages
        self.bytes += size

    def settle(self, size: int) -> None:
        """A message that there was room for is charged, or was not taken."""
        self._promised -= 1
        self._promised_bytes -= size

    async def room(self, size: int) -> None:
        """Wait until there is room for a message of so many bytes, and keep it until `settle`; cancelling is safe.

        Raises:
            LimitReached: there is none, and callers are to be refused.
        """
        loop = asyncio.get_running_loop()
        if self._waiting or not self._finds_room(size, loop.time()):
            if self._raises:
                raise LimitReached(self.messages, self._max_messages, self.bytes + self.used_elsewhere, self._max_bytes)
            await self._turn(size, loop)
        else:
            self._promise(size)

    async def _turn(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        turn = loop.create_future()
        self._waiting.append((size, turn))
        if self._timer is None:
            self._timer = loop.call_later(RECOUNT, self._look, loop)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._waiting.remove((size, turn))
            else:  # let through in the same moment
                self.settle(size)
            raise

    def _promise(self, size: int) -> None:
        self._promised += 1
        self._promised_bytes += size

    def _finds_room(self, size: int, now: float) -> bool:
        """Look again before it is said that there is none, though not at every call of those who insist."""
        if not self.has_room(size) and now - self._recounted_at >= RECOUNT:
            self._recounted_at = now
            self._recount()
        return self.has_room(size)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let through all for whom there is room."""
        self._timer = None
        self._recounted_at = loop.time()
        self._recount()
        while self._waiting and self.has_room(self._waiting[0][0]):
            self._let_through()
        if self._waiting:
            self._timer = loop.call_later(RECOUNT, self._look, loop)

    def _let_through(self) -> None:
        size, turn = self._waiting.popleft()
        self._promise(size)
        turn.set_result(None)

    def close(self) -> None:
        """Let all who wait go on: what they wanted to send is refused elsewhere."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._let_through()
