"""A server's side of sessions: it begins them, keeps those whose socket broke, and hands them back."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

from penstock.connection.numbering import WHOLE
from penstock.connection.session import SessionTransport
from penstock.server.budget import PROCESS, SessionBudget, Waiting, check_bounds
from penstock.transport.base import CloseCode, ConnectionClosed, State, Transport
from penstock.wire.compression import AVAILABLE
from penstock.wire.envelope import (
    ENDED,
    LOST,
    NEW,
    RESUMED,
    SID_BYTES,
    TAKEN_OVER,
    UNKNOWN,
    Bye,
    Hello,
    Welcome,
    is_node,
    read,
    write,
)
from penstock.wire.limits import Limits, choose_codec, limits_of
from penstock.wire.session import Session

TTL = 90.0
SWEEP_INTERVAL = 1.0
"""Seconds between looks at what detached sessions keep."""
ANSWER_TIMEOUT = 2.0
"""Seconds of silence after which a client that got another session than it asked for is taken to want it."""
MAX_ENDED = 10_000
"""Sessions that have ended and are still known; of more, the first are forgotten before their time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """How a server keeps sessions whose connection broke.

    Raises:
        ValueError: a field is out of bounds; the message names the field, its value and the bound.
    """

    ttl: float = TTL
    """Seconds that a session waits for its client; at least as many as an idle client takes to notice a silent break:
    ping interval, ping timeout and open timeout together, which are 50 by default."""
    max_detached: int = 1000
    """Sessions that wait at a time; the one that has waited for longest ends for the next."""
    max_detached_bytes: int = 64 * 1024 * 1024
    """Bytes that all of them keep, received and not taken or sent and not acknowledged, likewise."""
    budget: SessionBudget = PROCESS
    """Bounds the same for all servers that share it: those of the process, by default."""
    node: str = ""
    """Names this server to a balancer: clients repeat it when they come back."""

    def __post_init__(self) -> None:
        if not isinstance(self.ttl, int | float) or not self.ttl > 0:
            raise ValueError(f"ttl={self.ttl!r}: must be a number of seconds, more than 0")
        check_bounds(max_detached=self.max_detached, max_detached_bytes=self.max_detached_bytes)
        for name in ("max_detached", "max_detached_bytes"):
            value, shared = getattr(self, name), getattr(self.budget, name)
            if value > shared:
                raise ValueError(f"{name}={value!r}: must be at most {shared}, which budget allows to all servers")
        if not is_node(self.node):
            raise ValueError(f"node={self.node!r}: must be printable ASCII without spaces, commas and semicolons")


class _Kept:
    """A session that this server keeps."""

    __slots__ = ("expiry", "key", "principal", "sid", "transport", "turn", "waiting")

    def __init__(self, sid: bytes, principal: Any, turn: int) -> None:
        self.key, self.sid, self.principal = _digest(sid), sid, principal
        self.turn = turn
        """When the client said what made its present socket its own."""
        self.transport: SessionTransport
        self.expiry: asyncio.TimerHandle | None = None
        self.waiting: Waiting | None = None


class Opening:
    """A client that has said HELLO; made when it has, for of two that ask for a session the later gets it."""

    __slots__ = ("adopt", "hello", "inner", "turn")

    _turns = count()

    def __init__(self, inner: Transport, hello: Hello, adopt: Callable[[SessionTransport], Any]) -> None:
        self.inner, self.hello = inner, hello
        self.adopt = adopt
        """Called with the transport of a session that is new, before anything of it is read."""
        self.turn = next(self._turns)


class Sessions:
    """All sessions of a server."""

    def __init__(self, config: SessionConfig, limits: Limits) -> None:
        self._config, self._limits = config, limits
        self._known: dict[bytes, _Kept] = {}
        """By a digest of their secret."""
        self._detached: dict[SessionTransport, _Kept] = {}
        """In the order in which their sockets broke."""
        own = SessionBudget(max_detached=config.max_detached, max_detached_bytes=config.max_detached_bytes)
        self._budgets = (own, config.budget)
        self._ended: dict[bytes, tuple[float, Any]] = {}
        """Those that have ended in order, by the same: until when that is remembered, and whose they were."""
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def open(self, client: Opening, principal: Any) -> None:
        """Answer a client: go on with the session that it asks for, or begin one. Nothing is done for one that is gone.

        Waits where the client may not want what it gets. Cancelling is safe: the client gets no session.

        Raises:
            BadFrame: what it asks for makes no sense.
        """
        inner, hello = client.inner, client.hello
        theirs = limits_of(hello)
        if inner.state is not State.OPEN:
            return
        key = _digest(hello.sid)
        kept = self._known.get(key)
        if kept is not None and not (hmac.compare_digest(kept.sid, hello.sid) and kept.principal == principal):
            kept = None
        if not hello.sid:
            self._begin(client, self._offer(client, theirs, principal, NEW))
        elif kept is None:
            if self._has_ended(key, principal, inner):
                self._tell_end(inner, hello.sid)
            else:
                await self._begin_if_wanted(client, self._offer(client, theirs, principal, UNKNOWN))
        elif kept.turn > client.turn:
            inner.fail(TAKEN_OVER, "another socket asked later, and has it")
        elif kept.transport.may_go_on and kept.transport.session.may_resume(hello):
            self._resume(kept, client)
        else:
            kept.transport.detach()
            self._expire(kept, "the client came back, and could not go on")
            await self._begin_if_wanted(client, self._offer(client, theirs, principal, LOST))

    def _offer(self, client: Opening, theirs: Limits, principal: Any, status: int) -> _Kept:
        """Tell a client of a new session."""
        codec = choose_codec(client.hello.codecs, AVAILABLE)
        session = Session(self._limits, theirs, codec)
        kept = _Kept(secrets.token_bytes(SID_BYTES), principal, client.turn)
        kept.transport = SessionTransport(
            session, client.inner, on_detached=lambda _: self._keep(kept), on_ended=lambda: self._forget(kept)
        )
        self._welcome(client.inner, session, kept.sid, status)
        return kept

    async def _begin_if_wanted(self, client: Opening, kept: _Kept) -> None:
        """Begin a session that was not asked for, unless the client declines: it may have come to go on or not at all.

        One that goes on acknowledges at once; and if it does not, it is served all the same.
        """
        inner = client.inner
        answer: Any = None
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                answer = await inner.recv()
        except TimeoutError:
            if inner.state is not State.OPEN:
                return
        except ConnectionClosed:
            return
        if answer is not None and isinstance(read(answer), Bye):
            if inner.state is State.OPEN:
                inner.write(inner.frames.one(WHOLE, write(Bye(CloseCode.NORMAL_CLOSURE, "", 0))))
            inner.fail(CloseCode.NORMAL_CLOSURE, "")
            return
        if answer is not None:
            inner.put_back(answer)
        self._begin(client, kept)

    def _begin(self, client: Opening, kept: _Kept) -> None:
        self._known[kept.key] = kept
        client.adopt(kept.transport)
        kept.transport.attach(client.inner)

    def _resume(self, kept: _Kept, client: Opening) -> None:
        transport = kept.transport
        kept.turn = client.turn
        self._release(kept)
        transport.detach()
        self._welcome(client.inner, transport.session, kept.sid, RESUMED)
        transport.resume(client.hello, client.inner)

    def _tell_end(self, inner: Transport, sid: bytes) -> None:
        """The session was closed in order while the client was away: there is nothing to go on with."""
        self._welcome(inner, Session(self._limits, Limits()), sid, ENDED)
        inner.fail(CloseCode.NORMAL_CLOSURE, "")

    def _welcome(self, inner: Transport, session: Session, sid: bytes, status: int) -> None:
        codec = session.outgoing.codec
        welcome = Welcome(
            sid,
            status,
            session.incoming.rx,
            session.first,
            self._limits.max_frame,
            self._limits.window,
            0 if codec is None else codec.value,
            int(self._config.ttl * 1000),
            self._limits.max_message,
            self._config.node,
        )
        if inner.state is State.OPEN:  # else it is gone since its HELLO, and its client will come back
            inner.write(inner.frames.one(WHOLE, write(welcome)))

    # Sessions without a socket

    def _keep(self, kept: _Kept) -> None:
        """The socket broke: wait for the client, for some time."""
        transport = kept.transport
        if self._is_closed:
            self._expire(kept, "the server is closing")
            return
        self._detached[transport] = kept
        kept.expiry = transport.loop.call_later(self._config.ttl, self._expire, kept)
        kept.waiting = Waiting(transport.loop, transport.pending_bytes, lambda: self._make_room(kept))
        for budget in self._budgets:
            if kept.waiting is not None:  # else it was itself the first to go
                budget.keep(kept.waiting)
        if self._sweep is None and self._detached:
            self._sweep = transport.loop.call_later(SWEEP_INTERVAL, self._look)

    def _look(self) -> None:
        """See to the bounds of bytes; handlers may go on sending while their clients are away."""
        self._sweep = None
        for kept in list(self._detached.values()):
            for budget in self._budgets:
                if kept.waiting is not None:  # else it has just ended
                    kept.waiting.size = kept.transport.pending_bytes
                    budget.keep(kept.waiting)
        if self._detached:
            self._sweep = next(iter(self._detached)).loop.call_later(SWEEP_INTERVAL, self._look)

    def _make_room(self, kept: _Kept) -> None:
        if kept.waiting is not None:  # else its client has come back meanwhile
            self._expire(kept, "too many sessions wait for their clients")

    def _expire(self, kept: _Kept, reason: str = "the client did not come back in time") -> None:
        kept.transport.give_up(reason)

    def _release(self, kept: _Kept) -> None:
        if kept.expiry is not None:
            kept.expiry.cancel()
            kept.expiry = None
        if kept.waiting is not None:
            for budget in self._budgets:
                budget.release(kept.waiting)
            kept.waiting = None
        self._detached.pop(kept.transport, None)

    # Sessions that have ended

    def _forget(self, kept: _Kept) -> None:
        """A session has ended; if that was in order, it is known for some time, to tell a client that comes back."""
        self._release(kept)
        del self._known[kept.key]
        if kept.transport.ended_in_order and not self._is_closed:
            now = kept.transport.loop.time()
            self._forget_ended(now)
            self._ended[kept.key] = (now + self._config.ttl, kept.principal)

    def _forget_ended(self, now: float) -> None:
        ended = self._ended
        while ended:
            first = next(iter(ended))
            if ended[first][0] > now and len(ended) < MAX_ENDED:
                return
            del ended[first]

    def _has_ended(self, key: bytes, principal: Any, inner: Transport) -> bool:
        until, owner = self._ended.get(key, (0.0, None))
        return until > inner.loop.time() and bool(owner == principal)

    def close(self) -> None:
        """The server closes: sessions without a socket end now, and none is kept any more."""
        self._is_closed = True
        for kept in list(self._detached.values()):
            self._expire(kept, "the server is closing")
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        self._ended.clear()


def _digest(sid: bytes) -> bytes:
    return hashlib.sha256(sid).digest()
