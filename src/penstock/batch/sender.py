"""Hands one batch after the other to the caller's ``deliver``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from math import inf
from typing import Any, TypeAlias

from penstock.backoff import backoff
from penstock.batch.entry import CLOSED, DELIVERED, Entry, Outcome, settle_all, wrapped
from penstock.batch.queue import BatchQueue
from penstock.batch.stats import BatchCounts
from penstock.errors import BatcherClosed
from penstock.message import Message

Deliver: TypeAlias = Callable[[list[Message]], Awaitable[Any] | None]
OnDrop: TypeAlias = Callable[[list[Message], str], object]

logger = logging.getLogger("penstock.batch")

_LONGEST_RETRY_DELAY = 5.0
_PATIENCE = 0.1
"""Seconds that ``deliver`` has to end once it is cancelled."""
_EXPIRY_PAUSE = 0.05
"""Seconds between looks for what has expired: each goes through all that wait."""


class Flush:
    """A caller that waits until all messages up to a number have been delivered, or dropped."""

    def __init__(self, until: int, future: asyncio.Future[None]) -> None:
        self.until, self.future = until, future
        self.delivered: list[Message] = []
        self.error: Exception | None = None
        """Why the first that were dropped were."""

    def tell(self, messages: list[Message], error: Exception | None) -> None:
        """Some of the messages waited for were delivered, or dropped."""
        if error is None:
            self.delivered += messages
        elif messages and self.error is None:
            self.error = error


class Sender:
    """Calls ``deliver`` in a task of its own, which lives while a batch is due: nobody else's cancelling ends it.

    Args:
        let_through: called when messages have left the queue.
        on_end: called when no more is going to be sent.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        queue: BatchQueue,
        counts: BatchCounts,
        deliver: Deliver,
        max_attempts: int,
        retry_delay: float,
        random: Callable[[], float],
        on_drop: OnDrop | None,
        let_through: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.batch: list[Entry] = []
        """What ``deliver`` has."""
        self.busy: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._loop, self._queue, self._counts = loop, queue, counts
        self._deliver, self._on_drop = deliver, on_drop
        self._let_through, self._on_end = let_through, on_end
        self._max_attempts, self._retry_delay, self._random = max_attempts, retry_delay, random
        self._flushes: list[Flush] = []
        self._expiry: asyncio.TimerHandle | None = None
        self._expiry_at = 0.0  # the handle itself does not tell with uvloop, where the time has come already
        self._looked_at = -inf
        self.stopped = False

    def look(self) -> None:
        """Begin to send if a batch is due, or see to it that somebody looks when it is."""
        if self.busy is None and not self.stopped:
            trigger = self._queue.due(self._loop.time())
            if trigger is not None:
                self._begin(trigger)
            elif self._queue.count and self.timer is None and self._queue.due_at() < inf:
                self.timer = self._loop.call_at(self._queue.due_at(), self._begin, "time")

    def mind_expiry(self) -> None:
        """See to it that what expires is dropped and told soon after, though no batch leaves."""
        when = max(self._queue.expires_first, self._looked_at + _EXPIRY_PAUSE)
        if when < inf and not self.stopped and (self._expiry is None or when < self._expiry_at):
            if self._expiry is not None:
                self._expiry.cancel()
            self._expiry, self._expiry_at = self._loop.call_at(when, self._expire), when

    def _expire(self) -> None:
        self._expiry, self._looked_at = None, self._loop.time()
        self.drop_expired()
        self.mind_expiry()

    def drop_expired(self) -> None:
        """Drop what has expired, and let others have its room."""
        count = self._queue.count
        self._queue.drop_expired(self._loop.time())
        if self._queue.count < count:
            self.tell_dropped()
            self._forget_timer()
            self.look()
            self._let_through()

    @property
    def is_calling(self) -> bool:
        """Whether this is called by ``deliver``, which cannot wait for what waits for it."""
        return self.busy is not None and asyncio.current_task() is self.busy

    def _forget_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _begin(self, trigger: str) -> None:
        self._forget_timer()
        self.busy = self._loop.create_task(self._run(trigger))
        self.busy.add_done_callback(self._ended)

    async def _run(self, trigger: str | None) -> None:
        """Send what is due, beginning with a batch that is due because of ``trigger``."""
        queue, now = self._queue, self._loop.time
        while trigger is not None and not self.stopped:
            trigger = queue.due(now()) or trigger
            self.batch = batch = queue.take(now())
            self._let_through()
            self.tell_dropped()
            if batch:
                await self._send(batch, trigger)
            self._answer()
            trigger = queue.due(now())
            if trigger is not None:
                await asyncio.sleep(0)
        self.busy = None
        self.look()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.busy is task:  # before its time, such as by the end of `asyncio.run`
            self.busy = None
            self.abandon()

    async def _send(self, batch: list[Entry], trigger: str) -> None:
        counts = self._counts
        counts.batch(trigger, len(batch))
        counts.wait.record(self._loop.time() - batch[0].added_at)
        messages = wrapped(batch)
        delays = backoff(
            self._random,
            initial=self._retry_delay,
            minimum=self._retry_delay,
            maximum=max(self._retry_delay, _LONGEST_RETRY_DELAY),
        )
        attempts = 1
        while (error := await self._attempt(messages)) is not None and attempts < self._max_attempts:
            if self.stopped:
                break
            logger.warning("deliver failed on %d messages, and is called again: %r", len(messages), error)
            await asyncio.sleep(next(delays))
            attempts += 1
        if self.batch is not batch:
            return  # given up meanwhile
        self.batch = []
        if error is None:
            counts.delivered += len(batch)
            settle_all(batch, DELIVERED)
        else:
            logger.error("deliver failed %d times; %d messages are lost", attempts, len(messages), exc_info=error)
            self._drop(batch, messages, Outcome("failed", attempts, error))
        for flush in self._flushes:
            meant = [message for message, entry in zip(messages, batch, strict=True) if entry.seq <= flush.until]
            flush.tell(meant, error)

    async def _attempt(self, messages: list[Message]) -> Exception | None:
        """Call ``deliver`` with a list of its own; return what it raised."""
        began = self._loop.time()
        error: Exception | None = None
        try:
            waiting = self._deliver(list(messages))
            if waiting is not None and isawaitable(waiting):
                await waiting
        except asyncio.CancelledError as exc:
            if self.busy is None or self.busy.cancelling():
                raise
            error = RuntimeError("something that deliver waited for was cancelled")
            error.__cause__ = exc
        except Exception as exc:  # noqa: BLE001 - the top of a task: it is counted, logged and told
            error = exc
        self._counts.deliver.record(self._loop.time() - began)
        if error is not None:
            self._counts.failures += 1
        return error

    # Waiting for the end

    async def flush(self) -> list[Message]:
        """Wait until all that was added is delivered, and return it; raise as `MessageBatcher.flush_messages`."""
        queue = self._queue
        flush = Flush(queue.added, self._loop.create_future())
        queue.flush_until = queue.added
        self._flushes.append(flush)
        self.look()
        self._answer()
        try:
            await flush.future
        finally:
            if flush in self._flushes:
                self._flushes.remove(flush)
        if flush.error is not None:
            raise flush.error
        return flush.delivered

    def _answer(self) -> None:
        """Tell those who wait for a flush that is over."""
        if self.batch:
            return
        for flush in [flush for flush in self._flushes if not self._queue.holds(flush.until)]:
            self._flushes.remove(flush)
            if not flush.future.done():
                flush.future.set_result(None)

    async def stop(self) -> None:
        """Cancel ``deliver``, and drop all that is left."""
        self.stopped = True
        try:
            if self.busy is not None:
                self.busy.cancel()
                await asyncio.wait([self.busy], timeout=_PATIENCE)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Drop all that is left; ``deliver`` runs no more, or nobody waits for it."""
        self.stopped = True
        self._on_end()
        self._forget_timer()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        batch, self.batch = self.batch, []
        if batch:
            self._drop(batch, wrapped(batch), CLOSED)
        self._queue.clear(CLOSED)
        self.tell_dropped()
        for flush in self._flushes:
            flush.error = flush.error or BatcherClosed()
        self._answer()

    # Dropping

    def tell_dropped(self) -> None:
        """Tell what the queue has dropped."""
        if not self._queue.dropped:
            return
        dropped, self._queue.dropped = self._queue.dropped, {}
        for outcome, entries in dropped.items():
            self._drop(entries, wrapped(entries), outcome)

    def _drop(self, entries: list[Entry], messages: list[Message], outcome: Outcome) -> None:
        self._counts.drop(outcome.reason, len(entries))
        settle_all(entries, outcome)
        if self._on_drop is not None:
            try:
                self._on_drop(messages, outcome.reason)
            except Exception:
                logger.exception("on_drop failed")
