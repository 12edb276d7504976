"""A server's side of sessions: it begins them, keeps those whose socket broke, and hands them back."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penstock.connection.numbering import WHOLE
from penstock.connection.session import SessionTransport
from penstock.transport.base import CloseCode, State, Transport
from penstock.wire.compression import AVAILABLE
from penstock.wire.envelope import (
    ENDED,
    LOST,
    NEW,
    RESUMED,
    SID_BYTES,
    UNKNOWN,
    Hello,
    Welcome,
    is_node,
    write,
)
from penstock.wire.limits import Limits, choose_codec, limits_of
from penstock.wire.session import Session

TTL = 90.0
SWEEP_INTERVAL = 1.0
"""Seconds between looks at what detached sessions keep."""
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
    node: str = ""
    """Names this server to a balancer: clients repeat it when they come back."""

    def __post_init__(self) -> None:
        if not isinstance(self.ttl, int | float) or not self.ttl > 0:
            raise ValueError(f"ttl={self.ttl!r}: must be more than 0 seconds")
        for name in ("max_detached", "max_detached_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}={value!r}: must be a whole number of at least 0")
        if not is_node(self.node):
            raise ValueError(f"node={self.node!r}: must be printable ASCII without spaces, commas and semicolons")


class _Kept:
    """A session that this server keeps."""

    __slots__ = ("expiry", "key", "principal", "sid", "transport")

    def __init__(self, key: bytes, sid: bytes, principal: Any) -> None:
        self.key, self.sid, self.principal = key, sid, principal
        self.transport: SessionTransport
        self.expiry: asyncio.TimerHandle | None = None


class Sessions:
    """All sessions of a server."""

    def __init__(self, config: SessionConfig, limits: Limits) -> None:
        self._config, self._limits = config, limits
        self._known: dict[bytes, _Kept] = {}
        """By a digest of their secret."""
        self._detached: dict[SessionTransport, _Kept] = {}
        """In the order in which their sockets broke."""
        self._ended: dict[bytes, tuple[float, Any]] = {}
        """Those that have ended in order, by the same: until when that is remembered, and whose they were."""
        self._sweep: asyncio.TimerHandle | None = None
        self._is_closed = False

    def open(self, inner: Transport, hello: Hello, principal: Any, adopt: Callable[[SessionTransport], Any]) -> None:
        """Answer a client: go on with the session that it asks for, or begin one. Nothing is done for one that is gone.

        Args:
            adopt: called with the transport of a session that is new, before anything of it is read.

        Raises:
            BadFrame: what it asks for makes no sense.
        """
        theirs = limits_of(hello)
        if inner.state is not State.OPEN:
            return
        key = _digest(hello.sid)
        kept = self._known.get(key)
        if kept is not None and not (hmac.compare_digest(kept.sid, hello.sid) and kept.principal == principal):
            kept = None
        if not hello.sid:
            self._begin(inner, hello, theirs, principal, NEW, adopt)
        elif kept is None:
            if self._has_ended(key, principal, inner):
                self._tell_end(inner, hello.sid)
            else:
                self._begin(inner, hello, theirs, principal, UNKNOWN, adopt)
        elif kept.transport.may_go_on and kept.transport.session.may_resume(hello):
            self._resume(kept, kept.transport, inner, hello)
        else:
            kept.transport.detach()
            self._expire(kept, "the client came back, and could not go on")
            self._begin(inner, hello, theirs, principal, LOST, adopt)

    def _begin(
        self,
        inner: Transport,
        hello: Hello,
        theirs: Limits,
        principal: Any,
        status: int,
        adopt: Callable[[SessionTransport], Any],
    ) -> None:
        sid = secrets.token_bytes(SID_BYTES)
        codec = choose_codec(hello.codecs, AVAILABLE)
        session = Session(self._limits, theirs, codec)
        kept = _Kept(_digest(sid), sid, principal)
        self._known[kept.key] = kept
        transport = kept.transport = SessionTransport(
            session, inner, on_detached=lambda _: self._keep(kept), on_ended=lambda: self._forget(kept)
        )
        self._welcome(inner, session, sid, status, 0 if codec is None else codec.value)
        adopt(transport)
        transport.attach(inner)

    def _resume(self, kept: _Kept, transport: SessionTransport, inner: Transport, hello: Hello) -> None:
        self._release(kept)
        transport.detach()
        codec = transport.session.outgoing.codec
        self._welcome(inner, transport.session, kept.sid, RESUMED, 0 if codec is None else codec.value)
        transport.session.resume(hello)
        transport.attach(inner)

    def _tell_end(self, inner: Transport, sid: bytes) -> None:
        """The session was closed in order while the client was away: there is nothing to go on with."""
        self._welcome(inner, Session(self._limits, Limits()), sid, ENDED, 0)
        inner.fail(CloseCode.NORMAL_CLOSURE, "")

    def _welcome(self, inner: Transport, session: Session, sid: bytes, status: int, codec: int) -> None:
        welcome = Welcome(
            sid,
            status,
            session.incoming.rx,
            session.first,
            self._limits.max_frame,
            self._limits.window,
            codec,
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
        if len(self._detached) > self._config.max_detached:
            self._expire_first()
        if self._sweep is None and self._detached:
            self._sweep = transport.loop.call_later(SWEEP_INTERVAL, self._look)

    def _look(self) -> None:
        """See to the bound of bytes; handlers may go on sending while their clients are away."""
        self._sweep = None
        pending = sum(transport.pending_bytes for transport in self._detached)
        while self._detached and pending > self._config.max_detached_bytes:
            pending -= next(iter(self._detached)).pending_bytes
            self._expire_first()
        if self._detached:
            self._sweep = next(iter(self._detached)).loop.call_later(SWEEP_INTERVAL, self._look)

    def _expire_first(self) -> None:
        self._expire(next(iter(self._detached.values())), "too many sessions wait for their clients")

    def _expire(self, kept: _Kept, reason: str = "the client did not come back in time") -> None:
        kept.transport.give_up(reason)

    def _release(self, kept: _Kept) -> None:
        if kept.expiry is not None:
            kept.expiry.cancel()
            kept.expiry = None
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
