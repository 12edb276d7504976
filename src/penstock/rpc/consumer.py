"""Who takes the events of a subscription, and how many may wait for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from weakref import ref

from msgspec import Raw, Struct

from penstock.errors import CallTimeout, ConsumerTooSlow
from penstock.protocols import feeds
from penstock.protocols.calls import parse

MAX_EVENTS, MAX_EVENT_BYTES = 1000, 16 * 1024 * 1024
"""Events that wait to be taken."""


class Gap(Struct, frozen=True):
    """In place of events that may be missing.

    ``reason``: ``"reconnected"``, or ``"overflow"`` where too many came before the server had confirmed the
    subscription.
    """

    reason: str


class Subscription:
    """The events of one subscription, and a `Gap` wherever some may be missing; made by `Rpc.subscribe`.

    ::

        async with rpc.subscribe("eth_subscribe", ["newHeads"]) as events:   # confirmed by the server
            async for event in events:
                ...

    ``async for event in rpc.subscribe(...)`` does as well: it ends at the server when the iterator is let go of.
    Whatever waits still comes when the subscription has ended; then the iteration ends, or raises why. Cancelling who
    waits for an event is safe.

    Raises:
        RpcError: the server refused the subscription.
        CallTimeout: it did not answer.
        ConsumerTooSlow: more events waited than may.
        CallLost: the connection was lost, and the subscription was not to go on.
        RpcClosed: the client was closed.
        InvalidReply: an event that Python cannot hold; the next can be taken.
    """

    def __init__(
        self,
        method: str,
        begin: Callable[[Subscription], feeds.Subscription],
        end: Callable[[feeds.Subscription], None],
        max_events: int,
        max_event_bytes: int,
        timeout: float | None = None,
        read: Callable[[Raw], Any] = parse,
    ) -> None:
        for name, value in (("max_events", max_events), ("max_event_bytes", max_event_bytes)):
            if value < 1:
                raise ValueError(f"{name}={value!r}: must be at least 1")
        self.method = method
        self._timeout, self._read = timeout, read
        self._timer: asyncio.TimerHandle | None = None
        self._begin, self._end = begin, end
        self._max_events, self._max_bytes = max_events, max_event_bytes
        self._loop: asyncio.AbstractEventLoop | None = None
        """None until it has begun."""
        self._known: feeds.Subscription
        self._events: deque[Raw | Gap] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self._is_confirmed = self._has_ended = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        state = "ended" if self._has_ended else "confirmed" if self._is_confirmed else "not confirmed"
        return f"<Subscription {self.method} {state}, {len(self._events)} events wait>"

    # By whom it is fed; penstock's own

    def confirm(self) -> None:
        """The server has accepted it."""
        self._is_confirmed = True
        self._wait_no_more()
        self._news.set()

    def put(self, event: Raw | Gap) -> ConsumerTooSlow | None:
        """Keep an event until it is taken; or tell that there are too many."""
        size = 0 if isinstance(event, Gap) else len(memoryview(event))
        if len(self._events) >= self._max_events or (self._events and self._bytes + size > self._max_bytes):
            return ConsumerTooSlow(self.method, len(self._events), self._bytes)
        self._events.append(event if isinstance(event, Gap) else event.copy())
        self._bytes += size
        self._news.set()
        return None

    def finish(self, error: Exception | None) -> None:
        """No more events come."""
        if not self._has_ended:
            self._has_ended, self._error = True, error
            self._wait_no_more()
            self._news.set()

    def _wait_no_more(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # For whom

    async def __anext__(self) -> Any:
        self._start()
        while not self._events:
            self._raise_end(StopAsyncIteration())
            await self._wait()
        event = self._events.popleft()
        if isinstance(event, Gap):
            return event
        self._bytes -= len(memoryview(event))
        return self._read(event)

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        self._start()
        try:
            while not self._is_confirmed:
                self._raise_end(RuntimeError("this subscription was closed; make another"))
                await self._wait()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Want no more: the server is told, and what waits is dropped. Calling it again does nothing."""
        self._events.clear()
        self._bytes = 0
        if not self._has_ended:
            self.finish(None)
            if self._loop is not None:
                self._end(self._known)

    def __del__(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        self._wait_no_more()
        if not self._has_ended:
            loop.call_soon_threadsafe(self._end, self._known)

    def _start(self) -> None:
        if self._loop is None and not self._has_ended:
            self._loop = asyncio.get_running_loop()
            self._known = self._begin(self)
            if self._timeout is not None and not self._is_confirmed and not self._has_ended:
                self._timer = self._loop.call_later(self._timeout, _give_up, ref(self), self._timeout)

    def give_up(self, timeout: float) -> None:
        """The server has not accepted it in time."""
        self.finish(CallTimeout(self.method, timeout))
        self._end(self._known)

    def _raise_end(self, otherwise: Exception) -> None:
        if self._has_ended:
            raise self._error or otherwise

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()


def _give_up(subscription: ref[Subscription], timeout: float) -> None:
    known = subscription()
    if known is not None:
        known.give_up(timeout)
