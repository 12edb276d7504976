"""The sending half of a connection: messages gather, and leave many to one write.

A small machine with three gates. LONE: the next message is the first of this loop iteration, and is written at once.
GATHER: a message is only appended; the iteration's end, or a full batch, writes them all. SHUT: something has to be
settled first, and senders queue: others wait, a fragmented message is under way, the connection closes, or a full batch
has just been written and the event loop is to have its turn (a million sends in a row must not starve other tasks).

Every wait comes before acceptance: a ``send`` that was cancelled was not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import get_ident
from typing import Any

from penstock.batch.policy import BatchConfig
from penstock.connection.gate import GATHER, LONE, SHUT
from penstock.connection.signal import Signal
from penstock.connection.ticker import ticker_of
from penstock.connection.turns import Turn, Turns
from penstock.errors import WrongLoop
from penstock.transport.base import Transport
from penstock.wire.frames import FIN, TEXT


class Outbox:
    """Gathers messages for one transport, whose owner it is.

    Args:
        gather: False writes each message by itself, at once.
    """

    def __init__(self, transport: Transport, config: BatchConfig, *, gather: bool) -> None:
        self.transport = transport
        self.gate = LONE
        self.quick = False
        """A message that begins with `first` needs only to be appended to `run`, within `room` and `max_size`."""
        self.run: list[Any] = []
        """The payloads gathered last, as the transport's frames take them."""
        self.first = FIN | TEXT
        """The first byte that their frames want."""
        self.room = 0
        """Payloads that `run` may have before the batch is nearly full."""
        self.size = 0
        """Bytes of all payloads that have gathered."""
        self.max_size = 0
        """Bytes below which the batch is not full."""
        self.fragmenting = False  # a message is being sent in fragments
        self.ending = False
        """No new senders: the connection closes when those that are here have been served."""
        self.ended = False  # the connection closes, or is closed: nothing can be written any more
        self.thread = get_ident()
        """Where the connection lives; asking for the running loop costs six times as much on CPython 3.11."""
        self.size_of: Callable[[Any], int] = len  # bytes of a payload
        self._loop, self._traffic = transport.loop, transport.traffic
        self._config, self._gather = config, gather
        self._linger = gather and config.batch_timeout > 0
        self._earlier: list[tuple[int, list[Any]]] = []
        self._earlier_count = 0
        self._ticker = ticker_of(self._loop)
        self._ticking = self._resting = False
        self._timer: asyncio.TimerHandle | None = None
        self._turns = Turns(self._loop)
        self.writes = 0
        """Times that something was written."""
        self.send_timeout: float | None = None
        """Seconds that a sender waits at most; then TimeoutError, and its message is not taken."""
        self.changed = Signal(self._loop)
        self.on_end: Callable[[], None] | None = None  # told once that nothing can be written any more
        transport.owner = self

    # Accepting

    async def accept(self, first: int, payload: Any) -> None:
        """Take one message, after all that were offered before it; ``first`` is its frame's first byte.

        Raises:
            ConnectionClosed: the connection is closed, or closing.
            WrongLoop: called from another event loop or thread.
        """
        if self.gate is LONE:
            self.begin(first, payload)
            return
        self.check_loop()
        if self.gate is SHUT or not self._may_take(len(payload)):
            await self.turn(len(payload))
        self._take(first, payload)

    def expect_more(self) -> None:
        """Let the next message gather, though it is the first of this loop iteration: others come behind it."""
        if self.gate is LONE and self._gather:
            self._open_tick()

    @property
    def spare(self) -> int:
        """Messages that may be appended without a look."""
        return max(0, self.room - len(self.run)) if self.quick else 0

    def append_all(self, first: int, payloads: list[bytes]) -> bool:
        """Append no more than `spare` messages, unless their bytes make the batch full."""
        size = self.size + sum(map(len, payloads))
        if size >= self.max_size:
            return False
        self._switch(first)
        self.size = size
        self.run += payloads
        return True

    def begin(self, first: int, payload: Any) -> None:
        """Take the first message of a loop iteration: the gate is LONE.

        Raises:
            WrongLoop: called from another event loop or thread.
        """
        self.check_loop()
        if self._linger:
            self._take(first, payload)
            return
        self._write_first(self.transport.frames.one(*self._counted(first, payload)))

    def check_loop(self) -> None:
        """Raise WrongLoop in another event loop or thread than the connection's."""
        if get_ident() != self.thread or not self._loop.is_running():
            raise WrongLoop

    def _write_first(self, frame: bytes) -> None:
        self.writes += 1
        self.transport.write(frame)
        if self._gather:
            self._ticking = True
            self._ticker.add(self, self._loop)
            self.gate = GATHER
            self.quick = self.transport.encode is None
        else:
            self._settle()

    def take_unasked(self, frame: bytes, first: int, payload: Any) -> None:
        """Take a message, behind what has gathered, whatever the bounds; ``frame`` is without mask and extensions."""
        transport = self.transport
        if self.gate is not LONE or self._linger:
            self._take(first, payload)
        elif transport.encode is None and not transport.frames.masked:
            self._counted(first, payload)
            self._write_first(frame)
        else:
            self.begin(first, payload)

    def _take(self, first: int, payload: Any) -> None:
        """Take a message whose turn it is."""
        if not self._gather:
            self.write_one(first, payload)
            self._let_through()
            return
        self._push(first, payload)
        if not self.transport.blocked and self._config.is_full(self.pending, self.size):
            self.write_out()
            self._rest()
        if self.run and not self._ticking:
            self._open_tick()
        if self.gate is SHUT:
            self._let_through()

    def _push(self, first: int, payload: Any) -> None:
        if self.transport.encode is not None:
            first, payload = self._counted(first, payload)
        self._switch(first)
        self.size += self.size_of(payload)
        self.run.append(payload)

    def _switch(self, first: int) -> None:
        """Make `run` one whose frames begin with ``first``."""
        if first != self.first:
            if self.run:
                self._earlier.append((self.first, self.run))
                self._earlier_count += len(self.run)
                self.run = []
                self._set_limits()
            self.first = first

    @property
    def pending(self) -> int:
        """Messages that have gathered."""
        return self._earlier_count + len(self.run)

    # Turns

    @property
    def busy(self) -> bool:
        """Whether somebody waits to send, or is sending a message in fragments."""
        return self.fragmenting or bool(self._turns)

    async def turn(self, size: int, *, exclusive: bool = False) -> None:
        """Wait until a message of so many bytes may be taken, at once; ``exclusive`` until `end_fragments`."""
        if self.ended or self.ending:
            await self.raise_closed()
        alone = not self._turns
        turn = self._turns.join(size, exclusive=exclusive)
        if alone:  # else whoever was let through has to take first
            self._let_through()
        try:
            async with asyncio.timeout(self.send_timeout):
                may_go = await turn.future
        except (asyncio.CancelledError, TimeoutError):
            if self._turns.withdraw(turn) and exclusive:
                self.fragmenting = False
            self._let_through()
            raise
        if may_go:
            self._turns.keep(turn)
        if self.ended:  # perhaps only since the promise
            await self.raise_closed()

    def end_fragments(self) -> None:
        """Let others send again."""
        self.fragmenting = False
        self._let_through()

    def _may_go(self, turn: Turn) -> bool:
        """Whether the first who waits may be let through."""
        if self.fragmenting or self._resting or (turn.exclusive and self._turns.promised):
            return False
        if not self._may_take(turn.size):
            return False
        self.fragmenting = turn.exclusive
        return True

    def _may_take(self, size: int) -> bool:
        """Whether a message of so many bytes may be taken, what is promised counted as taken."""
        promised = self._turns.promised
        if not self._gather:
            return not (promised or self.transport.blocked)
        messages, pending = self.pending + promised, self.size + self._turns.promised_bytes
        if self.transport.blocked:
            return self._config.has_room(messages, pending, size)
        return not self._config.is_full(messages, pending)

    def _let_through(self) -> None:
        if not self.ended:
            self._turns.let_through(self._may_go)
        self._settle()

    def _rest(self) -> None:
        """Shut the gate until the event loop has had its turn."""
        if not self._resting:
            self._resting = True
            self._loop.call_soon(self._rested)
            self._settle()

    def _rested(self) -> None:
        self._resting = False
        self._let_through()

    def _settle(self) -> None:
        """Set the gate by what is going on, and tell who watches."""
        if self.ended or self.ending or self._turns or self.fragmenting or self._resting:
            self.gate = SHUT
        elif not self._ticking and not self.transport.blocked:
            self.gate = LONE
        else:
            self.gate = GATHER if self._gather else SHUT
        self.quick = self.gate is GATHER and self.transport.encode is None
        self._set_limits()
        if self.changed:
            self.changed.fire()

    def _set_limits(self) -> None:
        """How far `run` may grow without a look: the message that fills a batch needs one."""
        config = self._config
        if self.transport.blocked:
            most, self.max_size = config.max_pending_messages, config.max_pending_bytes
        else:
            most, self.max_size = config.full_batch
            most -= 1
        self.room = most - self._earlier_count

    # Writing

    def _open_tick(self) -> None:
        self._ticking = True
        if self._linger:
            self._timer = self._loop.call_later(self._config.batch_timeout, self.tick)
        else:
            self._ticker.add(self, self._loop)
        self._settle()

    def tick(self) -> None:
        """The loop iteration ends, or the batch has waited long enough."""
        self._ticking = False
        if self.gate is GATHER and not (self.run or self.changed or self.transport.blocked):
            self.gate = LONE
            self.quick = False
        else:
            self.writable()

    def write_out(self) -> None:
        """Write what has gathered."""
        if self.run:
            many = self.transport.frames.many
            if self.transport.encode is None:
                self._traffic.sent += self._earlier_count + len(self.run)
                self._traffic.sent_bytes += self.size
            if self._earlier:
                data = b"".join([many(*run) for run in (*self._earlier, (self.first, self.run))])
            else:
                data = many(self.first, self.run)
            self._clear()
            self.transport.write(data)
            if self._linger:
                self._settle()  # no tick is coming that would
        self.writes += 1

    def write_one(self, first: int, payload: bytes) -> None:
        """Write one message, or a fragment of one."""
        self.writes += 1
        self.transport.write(self.transport.frames.one(*self._counted(first, payload)))

    def _counted(self, first: int, payload: Any) -> tuple[int, Any]:
        """Count a message or fragment, before extensions make it smaller; as it is written."""
        self._traffic.sent += bool(first & FIN)
        self._traffic.sent_bytes += self.size_of(payload)
        encode = self.transport.encode
        return (first, payload) if encode is None else encode(first, payload)

    def _clear(self) -> None:
        self.run, self._earlier = [], []
        self._earlier_count = self.size = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._ticking = False
        self._set_limits()

    async def flush(self) -> None:
        """Wait until what has been accepted is written to the socket.

        Raises:
            ConnectionClosed: the connection closes, or has been closed.
            WrongLoop: called from another event loop or thread.
        """
        self.check_loop()
        writes = self.writes
        while self.run and self.writes == writes and not self.ended:
            if self.transport.blocked:
                await self.changed.wait()
            else:
                self.write_out()
        if not self.ended:
            await self.transport.drained()
        if self.ended:
            await self.raise_closed()

    async def drain(self) -> None:
        """Take no new senders, and wait until all that were there have been served and their messages written."""
        self.ending = True
        self._settle()
        while not self.ended:
            if not (self._turns or self.fragmenting or self.transport.blocked):
                self.write_out()
                return
            await self.changed.wait()

    # What the transport tells

    def writable(self) -> None:
        if not self.transport.blocked:
            self.write_out()
        self._let_through()

    def control(self) -> None:
        if self.run and not self.transport.blocked:
            self.write_out()

    def broke(self, exc: Exception) -> None:
        """Writing failed, as it never should: the connection goes, its neighbours stay."""
        self.transport.logger.error("cannot write to %s", self.transport.id, exc_info=exc)
        self.closed()
        self.transport.abort(exc)

    def closing(self) -> None:
        if self.run:
            self.write_out()
        self._end()

    def closed(self) -> None:
        self._clear()
        self._end()

    def _end(self) -> None:
        if not self.ended and self.on_end is not None:
            self.on_end()
        self.ended = True
        self._turns.refuse_all()
        self._settle()

    async def raise_closed(self) -> Any:
        """Wait until the connection is closed, and raise why."""
        await self.transport.close()
        raise self.transport.close_exc
