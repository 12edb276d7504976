"""Gathers messages, and hands them on in batches."""

from __future__ import annotations

import asyncio
import random as chance
from asyncio import get_running_loop
from collections.abc import Callable
from functools import partial
from typing import Literal

from penstock.batch.entry import Entry
from penstock.batch.line import Line
from penstock.batch.policy import BatchConfig, check_seconds
from penstock.batch.processor import BatchProcessor
from penstock.batch.queue import BatchQueue
from penstock.batch.receipt import Receipt
from penstock.batch.recent import RecentContents
from penstock.batch.sender import Deliver, OnDrop, Sender
from penstock.batch.stats import BatchCounts, BatchStats
from penstock.errors import BatcherClosed, BatcherFull, BatcherReentered, WrongLoop
from penstock.message import NORMAL, Message, Priority, payload_bytes

_OVERFLOWS = ("block", "raise", "drop_oldest", "drop_newest")
_NOTHING = BatchProcessor(compression_enabled=False)
_LONGEST_TURN = 256
"""Messages that are added before others on the event loop have their turn, if no batch leaves earlier."""


class MessageBatcher:
    """Gathers messages until a batch is full, or has waited long enough, and hands it to ``deliver``.

    ::

        async with MessageBatcher(deliver) as batcher:
            await batcher.add_message("hello")

    Messages leave in the order in which they were added, unless ``processor`` orders by priority. ``deliver`` has one
    batch at a time, and the next when it has returned. If it raises, the batch stays first and is tried again.

    A batcher belongs to the event loop in which it is first used. It has a task while a batch is due, none otherwise.

    Args:
        deliver: gets a list of messages; may be a coroutine function. It decides what to make of them, such as one with
            `BatchProcessor.compress_batch`.
        batch_size: messages that make a batch full. A full batch leaves at once.
        batch_timeout: seconds that the oldest message waits for company; 0 until the end of the loop iteration. An
            urgent one does not wait.
        processor: its settings say whether messages are ordered by priority, and repeats dropped; None for neither.
        batch_bytes: bytes of payload that make a batch full.
        max_pending_messages: messages that may wait while ``deliver`` is busy.
        max_pending_bytes: bytes, likewise. One message larger than this is taken when nothing else waits.
        overflow: what happens to a message for which there is no room. ``"block"``: ``add_message`` waits; ``"raise"``:
            it raises; ``"drop_oldest"`` drops the oldest of the least urgent that wait, ``"drop_newest"`` the message
            itself.
        max_attempts: calls of ``deliver`` until a batch is given up.
        retry_delay: seconds before the second call, at most; later ones wait longer, up to 5 s.
        on_drop: called with messages that were accepted and will not be delivered, and why: ``expired``, ``overflow``,
            ``failed`` or ``closed``.
        random: uniform in [0, 1); spreads the retries.

    Raises:
        TypeError: ``deliver``, or ``on_drop``, cannot be called.
        ValueError: an argument is out of bounds; the message names it, its value and the bound.
    """

    def __init__(
        self,
        deliver: Deliver,
        batch_size: int = 100,
        batch_timeout: float = 0.010,
        processor: BatchProcessor | None = None,
        *,
        batch_bytes: int = 128 * 1024,
        max_pending_messages: int = 10_000,
        max_pending_bytes: int = 16 * 1024 * 1024,
        overflow: Literal["block", "raise", "drop_oldest", "drop_newest"] = "block",
        max_attempts: int = 5,
        retry_delay: float = 0.1,
        on_drop: OnDrop | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        config = BatchConfig(
            batch_size=batch_size,
            batch_bytes=batch_bytes,
            batch_timeout=batch_timeout,
            max_pending_messages=max_pending_messages,
            max_pending_bytes=max_pending_bytes,
        )
        _check_callbacks(deliver, on_drop)
        _check(overflow, max_attempts, retry_delay)
        self._overflow = overflow
        processor = _NOTHING if processor is None else processor
        self._queue = _queue_of(config, processor)
        self._recent = RecentContents(processor.dedup_window) if processor.dedup_window else None
        self._counts = BatchCounts()
        self._make_sender = partial(
            Sender,
            queue=self._queue,
            counts=self._counts,
            deliver=deliver,
            max_attempts=max_attempts,
            retry_delay=retry_delay,
            random=random,
            on_drop=on_drop,
            let_through=self._let_through,
            on_end=self._end,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._now: Callable[[], float]
        self._sender: Sender
        self._line: Line
        self._most_pending, self._largest_pending = config.max_pending_messages, config.max_pending_bytes
        self._turn = self._turn_ends = min(self._queue.most, _LONGEST_TURN)
        """Messages in a turn of the event loop, and the message with which this one ends."""
        self._resting = self._closing = self._shut = False
        """`_shut`: a message has to wait for its turn, whether there is room or not."""

    async def add_message(
        self,
        message: Message | str | bytes,
        priority: Priority | None = None,
        key: str | None = None,
        ttl: float | None = None,
    ) -> Receipt:
        """Add a message, waiting for room if there is none and ``overflow`` is ``"block"``; return its receipt.

        Cancelling is safe: whoever is cancelled has added nothing. The arguments override the fields of a `Message`.

        Args:
            priority: by default normal.
            key: the message takes the place of one with the same key that waits; both share their fate.
            ttl: seconds after which it is dropped if it still waits, so more than ``batch_timeout`` makes sense. It is
                told within a twentieth of a second.

        Raises:
            BatcherClosed: the batcher is closed, or closing.
            BatcherFull: there is no room, and ``overflow`` is ``"raise"``.
            BatcherReentered: called by ``deliver`` when there is no room, which ``deliver`` has to make.
            SerializationError: text that is not Unicode.
            MessageTypeError: neither text nor bytes.
            WrongLoop: called from another event loop or thread.
        """
        if get_running_loop() is not self._loop:
            self._start()
        if (
            priority is None
            and key is None
            and ttl is None
            and type(message) is str
            and message.isascii()
            and not self._shut
        ):
            size, queue = len(message), self._queue  # at once: nearly every message is one of these
            if self._recent is None and queue.count < self._most_pending and queue.size + size <= self._largest_pending:
                receipt = Receipt(message, size, loop=self._loop)
                queue.add_plain(receipt, self._now())
                sender = self._sender
                if queue.added >= self._turn_ends or (
                    sender.busy is None
                    and (sender.timer is None or queue.count >= queue.most or queue.size >= queue.largest)
                ):
                    self._go_on()
                return receipt
        receipt = self._receipt(message, priority, key, ttl)
        await self._find_room(receipt)
        if not receipt.done:
            self._add(receipt)
        self._go_on()
        return receipt

    def _add(self, receipt: Receipt) -> None:
        now = self._now()
        if self._recent is not None and receipt.key is None:
            earlier = self._recent.find(receipt, now)
            if earlier is not None:
                self._queue.skip()
                receipt.follow(earlier)
                return
        self._queue.add(receipt, now)
        if receipt.expires_at is not None:
            self._sender.mind_expiry()

    def _go_on(self) -> None:
        """Send what is due, and let it, and others on the event loop, have their turn before more is added."""
        sender, queue = self._sender, self._queue
        if sender.busy is None:
            sender.look()
            if queue.count >= queue.most or queue.size >= queue.largest:
                self._rest()
        if queue.added >= self._turn_ends:
            self._rest()

    def _receipt(
        self, message: Message | str | bytes, priority: Priority | None, key: str | None, ttl: float | None
    ) -> Receipt:
        expires_at = None if ttl is None else self._now() + ttl
        if not isinstance(message, Message):
            message = Message(
                message, priority=NORMAL if priority is None else priority, key=key, expires_at=expires_at
            )
        elif priority is not None or key is not None or ttl is not None:
            message = Message(
                message.data,
                message.message_type,
                message.priority if priority is None else priority,
                message.key if key is None else key,
                message.expires_at if ttl is None else expires_at,
            )
        size = payload_bytes(message.data)
        return Receipt(message, size, Priority(message.priority), message.key, message.expires_at, loop=self._loop)

    async def _find_room(self, receipt: Receipt) -> None:
        """Wait for the turn of a message and for room, or do what is to be done instead; it may be dropped then."""
        queue = self._queue
        if self._closing:
            raise BatcherClosed
        if not self._fits(receipt):
            self._sender.drop_expired()
        if self._shut or (self._overflow == "block" and not self._fits(receipt)):
            if self._overflow == "block" and self._sender.is_calling:
                if not self._fits(receipt, self._line.promised, self._line.promised_bytes):
                    raise BatcherReentered("add_message")
                return  # it has no time to wait for its turn
            if not await self._wait(receipt) or self._sender.stopped:
                raise BatcherClosed
        if not self._fits(receipt):
            if self._overflow == "raise":
                self._counts.rejected += 1
                await asyncio.sleep(0)  # so that one who tries again and again lets messages leave
                raise BatcherFull(queue.count, queue.size)
            if self._overflow == "drop_newest" or not queue.make_room(receipt):
                queue.refuse(receipt)
            self._sender.tell_dropped()

    def _fits(self, entry: Entry, promised: int = 0, promised_bytes: int = 0) -> bool:
        """Whether there is room for a message, or it repeats one that was added, and needs none."""
        if self._queue.has_room(entry, promised, promised_bytes):
            return True
        return self._recent is not None and entry.key is None and self._recent.peek(entry, self._now()) is not None

    async def _wait(self, receipt: Receipt) -> bool:
        self._shut = True
        try:
            return await self._line.join(receipt, self._let_through)
        finally:
            self._settle()
            if self._line and self._loop is not None:
                self._loop.call_soon(self._let_through)  # the next, once this message is added

    def _may_add(self, entry: Entry) -> bool:
        if self._resting:
            return False
        line = self._line
        return self._overflow != "block" or self._fits(entry, line.promised, line.promised_bytes)

    def _let_through(self) -> None:
        self._line.let_through(self._may_add)
        self._settle()

    def _settle(self) -> None:
        self._shut = self._closing or self._resting or len(self._line) > 0

    def _rest(self) -> None:
        """Let nobody add anything until the event loop has had its turn."""
        if not self._resting and self._loop is not None:
            self._resting = self._shut = True
            self._loop.call_soon(self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._turn_ends = self._queue.added + self._turn
        self._let_through()

    async def flush_messages(self) -> list[Message]:
        """Deliver all that was added so far without waiting for company, and return what was delivered.

        What was dropped, or another message stood for, is not among it. Empty if nothing waits. Cancelling ends the
        waiting, not the delivery.

        Raises:
            Exception: what ``deliver`` raised last, if it was given up on some of the messages.
            BatcherClosed: the batcher was closed, and had no time for some of the messages.
            BatcherReentered: called by ``deliver``, which is what it waits for.
            WrongLoop: called from another event loop or thread.
        """
        if get_running_loop() is not self._loop:
            self._start()
        if self._sender.is_calling:
            raise BatcherReentered("flush_messages")
        return await self._sender.flush()

    async def close(self, timeout: float | None = 10.0) -> None:
        """Take no more messages, and deliver all that were added; those that wait to be added are served first.

        What is left after ``timeout`` seconds (None: never) is dropped, and ``deliver`` cancelled. Cancelling drops it
        at once. Closing again waits likewise.

        Raises:
            BatcherReentered: called by ``deliver``, which is what it waits for.
            WrongLoop: called from another event loop or thread.
        """
        if self._loop is None:
            self._closing = self._shut = True
            return
        if get_running_loop() is not self._loop:
            raise WrongLoop("batcher", "batcher.close()")
        if self._sender.is_calling:
            raise BatcherReentered("close")
        self._closing = self._shut = self._queue.closing = True
        sender, line = self._sender, self._line
        try:
            async with asyncio.timeout(timeout):
                while line or self._queue.count or sender.busy is not None:
                    sender.look()
                    if sender.busy is not None:
                        await asyncio.wait([sender.busy])
                    else:
                        await asyncio.sleep(0)  # those who were let through have to add their messages
        except TimeoutError:
            pass
        finally:
            await sender.stop()

    def _end(self) -> None:
        self._closing = self._shut = True
        self._line.refuse_all()

    def stats(self) -> BatchStats:
        """What the batcher has and has done."""
        delivering, waiting = (len(self._sender.batch), len(self._line)) if self._loop is not None else (0, 0)
        return self._counts.snapshot(self._queue, delivering, waiting)

    def _start(self) -> None:
        """Make the running loop the batcher's own, at its first use."""
        if self._loop is not None:
            raise WrongLoop("batcher", "batcher.add_message(...)")
        self._loop = loop = get_running_loop()
        self._now = loop.time
        self._line = Line(loop)
        self._sender = self._make_sender(loop)

    async def __aenter__(self) -> MessageBatcher:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _queue_of(config: BatchConfig, processor: BatchProcessor) -> BatchQueue:
    return BatchQueue(
        config,
        ordered=processor.ordering_enabled,
        deduplicated=processor.deduplication_enabled,
        ageing=processor.ageing,
    )


def _check_callbacks(deliver: object, on_drop: object) -> None:
    if not callable(deliver):
        raise TypeError(
            f"deliver={deliver!r}: must be a function, or a coroutine function, that gets a list of messages, "
            "such as `async def deliver(messages): ...`"
        )
    if on_drop is not None and not callable(on_drop):
        raise TypeError(f"on_drop={on_drop!r}: must be a function that gets messages and the reason, or None")


def _check(overflow: str, max_attempts: int, retry_delay: float) -> None:
    if overflow not in _OVERFLOWS:
        raise ValueError(f"overflow={overflow!r}: must be one of {', '.join(_OVERFLOWS)}")
    if not isinstance(max_attempts, int) or max_attempts < 1:
        raise ValueError(f"max_attempts={max_attempts!r}: must be a whole number of at least 1")
    check_seconds("retry_delay", retry_delay)
