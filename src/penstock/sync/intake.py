"""Messages on their way from threads to the event loop, in order and within bounds."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from threading import TIMEOUT_MAX, Condition, Lock

from msgspec import Struct

from penstock.errors import LoopEnded, MiddlewareClosed, SendingFailed, WaitTimeout
from penstock.message import Priority
from penstock.sync.thread import LoopThread
from penstock.transport.base import Data

CHUNK, CHUNK_BYTES = 256, 256 * 1024
"""What the loop takes at a time."""


class Letter(Struct, frozen=True):
    """A message with more to it than its text."""

    data: Data
    priority: Priority
    key: str | None
    expires_at: float | None
    """On the monotonic clock; the time that it spends here counts."""

    @property
    def ttl(self) -> float | None:
        """Seconds that are left."""
        return None if self.expires_at is None else self.expires_at - time.monotonic()


class Intake:
    """The messages of all threads to one URL that the loop has not accepted yet.

    Threads put them here without waiting for the loop, which is woken for the first and takes all that are here. When
    there is no more room, they wait until half of it is free. When the loop cannot send one, that one and all behind
    it are given back, once: by the next call that would add to them, or that asks what became of them.

    Args:
        send: has the loop accept a message, and may be given the fields of a `Letter`.
        max_messages, max_bytes: that may be here, beside what the loop has just taken; one message may be longer.
    """

    def __init__(
        self,
        url: str,
        thread: LoopThread,
        send: Callable[..., Awaitable[None]],
        *,
        max_messages: int,
        max_bytes: int,
    ) -> None:
        self.url = url
        self._thread, self._send = thread, send
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._items: deque[Data | Letter] = deque()
        """Guarded by the lock, as are all below up to `_gone`."""
        self._bytes = self._count = 0
        self._is_open = True
        """Whether a message may be added without a closer look."""
        self._is_closed = self._is_taken_from = False
        self._failed: list[Data] = []
        """What could not be sent, and nobody was told yet."""
        self._cause: BaseException | None = None
        self._gone = 0
        """Messages, of `_count`, that were accepted by the loop or have failed."""
        self._why: BaseException = LoopEnded("send")
        """Why what is here is not sent any more, once it is not."""
        self._taking: asyncio.Task[None] | None = None
        self._settling: deque[tuple[int, asyncio.Future[None]]] = deque()
        """Who waits in the loop until how many are gone."""

    # From all threads

    def put(self, item: Data | Letter, size: int, timeout: float | None) -> None:
        """Add a message of ``size`` bytes, behind those that this thread has added before.

        Raises:
            SendingFailed: earlier ones could not be sent; this one was not added.
            WaitTimeout: there was no room within ``timeout`` seconds; it was not added.
            MiddlewareClosed, LoopEnded: nobody sends it any more.
        """
        with self._lock:
            if not self._is_open:
                self._wait_for_room(timeout)
            if not self._is_taken_from:
                self._thread.post("send", self._begin)
                self._is_taken_from = True  # only now: were it set and nothing posted, messages would lie here for ever
            self._items.append(item)
            self._count += 1
            self._bytes += size
            if self._bytes >= self._max_bytes or len(self._items) >= self._max_messages:
                self._is_open = False

    def _wait_for_room(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_open:
            if self._cause is not None:
                raise self._take_failure(self._cause)
            if self._is_closed:
                raise MiddlewareClosed
            left = None if deadline is None else deadline - time.monotonic()
            if timeout is not None and left is not None and left <= 0:
                raise WaitTimeout("send", timeout)
            self._changed.wait(None if left is None else min(left, TIMEOUT_MAX))

    def check(self) -> None:
        """Raise what has failed and was not told yet.

        Raises:
            SendingFailed: messages could not be sent.
        """
        with self._lock:
            if self._cause is not None:
                raise self._take_failure(self._cause)

    def _take_failure(self, cause: BaseException) -> SendingFailed:
        failure = SendingFailed(self.url, self._failed)
        failure.__cause__ = cause
        self._failed, self._cause = [], None
        self._is_open = not self._is_closed
        self._changed.notify_all()
        return failure

    def refuse(self) -> None:
        """Take no more; what is here is still sent."""
        with self._lock:
            self._is_closed, self._is_open = True, False
            self._changed.notify_all()

    def _give_back(self, messages: list[Data | Letter], cause: BaseException) -> None:
        """These have failed, and what is behind them as well."""
        failed = [item.data if isinstance(item, Letter) else item for item in (*messages, *self._items)]
        self._items.clear()
        self._bytes = 0
        self._is_open = False
        if failed:
            self._failed += failed
            self._cause = self._cause or cause
        self._changed.notify_all()

    @property
    def pending(self) -> int:
        """Messages that the loop has not accepted."""
        return self._count - self._gone

    # In the loop

    def _begin(self) -> None:
        if self._taking is None:
            self._taking = self._thread.loop.create_task(self._take())

    async def _take(self) -> None:
        while chunk := self._next():
            sent = 0
            try:
                for item in chunk:
                    if type(item) is Letter:
                        await self._send(item.data, priority=item.priority, key=item.key, ttl=item.ttl)
                    else:
                        await self._send(item)
                    sent += 1
            except asyncio.CancelledError:
                self._fail(chunk[sent:], self._why)
                raise
            except Exception as exc:  # noqa: BLE001 - the top of a task; whoever sends next is told
                self._fail(chunk[sent:], exc)
            self._settle(self._gone + len(chunk))

    def _next(self) -> list[Data | Letter]:
        """What is to be sent next; the task ends if there is nothing."""
        chunk: list[Data | Letter] = []
        size = 0
        with self._lock:
            items = self._items
            while items and len(chunk) < CHUNK and size < CHUNK_BYTES:
                item = items.popleft()
                size += len(item.data if type(item) is Letter else item)  # type: ignore[arg-type]
                chunk.append(item)
            self._bytes -= size
            if not chunk:
                self._is_taken_from, self._taking = False, None
            elif not self._is_open and 2 * len(items) <= self._max_messages and 2 * self._bytes <= self._max_bytes:
                self._is_open = not self._is_closed and self._cause is None
                self._changed.notify_all()
        return chunk

    def _fail(self, messages: list[Data | Letter], cause: BaseException) -> None:
        with self._lock:
            behind = len(self._items)
            self._give_back(messages, cause)
        self._settle(self._gone + behind)

    def _settle(self, gone: int) -> None:
        self._gone = gone
        while self._settling and self._settling[0][0] <= gone:
            _, future = self._settling.popleft()
            if not future.done():
                future.set_result(None)

    async def emptied(self) -> None:
        """Wait until what is here now is accepted, or has failed."""
        if self.pending:
            future = self._thread.loop.create_future()
            self._settling.append((self._count, future))
            await future

    async def settled(self) -> None:
        """Wait until what is here now is accepted.

        Raises:
            SendingFailed: it could not be.
        """
        await self.emptied()
        self.check()

    async def end(self, why: BaseException) -> None:
        """Take no more, and send no more: what is here has failed."""
        self._why = why
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait([self._taking])
        with self._lock:
            self._is_closed = True
            self._give_back([], why)
