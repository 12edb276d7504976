"""The way of messages to one URL: in order, gathered or one by one, within bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.batch.batcher import MessageBatcher
from penstock.batch.stats import BatchTotals
from penstock.connection.outbox import Outbox
from penstock.errors import MiddlewareClosed, PerformanceError
from penstock.manager.budget import Budget
from penstock.manager.manager import PerformanceManager
from penstock.manager.switch import Stage
from penstock.message import NORMAL, Message, Priority
from penstock.middleware.carrier import Carrier
from penstock.transport.base import ConnectionClosed, Data

logger = logging.getLogger("penstock.middleware")

SAMPLED = 32
"""Messages in a row that are timed, to compare the plain way with the other."""

ATTEMPTS = 3
"""Connections on which a message is tried that the peer closes before it is accepted."""

MakeBatcher = Callable[
    [Callable[[list[Message]], Awaitable[None]], Callable[[list[Message], str], None]], MessageBatcher
]


def is_fault(exc: Exception) -> bool:
    """Whether an exception says that a stage is broken, rather than what is wrong with a message or a peer."""
    return not isinstance(exc, PerformanceError | ConnectionClosed | OSError)


class Sample:
    """Messages in a row that are timed."""

    __slots__ = ("left", "plain", "seconds")

    def __init__(self, *, plain: bool) -> None:
        self.plain, self.left, self.seconds = plain, SAMPLED, 0.0


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
        self.carrier = make_carrier(self._disconnected)
        self.dropped: dict[str, int] = {}
        """Messages that were accepted and not sent, by reason."""
        self._make_batcher, self._manager, self._budget = make_batcher, manager, budget
        self._switch = manager.switch(Stage.BATCH, url)
        self._always_batched, self._patience = always_batched, patience
        self._batcher: MessageBatcher | None = None
        self._past = BatchTotals()
        self._withdrawn: list[Message] | None = None
        """Where messages go that a batcher gives back."""
        self._accepted = 0
        """Of the batch that is being delivered."""
        self._sample: Sample | None = None
        self._turn = asyncio.Lock()
        self._here = 0
        """Senders that nobody may overtake."""
        self._charged = (0, 0)
        self._writes = 0
        self._closed = False

    # Sending

    async def send(self, message: Data, priority: Priority, key: str | None, ttl: float | None) -> None:
        """Accept a message, after those that were offered before it; see `PerformanceMiddleware.send`."""
        self._here += 1
        self.direct = None
        try:
            await self._budget.room()
            async with self._turn:
                if self._closed:
                    raise MiddlewareClosed
                await self._send_in_turn(message, priority, key, ttl)
        finally:
            self._here -= 1
            self.charge()
            self._settle()

    async def _send_in_turn(self, message: Data, priority: Priority, key: str | None, ttl: float | None) -> None:
        sample = self._sampled()
        began = time.perf_counter()
        if not self._switch.is_on or (sample is not None and sample.plain):
            await self._empty()
            await self._send_on(message, flush=True)
        elif self._always_batched or self._batcher or priority is not NORMAL or key is not None or ttl is not None:
            await self._add(message, priority, key, ttl)
        else:
            await self._send_gathered(message)
        if sample is not None:
            await self._measured(sample, began)

    async def _send_gathered(self, message: Data) -> None:
        try:
            await self._send_on(message, flush=False)
        except Exception as exc:
            if not is_fault(exc):
                raise
            self.broke(exc)
            await self._send_on(message, flush=True)
        else:
            self._worked()

    def broke(self, exc: Exception) -> None:
        """The connection did not do what it should, for no reason that has to do with its peer: another is taken."""
        self._failed(exc)
        self.carrier.gone(None)

    async def _send_on(self, message: Data, *, flush: bool) -> None:
        """Have a connection accept a message; ``flush`` writes it by itself."""
        attempts = 0
        while True:
            connection = await self.carrier.ready()
            self.outbox = connection.outbox
            try:
                await connection.send(message)
            except ConnectionClosed as exc:
                if self.carrier.connection is connection:
                    self.carrier.gone(exc)
                attempts += 1
                if attempts == ATTEMPTS:
                    raise
            else:
                break
        if flush:
            try:
                await connection.flush()
            except ConnectionClosed as exc:  # it was accepted, and shares the fate of those before it
                if self.carrier.connection is connection:
                    self.carrier.gone(exc)

    # Through the batcher

    async def _add(self, message: Data, priority: Priority, key: str | None, ttl: float | None) -> None:
        try:
            batcher = self._batcher
            if batcher is None:
                batcher = self._batcher = self._make_batcher(self._deliver, self._dropped)
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
            await self._send_on(messages[self._accepted].data, flush=False)
            self._accepted += 1
        self._accepted = 0

    def _dropped(self, messages: list[Message], reason: str) -> None:
        if self._withdrawn is not None:
            self._withdrawn += messages[self._accepted :]
            self._accepted = 0
        else:
            self.dropped[reason] = self.dropped.get(reason, 0) + len(messages)
            logger.warning("%d messages to %s were dropped: %s", len(messages), self.carrier.shown, reason)

    async def _empty(self) -> None:
        """Let what has gathered leave, before what comes after it takes another way."""
        batcher, self._batcher = self._batcher, None
        if batcher is None:
            return
        try:
            await self._patiently(batcher.flush_messages)
        except PerformanceError:
            pass  # it was dropped, and counted
        except Exception as exc:  # noqa: BLE001 - the stage's own failure: counted, logged, and the plain way taken
            self._failed(exc)
        withdrawn: list[Message] = []
        self._withdrawn = withdrawn
        try:
            await batcher.close(0)
        finally:
            self._withdrawn = None
            self._past.add(batcher.stats())
        for message in withdrawn:
            await self._send_on(message.data, flush=True)

    # The stage's health

    def _failed(self, exc: Exception) -> None:
        self._manager.failed(self._switch, exc)

    def _worked(self) -> None:
        if self._switch.is_shaky:
            self._manager.worked(self._switch)

    def _sampled(self) -> Sample | None:
        if self._sample is None and self.sampler.left == 0 and self._switch.is_on:
            plain = self.sampler.turn(time.monotonic())
            if plain is not None:
                self._sample = Sample(plain=plain)
        return self._sample

    async def _measured(self, sample: Sample, began: float) -> None:
        sample.left -= 1
        if not sample.left:
            self._sample = None
            if not sample.plain:
                await self.flush()
        sample.seconds += time.perf_counter() - began
        if not sample.left:
            self._manager.speedups[Stage.BATCH].record(sample.seconds / SAMPLED, plain=sample.plain)

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
        if self._batcher is not None:
            stats = self._batcher.stats()
            messages += stats.pending + stats.delivering
            size += stats.pending_bytes
        before = self._charged
        self._charged = messages, size
        self._budget.charge(messages - before[0], size - before[1])

    @property
    def pending(self) -> tuple[int, int]:
        """Messages and bytes that wait, at the last look."""
        return self._charged

    def _settle(self) -> None:
        """Let messages go straight to the connection again, if nothing stands against it."""
        connection = self.carrier.connection
        if (
            connection is None
            or self._here
            or self._batcher is not None
            or self._sample is not None
            or self._always_batched
            or self._closed
            or self._switch.is_shaky
            or not self._switch.is_on
        ):
            self.direct = None
        else:
            self.direct = connection.send

    def reconsider(self) -> None:
        """The stage may be in another mode."""
        self._settle()

    def _disconnected(self) -> None:
        self.direct = None

    # Ending

    @property
    def is_idle(self) -> bool:
        """Whether nothing was written since this was asked last, nor waits."""
        if self._here or self.carrier.connection is None or self.pending != (0, 0):
            return False
        writes, self._writes = self._writes, self.outbox.writes
        return writes == self._writes and not self.outbox.pending

    @property
    def is_unused(self) -> bool:
        """Whether there is nothing that would be missed."""
        return not (self._here or self.carrier.connection is not None or self._batcher is not None)

    async def rest(self) -> None:
        """Return the connection; the next message borrows one again."""
        async with self._turn:
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
        """Wait until what was accepted is written, and taken where that is told; then return the connection."""
        self.direct = None
        async with self._turn:
            await self._empty()
            try:
                await self.carrier.settle()
            finally:
                await self.carrier.rest()

    async def close(self) -> None:
        """Accept no more, and do as `drain`."""
        self._closed = True
        await self.drain()
