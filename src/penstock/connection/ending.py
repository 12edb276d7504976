"""How a session ends: in order, or because it was given up."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from asyncio import TimerHandle
from collections.abc import Callable
from typing import Any

from penstock.connection.latest import OverSockets
from penstock.connection.numbering import WHOLE
from penstock.connection.receipts import Receipts
from penstock.connection.signal import Signal
from penstock.connection.taking import Taking
from penstock.errors import DeliveryUnknown, SessionLost
from penstock.transport.base import Close, CloseCode, ConnectionClosedOK, State, Transport
from penstock.transport.endpoint import Unowned
from penstock.wire.envelope import Ack, Bye, write
from penstock.wire.session import Session

_ENDING = frozenset((1002, 1003, 1007, 1009, *range(4900, 5000)))
"""Close codes that end a session by themselves, without BYE."""


class Ending(OverSockets):
    """The part of `penstock.connection.session.SessionTransport` that closes, and tells what was delivered."""

    def __init__(self, session: Session, inner: Transport, on_ended: Callable[[], None]) -> None:
        self._taking = Taking(inner.loop, self._acknowledge, self._all_taken)
        super().__init__(self._taking.inbox, inner)
        self._carry(session)
        self.owner: Any = Unowned()
        self.blocked = False
        self._attached: Transport | None = None
        self._receipts = Receipts(self.loop)
        self._progress = Signal(self.loop)
        """There is a socket, or frames that had waited were written, or the session has ended."""
        self._on_ended = on_ended
        self._failed: str | None = None
        """Why this end gave the session up."""
        self._cause: BaseException | None = None
        self._lost: asyncio.Future[None] = self.loop.create_future()
        self._closer: asyncio.Task[None] | None = None
        self._overdue: TimerHandle | None = None

    def _carry(self, session: Session) -> None:
        self.session = session
        self._taking.incoming = session.incoming

    @abstractmethod
    def _write_due(self) -> None:
        """Write the frames that may be written now."""

    def _send(self, frame: Ack | Bye) -> None:
        inner = self._attached
        if inner is not None:
            inner.write(inner.frames.one(WHOLE, write(frame)))

    # What was delivered

    def _acknowledge(self) -> None:
        # A peer that does not read makes none gather: it is told when it does.
        if self._attached is not None and not self._attached.blocked:
            self._send(self.session.incoming.ack(self._receipts.wanted()))

    async def delivered(self) -> None:
        """Wait until the peer's application has taken every message that is numbered.

        Raises:
            ConnectionClosed: the session ended before; `SessionLost` or `DeliveryUnknown`.
        """
        outgoing = self.session.outgoing
        if outgoing.acked < outgoing.tx:
            if self._state is State.CLOSED or self._farewell.theirs is not None:
                raise self._unknown()
            receipt = self._receipts.expect(outgoing.tx)
            if self._receipts.has_news:
                self._taking.tell()
            await receipt

    def _unknown(self) -> Exception:
        if isinstance(self._exc, SessionLost):
            return self._exc
        return DeliveryUnknown(self.session.outgoing.unacknowledged())

    # The end

    @property
    def may_go_on(self) -> bool:
        """Whether the session lives, and has not been given up."""
        return self._state is not State.CLOSED and self._failed is None

    @property
    def ended_in_order(self) -> bool:
        """Whether the session is over, and nothing was lost by a break."""
        return self._state is State.CLOSED and not isinstance(self._exc, SessionLost)

    def end_in_order(self) -> None:
        """The peer has ended the session while there was no socket."""
        closed = Close(CloseCode.NORMAL_CLOSURE, "")
        self._exc = ConnectionClosedOK(closed, closed, True)
        self._end(None)

    def give_up(self, reason: str, cause: BaseException | None = None) -> None:
        """The session does not go on: it ends, and tells what may be lost."""
        self._end(reason, cause)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._closer is None and self._state is not State.CLOSED:
            self._state = State.CLOSING
            self.owner.closing()
            self._closer = self.loop.create_task(self._close(Close(code, reason)))
        await self.wait_closed()

    async def _close(self, ours: Close) -> None:
        farewell = self._farewell
        try:
            farewell.ours = ours = farewell.ours or farewell.theirs or ours
            self._taking.tell()
            self._write_due()
            try:
                async with asyncio.timeout(self.close_timeout):
                    await farewell.settled.wait()
            except TimeoutError:
                self._give_up_waiting()
            if self._attached is not None:
                await self._attached.close(ours.code, ours.reason)
            elif self._latest.state is not State.CLOSED:
                await self._latest.wait_closed()
        finally:
            if self._latest.state is not State.CLOSED:
                self._latest.abort()  # cancelled, with all tasks
            outgoing = self.session.outgoing
            lost = outgoing.acked < outgoing.tx and not farewell.settled.is_set()
            self._end("the peer did not come back before it was closed" if lost else None)

    def _give_up_waiting(self) -> None:
        if self._farewell.is_sent:
            self._farewell.settled.set()  # all frames were written before it; what became of them, nobody knows
        elif self._attached is not None:
            self._failed = self._failed or "it was closed before the peer had room for all messages"

    def _say_bye(self) -> None:
        """Send and take no more, if that is to be said now: behind the last frame, or when the peer takes none."""
        farewell, outgoing = self._farewell, self.session.outgoing
        if farewell.ours is None or farewell.is_sent or self._attached is None:
            return
        if outgoing.is_written or farewell.theirs is not None:
            self._send(Bye(farewell.ours.code, farewell.ours.reason, self.session.incoming.taken))
            farewell.is_sent = True
            self._settle()

    def _settle(self) -> None:
        farewell, outgoing = self._farewell, self.session.outgoing
        if farewell.theirs is not None or (farewell.is_sent and outgoing.acked >= outgoing.tx):
            farewell.settled.set()

    def _end_in_order(self, bye: Bye) -> None:
        """The peer sends and takes no more."""
        if not self._farewell.hear(bye):
            return
        if self.session.outgoing.acknowledged(bye.taken):
            self._receipts.resolve(bye.taken)
        self._taking.is_ending = True
        if self._state is State.OPEN:
            self._state = State.CLOSING
        self.owner.closing()  # what has gathered is numbered, and so reported; it is not written any more
        self._receipts.fail(self._unknown)
        self._settle()
        self._progress.fire()
        self.inbox.end()
        if not self.inbox.items:
            self._all_taken()

    def _all_taken(self) -> None:
        farewell = self._farewell
        if farewell.ours is None and self._state is not State.CLOSED:
            farewell.ours = farewell.theirs
            self._taking.tell()
            self._say_bye()
            self._close_by(self.close_timeout)

    def fail(self, code: int, reason: str, cause: BaseException | None = None) -> None:
        self._fail(reason, cause)
        inner = self._attached
        if inner is None:
            self._end_if_detached(reason)
        else:
            if code not in _ENDING:
                self._send(Bye(code, reason, self.session.incoming.taken))
            inner.fail(code, reason)

    def abort(self, cause: BaseException | None = None) -> None:
        self._fail("aborted", cause)
        if self._latest.state is not State.CLOSED:
            self._latest.abort(cause)
        self._end_if_detached("aborted")

    def _fail(self, reason: str, cause: BaseException | None) -> None:
        self._failed = self._failed or reason
        self._cause = self._cause or cause
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self.owner.closing()

    def _end_if_detached(self, reason: str) -> None:
        if self._latest.state is State.CLOSED:
            self._end(reason, self._cause)

    def _end(self, reason: str | None, cause: BaseException | None = None) -> None:
        """There is no more socket, and none will come; ``reason`` tells why, if that was not in order."""
        if self._state is State.CLOSED:
            return
        self._attached = None
        self.owner.closing()
        self._state = State.CLOSED
        if reason is not None:
            self.traffic.lost_sessions += 1
            closed = self._latest.close_exc if self._latest.state is State.CLOSED else None
            rcvd, sent = (None, None) if closed is None else (closed.rcvd, closed.sent)
            self._exc = SessionLost(reason, self.session.outgoing.unacknowledged(), rcvd, sent)
            self._exc.__cause__ = cause
        elif self._exc is None:
            self._exc = self._farewell.exc
        self._receipts.fail(self._unknown)
        self._taking.stop()
        self.blocked = False
        self.inbox.end()
        self._farewell.settled.set()
        self._progress.fire()
        self._lost.set_result(None)
        self.owner.closed()
        self._on_ended()

    async def wait_closed(self) -> None:
        await asyncio.shield(self._lost)

    async def raise_closed(self) -> Any:
        await self.wait_closed()
        raise self.close_exc

    def _close_by(self, seconds: float | None) -> None:
        """Do not let a peer that says nothing delay what comes after its socket."""
        if seconds is not None and self._overdue is None:
            self._overdue = self.loop.call_later(seconds, self._closing_overdue, self._latest)

    def _closing_overdue(self, inner: Transport) -> None:
        self._overdue = None
        if inner.state is not State.CLOSED:
            inner.abort()

    def _stop_timer(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
