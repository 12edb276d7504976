"""One connection that carries calls: a task that reads, a task that writes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from itertools import islice, takewhile
from typing import Any, Generic, Protocol, TypeVar

from penstock.errors import PerformanceError
from penstock.protocols.calls import Frame
from penstock.transport.base import ConnectionClosed, Data

logger = logging.getLogger("penstock.rpc")

MOST = 256
"""Messages that are looked at before others have their turn."""


class Wire(Protocol):
    """What a link needs of a connection; a pooled one has it too."""

    def offer(self, texts: Sequence[str]) -> int:
        """Take as many as there is room for now, in order; how many. The next is for `send`, which waits or raises."""

    def send(self, message: str) -> Awaitable[None]: ...
    def recv_many(self, max: int | None = None) -> Awaitable[Sequence[Data]]: ...  # noqa: A002
    def fail(self, code: int, reason: str) -> None: ...


class Speaker(Protocol):
    """A protocol's state on one connection, as far as links have to do with it."""

    @property
    def is_ready(self) -> bool:
        """Calls may be sent."""

    @property
    def has_due(self) -> bool:
        """Something is to be sent."""

    def unwritten(self, frame: Frame) -> None:
        """It was not sent, and the connection is lost."""

    def withdraw(self, frame: Frame) -> None:
        """It was not sent, and the connection goes on."""


S = TypeVar("S", bound=Speaker)


class Owner(Protocol[S]):
    """Whose link it is, and who speaks its protocol."""

    def due(self, link: Link[S]) -> Sequence[Frame]:
        """What is to be sent now."""

    def take(self, link: Link[S], message: Data) -> None:
        """What the server says."""

    def unsent(self, link: Link[S], call: Any, exc: Exception) -> None:
        """A call could not be sent, and is over."""

    def lost(self, link: Link[S], exc: ConnectionClosed | None) -> None:
        """It ends, with whatever is pending; ``exc`` is None if it was stopped."""


class _Note:
    """A text that no call is in; whoever waits is told when it was accepted."""

    def __init__(self, text: str, done: asyncio.Future[None]) -> None:
        self.text, self.done = text, done


class Link(Generic[S]):
    """An open connection.

    Args:
        rpc: what is known of the connection from before.
        owner: told of everything, synchronously and in order.
        opened_at: on the event loop's clock; None for now.
    """

    def __init__(self, wire: Wire, rpc: S, owner: Owner[S], opened_at: float | None = None) -> None:
        self.wire, self.rpc = wire, rpc
        self._owner = owner
        self.loop = loop = asyncio.get_running_loop()
        self.opened_at = loop.time() if opened_at is None else opened_at
        self.users = 0
        """Who waits for an answer here."""
        self.uses = 0
        """How many ever did."""
        self.is_lost = False
        self.was_fit = False
        """It was found fit for calls since the last were sent: looking takes longer than all else that a call needs."""
        self._ready: asyncio.Future[None] = loop.create_future()
        self._outgoing: deque[Frame | _Note] = deque()
        """To be sent, in this order; the first is being sent."""
        self._due = asyncio.Event()
        self._writer = loop.create_task(self._write())
        self._reader = loop.create_task(self._read())

    @property
    def now(self) -> float:
        """Seconds, on the event loop's clock."""
        return self.loop.time()

    async def wait_ready(self) -> None:
        """Return when calls may be sent. Raises what `refuse` was told."""
        if not self.rpc.is_ready or self.is_lost:
            await self._ready

    def refuse(self, error: Exception) -> None:
        """Calls will never be sent; unless they may be already."""
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # perhaps nobody waits

    # Out

    def wake(self) -> None:
        """Something is due; it goes out with all else of this iteration of the event loop."""
        self._due.set()

    def put(self, text: str) -> asyncio.Future[None]:
        """Send a text behind all calls; done when it is accepted for sending, cancelled if it never will be."""
        self._outgoing.extend(self._owner.due(self))
        done: asyncio.Future[None] = self.loop.create_future()
        self._outgoing.append(_Note(text, done))
        self._due.set()
        return done

    async def _write(self) -> None:
        outgoing = self._outgoing
        has_waited = may_offer = False
        while True:
            if not outgoing:
                self.was_fit = False
                outgoing.extend(self._owner.due(self))
                has_waited, may_offer = False, True
            if not outgoing:
                self._due.clear()
                await self._due.wait()
                has_waited = True  # what `put` has gathered
                continue
            if has_waited and _is_unwanted(outgoing[0]):
                self.rpc.withdraw(outgoing.popleft())  # type: ignore[arg-type]
            elif may_offer and len(outgoing) > 1:
                may_offer = self._offer(all_are_wanted=not has_waited)
            elif await self._send(outgoing[0]):
                has_waited = True
            else:
                return

    def _offer(self, *, all_are_wanted: bool) -> bool:
        """Hand over all that there is room for; whether there was any."""
        outgoing = self._outgoing
        items: Iterable[Frame | _Note] = islice(outgoing, MOST)
        if not all_are_wanted:
            items = takewhile(_is_wanted, items)
        taken = self.wire.offer([item.text for item in items])
        for _ in range(taken):  # at once: what is still there when the connection is lost was not written
            _tell_accepted(outgoing.popleft())
        return taken > 0

    async def _send(self, item: Frame | _Note) -> bool:
        """Wait until the first is accepted; whether more can be."""
        try:
            await self.wire.send(item.text)
        except ConnectionClosed:
            return False  # the reader hears of it when it has read the rest
        except (PerformanceError, TimeoutError) as exc:  # nothing of it was sent
            self._outgoing.popleft()
            self._fail(item, exc)
        else:
            self._outgoing.popleft()  # at once, likewise
            _tell_accepted(item)
        return True

    def _fail(self, item: Frame | _Note, exc: Exception) -> None:
        if isinstance(item, Frame):
            self.rpc.withdraw(item)
            for call in item.calls:
                self._owner.unsent(self, call, exc)
        elif not item.done.done():
            item.done.set_exception(exc)
            item.done.exception()  # perhaps nobody waits any more

    # In

    async def _read(self) -> None:
        try:
            while True:
                messages = await self.wire.recv_many(MOST)
                for message in messages:
                    self._owner.take(self, message)
                if self.rpc.has_due:
                    self._due.set()
                if self.rpc.is_ready and not self._ready.done():
                    self._ready.set_result(None)
                if len(messages) == MOST:
                    await asyncio.sleep(0)  # those who are told have to have their turn
        except ConnectionClosed as exc:
            self._lose(exc)
        except Exception:
            logger.exception("a message could not be handled")
            self.wire.fail(1011, "")
            self._lose(None)

    # The end

    async def stop(self) -> None:
        """Read and write no more; what is pending is lost. The connection stays as it is."""
        self._reader.cancel()
        self._writer.cancel()
        await asyncio.wait([self._reader, self._writer])
        self._lose(None)

    def _lose(self, exc: ConnectionClosed | None) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        self._writer.cancel()
        for item in self._outgoing:
            if isinstance(item, Frame):
                self.rpc.unwritten(item)
            else:
                item.done.cancel()
        self._outgoing.clear()
        self._owner.lost(self, exc)


def _tell_accepted(item: Frame | _Note) -> None:
    if isinstance(item, _Note) and not item.done.done():
        item.done.set_result(None)


def _is_unwanted(item: Frame | _Note) -> bool:
    calls = item.calls if isinstance(item, Frame) else ()
    return bool(calls) and calls[0].is_forgotten and all(call.is_forgotten for call in calls)


def _is_wanted(item: Frame | _Note) -> bool:
    return not _is_unwanted(item)
