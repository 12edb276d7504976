"""The way of messages to one URL: in order, gathered or one by one, within bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from penstock.batch.batcher import MessageBatcher
from penstock.batch.stats import BatchTotals
from penstock.connection.outbox import Outbox
from penstock.errors import DeliveryUnknown, MessageTypeError, MiddlewareClosed, PerformanceError, SerializationError
from penstock.manager.budget import Budget, size_of
from penstock.manager.manager import PerformanceManager
from penstock.manager.speedup import SAMPLED, Sample
from penstock.manager.switch import Stage
from penstock.message import NORMAL, Message, Priority
from penstock.middleware.carrier import Carrier
from penstock.transport.base import ConnectionClosed, Data

logger = logging.getLogger("penstock.middleware")

ATTEMPTS = 3
"""Connections on which a message is tried that the peer closes before it is accepted."""

MakeBatcher = Callable[
    [Callable[[list[Message]], Awaitable[None]], Callable[[list[Message], str], None]], MessageBatcher
]


def is_fault(exc: Exception) -> bool:
    """Whether an exception says that a stage is broken, rather than what is wrong with a message or a peer."""
    return not isinstance(exc, PerformanceError | ConnectionClosed | OSError)


class Line:
    """Sends messages to one URL.

    Messages of normal priority go straight to a connection, which gathers them; from the first on that is urgent, has a
    key or may expire, all go through a `MessageBatcher`. Where the batch stage is bypassed each is written by itself,
    once those that had gathered have left.

    Args:
        make_carrier: makes what has the connection, for a function that is called when that is gone.
        make_batcher: makes the batcher, for a function that delivers and one that is told what was dropped.
        always_batched: from the first message on.
        patience: seconds that the batcher may take beyond what the connection makes it wait.
    """

    def __init__(
        self,
        url: str,
        make_carrier: Callable[[Callable[[], None]], Carrier],
        make_batcher: MakeBatcher,
        manager: PerformanceManager,
        budget: Budget,
        *,
        always_batched: bool,
        patience: float,
    ) -> None:
        self.url = url
        self.direct: Callable[[Data], Awaitable[None]] | None = None
        """Sends a message of normal priority at once; None where there is more to it."""
        self.outbox: Outbox
        """Of the connection that `direct` sends on."""
        self.sampler = manager.sampler()
        self.carrier = make_carrier(self.reconsider)
        self.dropped: dict[str, int] = {}
        """Messages that were accepted and not sent, by reason."""
        self._make_batcher, self._manager, self._budget = make_batcher, manager, budget
        self._switch = manager.switch(Stage.BATCH, url)
        self._always_batched, self._patience = always_batched, patience
        self._batcher: MessageBatcher | None = None
        self._past = BatchTotals()
        self._withdraw = False
        """Whether the batcher is to give back what it holds."""
        self._withdrawn: deque[Message] = deque()
        """What a batcher gave back, and has not left yet."""
        self._accepted = 0
        """Of the batch that is being delivered."""
        self._has_broken = False
        """Whether the next success is that of a message for which a connection was replaced."""
        self._sample: Sample | None = None
        self._turn = asyncio.Lock()
        self._here = 0
        """Senders that nobody may overtake."""
        self._charged = (0, 0)
        self._traffic = 0
        self._closed = False

    # Sending

    async def send(self, message: Data, priority: Priority, key: str | None, ttl: float | None) -> None:
        """Accept a message, after those that were offered before it; see `PerformanceMiddleware.send`."""
        size = size_of(message)
        self._here += 1
        self.direct = None
        try:
            await self._budget.room(size)
            try:
                async with self._turn:
                    if self._closed:
                        raise MiddlewareClosed
                    await self._send_in_turn(message, priority, key, ttl)
            finally:
                self.charge()
                self._budget.settle(size)
        finally:
            self._here -= 1
            self.reconsider()

    async def _send_in_turn(self, message: Data, priority: Priority, key: str | None, ttl: float | None) -> None:
        began = time.perf_counter()
        sample = await self._sampled()
        if not self._switch.is_on or self._withdrawn or (sample is not None and sample.plain):
            await self._empty()
            await self._send_on(message, flush=True)
        elif self._always_batched or self._batcher or priority is not NORMAL or key is not None or ttl is not None:
            await self._add(message, priority, key, ttl)
        else:
            await self._send_on(message, flush=False)
            self._worked()
        if sample is not None:
            sample.left -= 1
            sample.seconds += time.perf_counter() - began

    def broke(self, exc: Exception) -> None:
        """The connection did not do what it should, for no reason that has to do with its peer: another is taken."""
        self._failed(exc)
        self._has_broken = True
        self.carrier.gone(None)

    async def _send_on(self, message: Data, *, flush: bool) -> None:
        """Have a connection accept a message; ``flush`` writes those before it first, so each by itself.

        All waiting comes before: a message whose sending was cancelled was not accepted.
        """
        attempts, is_sound = 0, True
        while True:
            connection = await self.carrier.ready()
            self.outbox = connection.outbox
            try:
                if flush:
                    await connection.flush()
                await connection.send(message)
            except ConnectionClosed as exc:
                if self.carrier.connection is connection:
                    self.carrier.gone(exc)
                attempts += 1
                if attempts == ATTEMPTS:
                    raise
            except Exception as exc:
                if not (is_fault(exc) and is_sound):
                    raise
                self.broke(exc)
                flush, is_sound = True, False
            else:
                return

    async def _pass_on(self, sending: Awaitable[object]) -> None:
        """Send a message that was accepted before; one that cannot be sent is dropped, and holds up none after it."""
        try:
            await sending
        except (SerializationError, MessageTypeError) as exc:
            self._lose(1, f"refused ({exc})", "failed")

    # Through the batcher

    async def _add(self, message: Data, priority: Priority, key: str | None, ttl: float | None) -> None:
        try:
            batcher = self._batcher or self._make_batcher(self._deliver, self._dropped)
            self._batcher = batcher
            await self._patiently(lambda: batcher.add_message(message, priority, key, ttl))
        except Exception as exc:
            if not (is_fault(exc) or isinstance(exc, TimeoutError)):
                raise
            self._failed(exc)
            await self._empty()
            await self._send_on(message, flush=True)
        else:
            self._worked()

    async def _patiently(self, ask: Callable[[], Awaitable[Any]]) -> None:
        """Wait for the batcher for as long as the connection is what makes it wait. Raises TimeoutError."""
        while True:
            try:
                async with asyncio.timeout(self._patience) as deadline:
                    await ask()
            except TimeoutError:
                if not (deadline.expired() and self._is_held_up):
                    raise
            else:
                return

    @property
    def _is_held_up(self) -> bool:
        connection = self.carrier.connection
        if connection is None:
            return self.carrier.is_opening
        return connection.outbox.transport.blocked or connection.outbox.busy

    async def _deliver(self, messages: list[Message]) -> None:
        """Have a connection accept a batch; called by the batcher, again for a batch that was not accepted whole."""
        while self._accepted < len(messages):
            await self._pass_on(self._send_on(messages[self._accepted].data, flush=False))
            self._accepted += 1
        self._accepted = 0

    def _dropped(self, messages: list[Message], reason: str) -> None:
        if reason in ("failed", "closed"):  # the batch that was being delivered comes first
            messages, self._accepted = messages[self._accepted :], 0
        if self._withdraw and reason != "expired":
            self._withdrawn += messages
        elif messages:
            self._lose(len(messages), reason, reason)

    def _lose(self, count: int, why: str, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        logger.warning("%d messages to %s were dropped: %s", count, self.carrier.shown, why)

    async def _empty(self) -> None:
        """Let what has gathered leave, before what comes after it takes another way.

        Cancelling leaves the rest in the batcher, for the next who comes.
        """
        batcher = self._batcher
        if batcher is not None:
            try:
                await self._patiently(batcher.flush_messages)
            except PerformanceError:
                pass  # it was dropped, and counted
            except Exception as exc:  # noqa: BLE001 - the stage's own failure: counted, logged, and the plain way taken
                self._failed(exc)
            self._withdraw = True
            try:
                await batcher.close(0)
            finally:
                self._withdraw = False
                self._past.add(batcher.stats())
                self._batcher = None
        while self._withdrawn:
            await self._pass_on(self._send_on(self._withdrawn[0].data, flush=True))
            self._withdrawn.popleft()

    # The stage's health

    def _failed(self, exc: Exception) -> None:
        self._manager.failed(self._switch, exc)

    def _worked(self) -> None:
        if self._switch.is_shaky and not self._has_broken:
            self._manager.worked(self._switch)
        self._has_broken = False

    async def _sampled(self) -> Sample | None:
        """What the next message is measured for, if it is; one sample ends when all its messages are written."""
        sample = self._sample
        if sample is not None and not sample.left:
            began = time.perf_counter()
            await self.flush()
            self._sample = None
            if self._switch.is_on:
                seconds = sample.seconds + time.perf_counter() - began
                self._manager.speedups[Stage.BATCH].record(seconds / SAMPLED, plain=sample.plain)
        if self._sample is None and self.sampler.left == 0 and self._switch.is_on:
            plain = self.sampler.turn(time.monotonic())
            if plain is not None:
                self._sample = Sample(plain=plain)
        return self._sample

    # What was counted, and is pending

    def totals(self) -> BatchTotals:
        """What all its batchers have counted."""
        totals = BatchTotals()
        totals.add(self._past)
        if self._batcher is not None:
            totals.add(self._batcher.stats())
        return totals

    def charge(self) -> None:
        """Tell the budget what is pending now."""
        messages = size = 0
        if self.carrier.connection is not None:
            messages, size = self.outbox.pending, self.outbox.size
            if self._budget.is_bounded:
                written = self.carrier.connection.transport.get_write_buffer_size()
                size += max(written, self.carrier.kept_bytes)  # what is kept until it is acknowledged is written too
        if self._batcher is not None:
            stats = self._batcher.stats()
            messages += stats.pending + stats.delivering
            size += stats.pending_bytes
        self._budget.charge(messages - self._charged[0], size - self._charged[1])
        self._charged = messages, size

    def reconsider(self) -> None:
        """Let messages go straight to the connection, if nothing stands against it."""
        connection = self.carrier.connection
        if (
            connection is None
            or self._here
            or self._batcher is not None
            or self._withdrawn
            or self._sample is not None
            or self._always_batched
            or self._budget.is_bounded
            or self._closed
            or self._switch.is_shaky
            or not self._switch.is_on
        ):
            self.direct = None
        else:
            self.direct = connection.send

    # Ending

    @property
    def is_idle(self) -> bool:
        """Whether nothing was sent or received since this was asked last, nor waits, for an acknowledgement either."""
        carrier = self.carrier
        if self._here or carrier.connection is None or carrier.is_handing_over:
            return False
        if self._charged != (0, 0) or carrier.kept_bytes:
            return False
        traffic = self.outbox.writes + carrier.received
        before, self._traffic = self._traffic, traffic
        return traffic == before and not (self.outbox.pending or self.outbox.transport.blocked)

    @property
    def is_unused(self) -> bool:
        """Whether there is nothing that would be missed."""
        return not (self._here or self.carrier.connection or self._batcher or self._withdrawn)

    async def rest(self) -> None:
        """Return the connection; the next message borrows one again. Cancelling is safe."""
        async with self._alone():
            await self._empty()
            await self.carrier.rest()

    async def flush(self) -> None:
        """Wait until what was accepted is written."""
        if self._batcher is not None:
            await self._batcher.flush_messages()
        connection = self.carrier.connection
        if connection is not None:
            await connection.flush()

    async def drain(self) -> None:
        """Wait until what was accepted is written, and taken where that is told; then return the connection.

        Cancelling ends the waiting, and the connection stays.
        """
        async with self._alone():
            await self._empty()
            try:
                await self.carrier.settle()
            except (ConnectionClosed, DeliveryUnknown) as exc:
                self.carrier.lost(exc)
                raise
            await self.carrier.rest()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Nobody sends meanwhile."""
        self._here += 1
        self.direct = None
        try:
            async with self._turn:
                yield
        finally:
            self._here -= 1
            self.charge()
            self.reconsider()

    async def close(self) -> None:
        """Accept no more, and do as `drain`."""
        self._closed = True
        await self.drain()

    def disown(self) -> None:
        """The connection is another process's."""
        self._closed = True
        self.direct = None

    async def abort(self) -> None:
        """Drop the connection, and what has not left."""
        self._closed = True
        try:
            if self._batcher is not None:
                await self._batcher.close(0)
        finally:
            if self._withdrawn:
                self._lose(len(self._withdrawn), "closed", "closed")
                self._withdrawn.clear()
            await self.carrier.close()
