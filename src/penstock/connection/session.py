"""A session as a transport: it goes on over one socket after another, and its user sees nothing but a delay.

`penstock.wire.session` numbers frames and keeps them. This is the shell: it writes and reads them, minds the time, and
knows whether there is a socket at present (attached) or not (detached). Whoever opened the session attaches it again:
`penstock.connection.resume` at a client, `penstock.server.sessions` at a server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from penstock.connection.ending import Ending
from penstock.connection.numbering import WHOLE, SessionFrames
from penstock.transport.base import Encode, State, Transport
from penstock.transport.endpoint import Unowned
from penstock.transport.inbox import Item
from penstock.transport.inbox import Part as Fragment
from penstock.wire.compression import Codec
from penstock.wire.envelope import (
    BAD_FRAME,
    TAKEN_OVER,
    TOO_BIG,
    Ack,
    BadFrame,
    Bye,
    Compressed,
    Data,
    Hello,
    Part,
    Welcome,
    read,
)
from penstock.wire.incoming import payload_of
from penstock.wire.limits import Limits
from penstock.wire.session import Session

GRACE = 1.0
"""Seconds that a socket, on which a session does not end, may take to close."""

_RESUMABLE = frozenset((1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014))
"""Close codes after which a session goes on, unless BYE was said; any other ends it."""


class SessionTransport(Ending):
    """A `penstock.transport.base.Transport` over sockets that come and go.

    Args:
        inner: the first of them, with HELLO and WELCOME exchanged; `attach` begins to use it.
        on_detached: called when the socket is gone, and the session may go on; None if a break ends it.
        on_ended: called when it does not go on.
    """

    def __init__(
        self,
        session: Session,
        inner: Transport,
        *,
        on_detached: Callable[[SessionTransport], None] | None,
        on_ended: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(session, inner, on_ended)
        self.frames: Any = SessionFrames(self)
        self.encode: Encode | None = None
        self.on_lost_socket: Callable[[], None] | None = None
        """Told when there is no socket any more, though the session may go on."""
        self._on_detached = on_detached
        self._joined: bytearray | None = None
        """What has come of a frame that an intermediary has cut; as objects, empty pieces would cost memory."""

    def begin_again(self, theirs: Limits, codec: Codec | None) -> bool:
        """Go on with a new session, since the peer has forgotten the old one: all that may be lost is sent again.

        False if that cannot be, because a message is being sent in fragments.
        """
        old = self.session
        if self.owner.fragmenting:
            return False
        self._carry(Session(old.incoming.ours, theirs, codec, unread=len(self.inbox.items)))
        self.traffic.lost_sessions += 1
        self.traffic.redelivered += old.outgoing.written_since(old.outgoing.acked)
        messages = old.outgoing.unacknowledged()
        if messages:
            self.session.outgoing.add(messages)
        self._receipts.move(self.session.outgoing.tx)
        return True

    # Sockets

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait: to be taken here, to be taken by the peer, and to be sent."""
        session = self.session
        return session.incoming.waiting_bytes + session.outgoing.kept_bytes + int(self.owner.size)

    @property
    def is_attached(self) -> bool:
        """Whether there is a socket at present."""
        return self._attached is not None

    def resume(self, peer: Hello | Welcome, inner: Transport) -> None:
        """Go on over ``inner``, by what the peer has told."""
        self.traffic.resumes += 1
        self.traffic.redelivered += self.session.outgoing.written_since(peer.rx)
        self.session.resume(peer)
        self.attach(inner)

    def attach(self, inner: Transport) -> None:
        """Write to ``inner`` and read from it, beginning with what has to be written again."""
        self._latest = inner
        inner.owner = self
        self._joined = None
        if inner.state is State.OPEN:
            self._attached = inner
            self._taking.resume()
            self._write_due()
        else:
            self.closing()
        inner.divert(self._receive)
        if inner.state is State.CLOSED:  # it broke before anybody was told
            self.closed()

    def detach(self) -> None:
        """Another socket takes over: close this one, and listen to it no more."""
        inner = self._attached
        if inner is None and self._latest.state is not State.CLOSED:
            inner = self._latest
        self._let_go()
        self._stop_timer()
        if inner is not None:
            inner.owner = Unowned()
            inner.divert(_ignore)
            inner.fail(TAKEN_OVER, "taken over by another socket")

    def take_one(self, message: Any) -> bytes:
        """Number a lone message; its frame, if that may be written now, and any before it."""
        inner, outgoing = self._attached, self.session.outgoing
        if inner is None or self.blocked:
            outgoing.add([message])
            return self.take_due()
        frame = outgoing.add_one(message)
        if frame is None:
            return self.take_due()
        if outgoing.is_held_up:
            self.blocked = True
        return inner.frames.one(WHOLE, frame)

    def take_due(self) -> bytes:
        """The frames that may be written now, which the caller does."""
        inner, outgoing = self._attached, self.session.outgoing
        if inner is None or self._farewell.theirs is not None:
            return b""
        due = outgoing.due()
        self.blocked = inner.blocked or outgoing.is_held_up
        if not due:
            return b""
        return inner.frames.one(WHOLE, due[0]) if len(due) == 1 else inner.frames.many(WHOLE, due)

    def write(self, data: bytes) -> None:
        inner = self._attached
        if data and inner is not None:
            inner.write(data)
            if inner.blocked:
                self.blocked = True

    def _write_due(self) -> None:
        was_blocked = self.blocked
        self.write(self.take_due())
        self._say_bye()
        self._progress.fire()
        if was_blocked and not self.blocked:
            self.owner.writable()

    # What the socket tells

    def writable(self) -> None:
        self._taking.resume()
        self._write_due()

    def control(self) -> None:
        self.owner.control()

    def closing(self) -> None:
        was_attached = self._attached is not None
        self._let_go()
        if was_attached and self._state is State.OPEN:
            self._close_by(GRACE)
            if self.on_lost_socket is not None:
                self.on_lost_socket()

    def _let_go(self) -> None:
        """There is no socket: messages gather, and then senders wait, until there is another."""
        self._attached = None
        self._farewell.is_sent = False
        self.blocked = True

    def closed(self) -> None:
        self.closing()
        self._stop_timer()
        self._latest.divert(_ignore)
        if self._state is State.CLOSED:
            return
        if self._failed is None and self._farewell.is_said:
            self._end(None)
        elif self._failed is not None or self._on_detached is None or not self._is_only_a_break():
            rcvd = self._latest.close_exc.rcvd
            why = "the connection broke" if rcvd is None else f"the peer closed with {rcvd}"
            self._end(self._failed or why, self._cause)
        else:
            self._on_detached(self)

    def _is_only_a_break(self) -> bool:
        """Whether the socket closed for a reason that does not end the session, whoever gave it."""
        exc = self._latest.close_exc
        return all(close is None or close.code in _RESUMABLE for close in (exc.rcvd, exc.sent))

    # Frames in

    def _receive(self, item: Item) -> None:
        try:
            data = item if item.__class__ is bytes else self._join(item)
            if data is not None:
                self._handle(read(data), len(data))
        except BadFrame as exc:
            self.fail(exc.code, exc.reason, exc)

    def _join(self, item: Item) -> bytes | None:
        """A message that an intermediary has cut into WebSocket fragments; None until it is whole."""
        if not isinstance(item, Fragment) or (item.text and self._joined is None):
            raise BadFrame(BAD_FRAME, "a text frame")
        joined = self._joined = bytearray() if self._joined is None else self._joined
        joined += item.data
        if len(joined) > self.session.incoming.ours.max_frame:
            raise BadFrame(TOO_BIG, "a frame in fragments")
        if not item.fin:
            return None
        self._joined = None
        return bytes(joined)

    def _handle(self, frame: Any, size: int) -> None:
        match frame:
            case Data() | Compressed() | Part():
                messages = self.session.incoming.receive(frame, size)
                if messages:
                    self.arrived.messages += len(messages)
                    self.arrived.bytes += payload_of(frame, messages)
                self._taking.put(messages)
            case Ack():
                if self.session.outgoing.acknowledged(frame.taken):
                    self._were_taken()
                if frame.want:
                    self.session.incoming.wanted(frame.want)
                    self._taking.inbox.watch(closely=True)
                    self._taking.look()
            case Bye():
                self._end_in_order(frame)
            case Hello() | Welcome():
                raise BadFrame(BAD_FRAME, "a second handshake")

    def _were_taken(self) -> None:
        self._receipts.resolve(self.session.outgoing.acked)
        if self.blocked:
            self._write_due()
        self._settle()
        if self._receipts.has_news:
            self._acknowledge()

    # The interface of websockets

    def discard_unread(self) -> int:
        dropped = super().discard_unread()
        self._taking.look()
        return dropped

    async def drained(self) -> None:
        while self._state is not State.CLOSED:
            inner = self._attached
            if inner is None or not self.session.outgoing.is_written:
                await self._progress.wait()
            else:
                await inner.drained()
                if inner is self._attached:
                    return

    async def ping(self, data: Any = None) -> Awaitable[float]:
        return await (await self._socket()).ping(data)

    async def pong(self, data: Any = b"") -> None:
        await (await self._socket()).pong(data)

    async def _socket(self) -> Transport:
        """The socket, as soon as there is one that takes more."""
        while self._attached is None or self._attached.blocked:
            if self._attached is None and self._state is not State.OPEN:
                await self.raise_closed()
            await self._progress.wait()
        return self._attached


def _ignore(_: Item) -> None:
    """What still arrives on a socket that another has taken over from."""
