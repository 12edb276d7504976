"""One connection that speaks JSON-RPC: a task that reads, a task that writes."""

from __future__ import annotations

import asyncio
import logging
import random as chance
from collections import deque
from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from penstock.errors import PerformanceError
from penstock.protocols.calls import Call, Event, Frame, Lost
from penstock.protocols.jsonrpc import JsonRpc
from penstock.transport.base import ConnectionClosed, Data

logger = logging.getLogger("penstock.rpc")

MOST = 256
"""Messages that are looked at before others have their turn."""


class Wire(Protocol):
    """What a link needs of a connection; a pooled one has it too."""

    def send(self, message: str) -> Awaitable[None]: ...
    def recv_many(self, max: int | None = None) -> Awaitable[Sequence[Data]]: ...  # noqa: A002
    def fail(self, code: int, reason: str) -> None: ...


class Owner(Protocol):
    """Who gets to know what happens on a link."""

    def received(self, link: Link, event: Event) -> None: ...
    def lost(self, link: Link, calls: Sequence[Lost], exc: ConnectionClosed | None) -> None:
        """It ends, with so many calls pending; ``exc`` is None if it was stopped."""


class _Note:
    """A text that no call is in; whoever waits is told when it was accepted."""

    def __init__(self, text: str, done: asyncio.Future[None]) -> None:
        self.text, self.done = text, done


class Link:
    """An open connection.

    Args:
        rpc: what is known of the connection from before.
        owner: told of everything, synchronously and in order.
    """

    def __init__(self, wire: Wire, rpc: JsonRpc, owner: Owner) -> None:
        self.wire, self.rpc = wire, rpc
        self._owner = owner
        self.users = 0
        """Who waits for an answer here."""
        self.uses = 0
        """How many ever did."""
        self.is_lost = False
        self._loop = loop = asyncio.get_running_loop()
        self._outgoing: deque[Frame | _Note] = deque()
        """To be sent, in this order; the first is being sent."""
        self._due = asyncio.Event()
        self._writer = loop.create_task(self._write())
        self._reader = loop.create_task(self._read())

    # Out

    def add(self, method: str, params: Any, owner: object, *, idempotent: bool = False, alone: bool = False) -> Call:
        """A call, which goes out with all others of this iteration of the event loop."""
        now = self._loop.time()
        call = self.rpc.add(method, params, now=now, idempotent=idempotent, alone=alone, owner=owner)
        self._due.set()
        return call

    def add_again(self, call: Call, owner: object) -> Call:
        """A call that may be sent again."""
        again = self.rpc.add_again(call, now=self._loop.time())
        again.owner = owner
        self._due.set()
        return again

    def forget(self, call: Call) -> None:
        """Nobody wants the answer any more."""
        self.rpc.forget(call, now=self._loop.time())

    def notify(self, method: str, params: Any) -> asyncio.Future[None]:
        """Send a notification behind all calls; done when it is accepted for sending, cancelled if it never will be."""
        return self.put(self.rpc.notify(method, params))

    def put(self, text: str) -> asyncio.Future[None]:
        """Send a text behind all calls; the result is as for `notify`."""
        self._outgoing.extend(self.rpc.due(chance.random))
        done: asyncio.Future[None] = self._loop.create_future()
        self._outgoing.append(_Note(text, done))
        self._due.set()
        return done

    async def _write(self) -> None:
        outgoing = self._outgoing
        while True:
            if not outgoing:
                outgoing.extend(self.rpc.due(chance.random))
            if not outgoing:
                self._due.clear()
                await self._due.wait()
                continue
            item = outgoing[0]
            try:
                await self.wire.send(item.text)
            except ConnectionClosed:
                return  # the reader hears of it when it has read the rest
            except (PerformanceError, TimeoutError) as exc:  # nothing of it was sent
                outgoing.popleft()
                self._fail(item, exc)
                continue
            outgoing.popleft()  # at once: what is still there when the connection is lost was not written
            if isinstance(item, _Note) and not item.done.done():
                item.done.set_result(None)

    def _fail(self, item: Frame | _Note, exc: Exception) -> None:
        waiting = [item.done] if isinstance(item, _Note) else [call.owner for call in item.calls]
        if isinstance(item, Frame):
            for call in item.calls:
                self.forget(call)
        for owner in waiting:
            if isinstance(owner, asyncio.Future) and not owner.done():
                owner.set_exception(exc)

    # In

    async def _read(self) -> None:
        try:
            while True:
                messages = await self.wire.recv_many(MOST)
                now = self._loop.time()
                for message in messages:
                    for event in self.rpc.receive(message, now=now):
                        self._owner.received(self, event)
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
        self._owner.lost(self, self.rpc.lost(), exc)
