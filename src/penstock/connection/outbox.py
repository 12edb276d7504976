"""The sending half of a connection: messages gather, and leave many to one write.

A small machine with three gates. LONE: the next message is the first of this loop iteration, and is written at once.
GATHER: a message is only appended; the iteration's end, or a full batch, writes them all. SHUT: something has to be
settled first (others wait, a fragmented message is under way, the connection closes), and senders queue.

Every wait comes before acceptance: a ``send`` that was cancelled was not sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from enum import Enum
from threading import get_ident
from typing import Any, NamedTuple

from penstock.batch.policy import MESSAGE_COST, BatchConfig
from penstock.connection.messages import DataLike, encode
from penstock.errors import SerializationError, WrongLoop
from penstock.transport.base import State, Transport
from penstock.wire.frames import BINARY, FIN, TEXT

CHUNK = 128
"""Messages that `Outbox.accept_many` appends at a time."""

_TEXT, _BINARY = FIN | TEXT, FIN | BINARY


class Gate(Enum):
    """What the next message meets."""

    LONE = 0
    GATHER = 1
    SHUT = 2


LONE = Gate.LONE  # a member costs two lookups, and `Connection.send` asks for it each time


class _Waiter(NamedTuple):
    """A sender in the queue; its future completes with whether it may go ahead."""

    future: asyncio.Future[bool]
    cost: int
    exclusive: bool
    """It wants the connection to itself, for a message in fragments."""


class Outbox:
    """Gathers messages for one transport, whose owner it is.

    Args:
        gather: False writes each message by itself, at once.
    """

    def __init__(self, transport: Transport, config: BatchConfig, *, gather: bool) -> None:
        self.transport = transport
        self.quick = False
        """The gate is GATHER, and a message with `first` needs nothing but to be appended to `run`."""
        self.gate = Gate.LONE
        self.left = config.quota
        """What may still be appended before somebody has to look; each message costs its size and `MESSAGE_COST`."""
        self.run: list[bytes] = []
        """The payloads gathered last."""
        self.first = _TEXT
        """The first byte that their frames want."""
        self.fragmenting = False
        """A message is being sent in fragments."""
        self.ending = False
        """No new senders: the connection closes when those that are here have been served."""
        self.thread = get_ident()
        """Where the connection lives. Asking for the thread costs a sixth of asking for the running loop."""
        self.ended = False
        """The connection closes, or is closed: nothing can be written any more."""
        self._loop = transport.loop
        self._config = config
        self._gather = gather
        self._linger = gather and config.batch_timeout > 0
        self._runs: list[tuple[int, list[bytes]]] = []
        self._allotted = config.quota
        self._ticking = False
        self._advancing = False
        self._waiters: deque[_Waiter] = deque()
        self._granted = 0
        self._writes = 0
        self._watchers: list[asyncio.Future[None]] = []
        transport.owner = self

    # Accepting

    async def accept(self, first: int, payload: bytes) -> None:
        """Take one message, after all that were offered before it; ``first`` is its frame's first byte.

        Raises:
            ConnectionClosed: the connection is closed, or closing.
            WrongLoop: called from another event loop or thread.
        """
        if self.gate is Gate.LONE:
            self.begin(first, payload)
            return
        self.check_loop()
        await self._turn(len(payload) + MESSAGE_COST)
        self._take(first, payload)

    def check_loop(self) -> None:
        """Raise WrongLoop if another event loop or thread calls."""
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoop

    async def accept_many(self, messages: Sequence[DataLike]) -> None:
        """Take messages, one after the other, many at a time; cancelled, it has taken the first so many."""
        position = 0
        self.check_loop()
        if len(messages) > 1 and self.gate is Gate.LONE and self._gather:
            self._open_tick()
            self._settle()
        while position < len(messages):
            chunk = messages[position : position + CHUNK]
            taken = self._take_chunk(chunk) if self.quick else 0
            if not taken:
                await self.accept(*encode(messages[position]))
                taken = 1
            position += taken

    def _take_chunk(self, chunk: Sequence[DataLike]) -> int:
        """Append ``chunk`` if it is of one kind and fits."""
        kinds = set(map(type, chunk))
        if kinds == {str}:
            first = _TEXT
            try:
                payloads: list[bytes] = [encode(message)[1] for message in chunk]
            except SerializationError:
                return 0  # one by one, so that those before it are taken
        elif kinds == {bytes}:
            first, payloads = _BINARY, chunk  # type: ignore[assignment]
        else:
            return 0
        left = self.left - sum(map(len, payloads)) - MESSAGE_COST * len(payloads)
        if left < 0:
            return 0
        self._switch(first)
        self.left = left
        self.run += payloads
        return len(payloads)

    def begin(self, first: int, payload: bytes) -> None:
        """Take the first message of a loop iteration: the gate is LONE.

        Raises:
            WrongLoop: called from another event loop or thread.
        """
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoop
        if self._linger:
            self._open_tick()
            self._settle()
            self._push(first, payload)
            return
        transport = self.transport
        if transport.encode is not None:
            first, payload = transport.encode(first, payload)
        self._write_first(transport.frames.one(first, payload))

    def _write_first(self, frame: bytes) -> None:
        transport = self.transport
        self._writes += 1
        transport.write(frame)
        if self._gather:
            self._ticking = True
            self._loop.call_soon(self._tick)
            self.gate = Gate.GATHER
            self.quick = transport.encode is None
        else:
            self._settle()

    def take_unasked(self, frame: bytes, first: int, payload: bytes) -> None:
        """Take a message now, behind what has gathered, whatever the bounds.

        Args:
            frame: of the message, unmasked and without extensions.
        """
        transport = self.transport
        if self.gate is LONE and not self._linger:
            if transport.encode is None and not transport.frames.masked:
                self._write_first(frame)
            else:
                self.begin(first, payload)
        elif not self._gather:
            self._write_one(first, payload)
        else:
            self._push(first, payload)
            if self.left < 0 and not transport.blocked:
                self.write_out()
            if not self._ticking:
                self._open_tick()
                self._settle()

    def _take(self, first: int, payload: bytes) -> None:
        """Take a message whose turn it is, and which `left` was charged for."""
        if self._gather:
            self.left += len(payload) + MESSAGE_COST
            self._push(first, payload)
            self._open_tick()
        else:
            self._write_one(first, payload)
            self._advance()  # no tick will
        self._settle()

    def _write_one(self, first: int, payload: bytes) -> None:
        if self.transport.encode is not None:
            first, payload = self.transport.encode(first, payload)
        self._writes += 1
        self.transport.write(self.transport.frames.one(first, payload))

    def _push(self, first: int, payload: bytes) -> None:
        if self.transport.encode is not None:
            first, payload = self.transport.encode(first, payload)
        self._switch(first)
        self.left -= len(payload) + MESSAGE_COST
        self.run.append(payload)

    def _switch(self, first: int) -> None:
        """Make `run` one whose frames begin with ``first``."""
        if first != self.first:
            if self.run:
                self._runs.append((self.first, self.run))
                self.run = []
            self.first = first

    # Turns

    async def _turn(self, cost: int, *, exclusive: bool = False) -> None:
        """Wait until a message that costs so much may be taken, and charge for it."""
        if self.ended or self.ending or self.transport.state is not State.OPEN:
            await self.raise_closed()
        if not (self._waiters or self._granted or self.fragmenting) and self._has_room(cost):
            self._grant(cost, exclusive=exclusive)
            return
        waiter = _Waiter(self._loop.create_future(), cost, exclusive)
        self._waiters.append(waiter)
        if not self._advancing:
            self._advancing = True
            self._loop.call_soon(self._go_on)
        self._settle()
        try:
            may_go = await waiter.future
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        if not may_go:
            await self.raise_closed()
        self._granted -= 1
        if self.ended:  # between the grant and now
            if exclusive:
                self.fragmenting = False
            await self.raise_closed()

    def _has_room(self, cost: int) -> bool:
        """Whether something that costs so much can be gathered, once the batch has been written if it was full."""
        if self.transport.blocked:
            return self._gather and self._may_gather_more(cost)
        if cost <= self.left or not self._gather:
            return True
        self.write_out()
        return False  # the loop's turn: a million sends in a row must not starve other tasks

    def _may_gather_more(self, cost: int) -> bool:
        """While the socket takes nothing: raise the allotment, within the bounds."""
        if cost <= self.left:
            return True
        pending = self._allotted - self.left
        messages = self._granted + len(self.run) + sum(len(payloads) for _, payloads in self._runs)
        config = self._config
        if pending and (pending + cost > config.max_pending_bytes or messages >= config.max_pending_messages):
            return False
        room = (config.max_pending_messages - messages) * MESSAGE_COST
        more = max(cost, min(config.quota, config.max_pending_bytes - pending, room)) - self.left
        self.left += more
        self._allotted += more
        return True

    def _grant(self, cost: int, *, exclusive: bool) -> None:
        self.left -= cost
        self.fragmenting = exclusive

    def _withdraw(self, waiter: _Waiter) -> None:
        """A sender was cancelled; if it had been let through, the next one goes."""
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        elif not waiter.future.cancelled() and waiter.future.result():
            self._granted -= 1
            self.left += waiter.cost
            if waiter.exclusive:
                self.fragmenting = False
        self._advance()
        self._settle()

    def _advance(self) -> None:
        """Let through who waits, first come first served, as far as there is room."""
        fresh = True
        while self._waiters and not self.fragmenting and not self.ended:
            waiter = self._waiters[0]
            if waiter.exclusive and self._granted:
                return
            if self.transport.blocked:
                if not (self._gather and self._may_gather_more(waiter.cost)):
                    return
            elif not fresh and (waiter.cost > self.left or not self._gather):
                return
            fresh = False
            self._waiters.popleft()
            if waiter.future.done():
                continue
            self._grant(waiter.cost, exclusive=waiter.exclusive)
            self._granted += 1
            waiter.future.set_result(True)

    def _settle(self) -> None:
        """Set the gate by what is going on, and tell who watches."""
        if self.ended or self.ending or self._waiters or self._granted or self.fragmenting:
            self.gate = Gate.SHUT
        elif self._ticking or self.transport.blocked:
            self.gate = Gate.GATHER
        else:
            self.gate = Gate.LONE
        self.quick = self.gate is Gate.GATHER and self._gather and self.transport.encode is None
        if self._watchers:
            watchers, self._watchers = self._watchers, []
            for watcher in watchers:
                if not watcher.done():
                    watcher.set_result(None)

    # Writing

    def _open_tick(self) -> None:
        if self._ticking:
            return
        self._ticking = True
        if self._config.batch_timeout:
            self._loop.call_later(self._config.batch_timeout, self._tick)
        else:
            self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        """The loop iteration ends, or the batch has waited long enough."""
        self._ticking = False
        if self.gate is Gate.GATHER and not (self.run or self._watchers or self.transport.blocked):
            self.gate = Gate.LONE
            self.quick = False
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._advancing = False
        if not self.transport.blocked:
            self.write_out()
        self._advance()
        self._settle()

    def write_out(self) -> None:
        """Write what has gathered."""
        if self.run:
            runs, last = self._runs, self.run
            self.run = []
            data = self.transport.frames.many(self.first, last)
            if runs:
                self._runs = []
                data = b"".join([*(self.transport.frames.many(*run) for run in runs), data])
            self.transport.write(data)
        self._writes += 1
        self.left = self._allotted = self._config.quota

    async def flush(self) -> None:
        """Wait until what has been accepted is written to the socket.

        Raises:
            ConnectionClosed: it was closed before.
        """
        self.check_loop()
        writes = self._writes
        while self.run and self._writes == writes and not self.ended:
            if self.transport.blocked:
                await self._changed()
            else:
                self.write_out()
        if self.transport.state is State.OPEN:
            await self.transport.drained()
        if self.transport.state is not State.OPEN:
            await self.raise_closed()

    async def drain(self) -> None:
        """Take no new senders, and wait until all that were there have been served and their messages written."""
        self.ending = True
        self._settle()
        while not self.ended:
            waiting = self._waiters or self._granted or self.fragmenting
            if not waiting and not self.transport.blocked:
                self.write_out()
                return
            await self._changed()

    async def _changed(self) -> None:
        watcher = self._loop.create_future()
        self._watchers.append(watcher)
        await watcher

    # Fragmented messages

    async def begin_fragments(self) -> None:
        """Wait for a turn, and keep all others out until `end_fragments`."""
        self.check_loop()
        await self._turn(MESSAGE_COST, exclusive=True)
        self._settle()

    async def fragment(self, first: int, payload: bytes) -> None:
        """Write a frame of the message in fragments, behind what was accepted before it."""
        while self.transport.blocked and not self.ended:
            await self._changed()
        if self.ended or self.transport.state is not State.OPEN:
            await self.raise_closed()
        self.write_out()
        self._write_one(first, payload)

    def end_fragments(self) -> None:
        """Let others send again."""
        self.fragmenting = False
        self._advance()
        self._settle()

    # What the transport tells

    def writable(self) -> None:
        self._go_on()

    def control(self) -> None:
        if self.run and not self.transport.blocked:
            self.write_out()

    def closing(self) -> None:
        self.write_out()
        self._end()

    def closed(self) -> None:
        self._runs.clear()
        self.run = []
        self._end()

    def _end(self) -> None:
        self.ended = True
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_result(False)
        self._waiters.clear()
        self._settle()

    async def raise_closed(self) -> Any:
        """Wait until the connection is closed, and raise why."""
        await self.transport.close()
        raise self.transport.close_exc
