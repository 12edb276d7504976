"""The receiving half of an endpoint: messages out of the inbox, whole, in parts, or many at a time."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Any

from websockets.exceptions import TooManyFragments

from penstock.transport.base import CloseCode, ConcurrencyError, ConnectionClosedOK, Data
from penstock.transport.inbox import BadText, Inbox, Item, Part
from penstock.transport.text import TextDecoder

MAX_FRAGMENTS = 4096
_WHOLE = (str, bytes)


class Receiver(ABC):
    """What a `penstock.transport.base.Transport` has to receive with."""

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox

    @abstractmethod
    def fail(self, code: int, reason: str, cause: BaseException | None = None) -> None:
        """Close because of what arrived."""

    @abstractmethod
    async def raise_closed(self) -> Any:
        """Wait until the connection is closed, and raise why."""

    @property
    def reader(self) -> Inbox:
        return self.inbox

    def discard_unread(self) -> int:
        return 0 if self.inbox.busy else self.inbox.discard_whole()

    def on_full(self, make_room: Callable[[], bool]) -> None:
        self.inbox.on_full = make_room

    def divert(self, sink: Callable[[Item], None]) -> None:
        self.inbox.divert(sink)

    def put_back(self, message: Data) -> None:
        self.inbox.items.appendleft(message)

    def deaf_since(self, when: float) -> bool:
        return self.inbox.deaf_since(when)

    async def recv(self, decode: bool | None = None) -> Data:
        inbox = self.inbox
        if inbox.busy:
            raise ConcurrencyError("cannot call recv while another coroutine is already running recv or recv_streaming")
        while not inbox.items:
            try:
                arrival = inbox.expect()
            except EOFError:
                await self.raise_closed()
            try:
                await arrival
            finally:
                inbox.expected()
        item = inbox.items.popleft()
        if inbox.paused:
            inbox.relax()
        if decode is None and (item.__class__ is str or item.__class__ is bytes):
            return item
        return await self._convert(item, decode)

    async def messages(self) -> AsyncIterator[Data]:
        """Messages until the connection is closed in order; ConnectionClosedError if otherwise."""
        inbox, items = self.inbox, self.inbox.items
        try:
            while True:
                # Nearly every message is here already, and whole: `recv` would only make a coroutine for it.
                while items and not (inbox.paused or inbox.busy) and items[0].__class__ in _WHOLE:
                    yield items.popleft()  # type: ignore[misc]
                yield await self.recv()
        except ConnectionClosedOK:
            return

    async def recv_many(self, max: int | None = None) -> list[Data]:  # noqa: A002
        if max is not None and max < 1:
            raise ValueError(f"max={max!r}: must be at least 1, or None for all that is here")
        messages = [await self.recv()]
        items = self.inbox.items
        while items and len(messages) != max:
            if isinstance(items[0], tuple):  # in parts, or not UTF-8: the next call's business
                break
            messages.append(items.popleft())  # type: ignore[arg-type]
        self.inbox.relax()
        return messages

    async def _convert(self, item: Item, decode: bool | None) -> Data:
        match item:
            case str():
                return item.encode() if decode is False else item
            case Part():
                text, data = item.text, await self._gather(item)
            case BadText(data):
                text = True
            case _:
                text, data = False, item
        if not (text if decode is None else decode):
            return data
        try:
            return data.decode()
        except UnicodeDecodeError as exc:
            await self._fail_on(exc)
            raise AssertionError from exc

    async def _gather(self, part: Part) -> bytes:
        parts, inbox = [part], self.inbox
        while not parts[-1].fin:
            try:
                await inbox.wait()
            except asyncio.CancelledError:
                inbox.items.extendleft(reversed(parts))
                raise
            except EOFError:
                await self.raise_closed()
            if len(parts) >= MAX_FRAGMENTS:
                self.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments", TooManyFragments(MAX_FRAGMENTS))
                await self.raise_closed()
            follower = inbox.items.popleft()
            assert isinstance(follower, Part)
            parts.append(follower)
            inbox.relax()
        return b"".join(part.data for part in parts)

    async def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        inbox = self.inbox
        if inbox.busy:
            raise ConcurrencyError(
                "cannot call recv_streaming while another coroutine is already running recv or recv_streaming"
            )
        decoder: TextDecoder | None = None
        while True:
            try:
                await inbox.wait()
            except EOFError:
                await self.raise_closed()
            part = _as_part(inbox.items.popleft())
            inbox.relax()
            if decoder is None:
                decoder = TextDecoder(text=part.text if decode is None else decode)
            # Busy until the message is used up: whoever stops half-way has made the connection unusable.
            inbox.busy = not part.fin
            try:
                piece = decoder.decode(part.data, part.fin)
            except UnicodeDecodeError as exc:
                await self._fail_on(exc)
            yield piece
            if part.fin:
                return

    async def _fail_on(self, exc: UnicodeDecodeError) -> Any:
        self.fail(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}", exc)
        await self.raise_closed()


def _as_part(item: Item) -> Part:
    match item:
        case str():
            return Part(text=True, data=item.encode(), fin=True)
        case bytes():
            return Part(text=False, data=item, fin=True)
        case BadText(data):
            return Part(text=True, data=data, fin=True)
        case _:
            return item
