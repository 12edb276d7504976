"""A session as a transport: it goes on over one socket after another, and its user sees nothing but a delay.

`penstock.wire.session` numbers frames and keeps them. This is the shell: it writes and reads them, minds the time, and
knows whether there is a socket at present (attached) or not (detached). Whoever opened the session attaches it again:
`penstock.connection.resume` at a client, `penstock.server.sessions` at a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from penstock.connection.latest import OverSockets
from penstock.connection.receipts import Receipts
from penstock.connection.taking import Taking
from penstock.errors import DeliveryUnknown, SessionLost
from penstock.transport.base import Close, CloseCode, ConnectionClosedOK, Encode, State, Transport
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
    write,
)
from penstock.wire.frames import BINARY, CONTINUATION, FIN, TEXT
from penstock.wire.session import Limits, Session

WHOLE = FIN | BINARY
"""The first byte of a message that is not sent in fragments; whether it is text, its type tells."""

_RESUMABLE = frozenset((1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014))
"""Close codes after which a session goes on, unless BYE was said; any other ends it."""
_ENDING = frozenset((1002, 1003, 1007, 1009, *range(4900, 5000)))
"""Close codes that end a session by themselves, without BYE."""


class SessionFrames:
    """Numbers messages, and builds the WebSocket frames of those that may be written now.

    See `penstock.wire.frames`; payloads are ``str`` or ``bytes`` where ``first`` is `WHOLE`, pieces of bytes elsewhere.
    """

    masked = True
    """What was built for one connection does not serve another."""

    def __init__(self, transport: SessionTransport) -> None:
        self._transport = transport
        self._text = False

    def one(self, first: int, payload: Any) -> bytes:
        transport = self._transport
        if first == WHOLE:
            return transport.take_one(payload)
        if first & 0x0F != CONTINUATION:
            self._text = first & 0x0F == TEXT
        transport.session.outgoing.add_part(payload, text=self._text, last=bool(first & FIN))
        return transport.take_due()

    def many(self, first: int, payloads: Sequence[Any]) -> bytes:
        self._transport.session.outgoing.add(payloads)  # type: ignore[arg-type]
        return self._transport.take_due()


class SessionTransport(OverSockets):
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
        on_ended: Callable[[SessionTransport], None] = lambda _: None,
    ) -> None:
        self._taking = Taking(inner.loop, self._acknowledge, self._all_taken)
        super().__init__(self._taking.inbox, inner)
        self._carry(session)
        self.frames: Any = SessionFrames(self)
        self.encode: Encode | None = None
        self.blocked = False
        self.owner: Any = Unowned()
        self._attached: Transport | None = None
        self._on_detached, self._on_ended = on_detached, on_ended
        self._cause: BaseException | None = None
        self._lost: asyncio.Future[None] = self.loop.create_future()
        self._changed = asyncio.Event()
        """There is a socket, or there will be none any more."""
        self._receipts = Receipts(self.loop)
        self._fragments: list[bytes] = []
        self._bye: Bye | None = None
        self._settled = asyncio.Event()
        """Nothing more is to be waited for before the socket is closed."""
        self._failed: str | None = None
        """Why this end gave the session up."""
        self._closer: asyncio.Task[None] | None = None

    def _carry(self, session: Session) -> None:
        self.session = session
        self._taking.incoming = session.incoming

    def begin_again(self, theirs: Limits, codec: Codec | None) -> None:
        """Go on with a new session, since the peer has forgotten the old one: all that may be lost is sent again."""
        old = self.session
        self._carry(Session(old.incoming.ours, theirs, codec, unread=len(self.inbox.items)))
        messages = old.outgoing.unacknowledged()
        if messages:
            self.session.outgoing.add(messages)
        self._receipts.move(self.session.outgoing.tx)

    # Sockets

    @property
    def pending_bytes(self) -> int:
        """Bytes that are kept until the peer has taken them, or wait to be sent."""
        return self.session.outgoing.kept_bytes + int(self.owner.size)

    @property
    def is_attached(self) -> bool:
        """Whether there is a socket at present."""
        return self._attached is not None

    def attach(self, inner: Transport) -> None:
        """Write to ``inner`` and read from it, beginning with what has to be written again."""
        self._latest = self._attached = inner
        inner.owner = self
        self._fragments = []
        self._changed.set()
        self._taking.tell()
        if self._bye is not None:
            self.write(self.take_due())
            self._send(self._bye)
        else:
            self._write_due()
        inner.divert(self._receive)

    def detach(self) -> None:
        """Another socket takes over: close this one, and listen to it no more."""
        inner = self._attached
        self.closing()
        if inner is not None:
            inner.owner = Unowned()
            inner.divert(lambda _: None)
            inner.fail(TAKEN_OVER, "taken over by another socket")

    def end_in_order(self) -> None:
        """The peer has ended the session while there was no socket."""
        closed = Close(CloseCode.NORMAL_CLOSURE, "")
        self._exc = ConnectionClosedOK(closed, closed, True)
        self._end(None)

    def give_up(self, reason: str, cause: BaseException | None = None) -> None:
        """The session does not go on: it ends, and tells what may be lost."""
        self._end(reason, cause)

    def _send(self, frame: Ack | Bye) -> None:
        inner = self._attached
        if inner is not None:
            inner.write(inner.frames.one(WHOLE, write(frame)))

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
        if inner is None:
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
        if was_blocked and not self.blocked:
            self.owner.writable()

    # What the socket tells

    def writable(self) -> None:
        self._write_due()

    def control(self) -> None:
        self.owner.control()

    def closing(self) -> None:
        self._attached = None
        self._changed.clear()
        self.blocked = True  # messages gather, and then senders wait, until there is another

    def closed(self) -> None:
        self.closing()
        if self._state is State.CLOSED:
            return
        is_done = self._peer_bye is not None or (self._bye is not None and self._settled.is_set())
        if is_done and self._failed is None:
            self._end(None)
        elif self._failed is not None or self._on_detached is None or self._latest.close_code not in _RESUMABLE:
            self._end(self._failed or "the connection broke", self._cause)
        else:
            self._on_detached(self)

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
        if not isinstance(item, Fragment) or (item.text and not self._fragments):
            raise BadFrame(BAD_FRAME, "a text frame")
        self._fragments.append(item.data)
        if sum(map(len, self._fragments)) > self.session.incoming.ours.max_frame:
            raise BadFrame(TOO_BIG, "a frame in fragments")
        if not item.fin:
            return None
        data, self._fragments = b"".join(self._fragments), []
        return data

    def _handle(self, frame: Any, size: int) -> None:
        match frame:
            case Data() | Compressed() | Part():
                self._taking.put(self.session.incoming.receive(frame, size))
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
        outgoing = self.session.outgoing
        self._receipts.resolve(outgoing.acked)
        if self._bye is not None and outgoing.acked >= outgoing.tx:
            self._settled.set()
        elif self.blocked:
            self._write_due()

    def _acknowledge(self) -> None:
        if self._attached is not None:
            self._send(self.session.incoming.ack(self._receipts.wanted()))

    async def delivered(self) -> None:
        """Wait until the peer's application has taken every message that is numbered.

        Raises:
            ConnectionClosed: the session ended before; `SessionLost` or `DeliveryUnknown`.
        """
        outgoing = self.session.outgoing
        if outgoing.acked < outgoing.tx:
            if self._state is State.CLOSED:
                raise self._unknown()
            receipt = self._receipts.expect(outgoing.tx)
            self._taking.tell()
            await receipt

    def _unknown(self) -> Exception:
        if isinstance(self._exc, SessionLost):
            return self._exc
        return DeliveryUnknown(self.session.outgoing.unacknowledged())

    # The interface of websockets

    def discard_unread(self) -> int:
        dropped = super().discard_unread()
        self._taking.look()
        return dropped

    async def drained(self) -> None:
        if self._attached is not None:
            await self._attached.drained()

    async def ping(self, data: Any = None) -> Awaitable[float]:
        return await (await self._socket()).ping(data)

    async def pong(self, data: Any = b"") -> None:
        await (await self._socket()).pong(data)

    async def _socket(self) -> Transport:
        while self._attached is None:
            if self._state is not State.OPEN:
                await self.raise_closed()
            await self._changed.wait()
        return self._attached

    # The end

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if self._closer is None and self._state is not State.CLOSED:
            self.owner.closing()
            self._closer = self.loop.create_task(self._close(code, reason))
        await self.wait_closed()

    async def _close(self, code: int, reason: str) -> None:
        self._state = State.CLOSING
        if self._peer_bye is not None:
            self._say_bye(self._peer_bye.code, self._peer_bye.reason)
        elif self._bye is None:
            self._say_bye(code, reason)
        try:
            async with asyncio.timeout(self.close_timeout):
                await self._settled.wait()
        except TimeoutError:
            pass
        if self._attached is not None:
            await self._attached.close(code, reason)
        elif self._latest.state is not State.CLOSED:
            await self._latest.wait_closed()
        if self._state is not State.CLOSED:
            self._end("the peer did not come back before it was closed")

    def _say_bye(self, code: int, reason: str) -> None:
        """Send and take no more."""
        outgoing = self.session.outgoing
        if self._bye is None:
            self.write(self.take_due())
            self._taking.tell()
            self._bye = Bye(code, reason, self.session.incoming.taken)
            self._send(self._bye)
        if outgoing.acked >= outgoing.tx or self._peer_bye is not None:
            self._settled.set()

    def _end_in_order(self, bye: Bye) -> None:
        """The peer sends and takes no more."""
        if self._peer_bye is not None:
            return
        if self.session.outgoing.acknowledged(bye.taken):
            self._receipts.resolve(bye.taken)
        self._peer_bye = bye
        self._taking.is_ending = True
        self._attached, attached = None, self._attached
        self.owner.closing()  # what has gathered is numbered, and so reported; it is not written any more
        self._attached = attached
        self._receipts.fail(self._unknown)
        self._settled.set()
        if self._state is State.OPEN:
            self._state = State.CLOSING
        self.inbox.end()
        if not self.inbox.items:
            self._all_taken()

    def _all_taken(self) -> None:
        if self._peer_bye is not None and self._bye is None:
            self._say_bye(self._peer_bye.code, self._peer_bye.reason)

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
        self._latest.abort(cause)
        self._end_if_detached("aborted")

    def _fail(self, reason: str, cause: BaseException | None) -> None:
        self._failed = self._failed or reason
        self._cause = self._cause or cause
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self.owner.closing()

    def _end_if_detached(self, reason: str) -> None:
        if self._latest.state is State.CLOSED and self._state is not State.CLOSED:
            self._end(reason, self._cause)

    def _end(self, reason: str | None, cause: BaseException | None = None) -> None:
        """There is no more socket, and none will come; ``reason`` tells why, if that was not in order."""
        if self._state is State.CLOSED:
            return
        self._attached = None
        self.owner.closing()
        self._state = State.CLOSED
        if reason is not None:
            closed = self._latest.close_exc
            self._exc = SessionLost(reason, self.session.outgoing.unacknowledged(), closed.rcvd, closed.sent)
            self._exc.__cause__ = cause
        self._receipts.fail(self._unknown)
        self._taking.stop()
        self.blocked = False
        self.inbox.end()
        self._settled.set()
        self._changed.set()
        self._lost.set_result(None)
        self.owner.closed()
        self._on_ended(self)

    async def wait_closed(self) -> None:
        await asyncio.shield(self._lost)

    async def raise_closed(self) -> Any:
        await self.wait_closed()
        raise self.close_exc
