"""A server's side of sessions: it begins them, keeps those whose socket broke, and hands them back."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from penstock.connection.session import WHOLE, SessionTransport
from penstock.transport.base import Transport
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
    write,
)
from penstock.wire.session import Limits, Session, choose_codec, limits_of

TTL = 90.0
SWEEP_INTERVAL = 1.0
"""Seconds between looks at what detached sessions keep."""


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
    """Bytes of frames, sent and not acknowledged, that all of them keep, likewise."""
    node: str = ""
    """Names this server to a balancer: clients repeat it when they come back."""

    def __post_init__(self) -> None:
        if not isinstance(self.ttl, int | float) or not self.ttl > 0:
            raise ValueError(f"ttl={self.ttl!r}: must be more than 0 seconds")
        for name in ("max_detached", "max_detached_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name}={value!r}: must be a whole number of at least 0")
        if not self.node.isascii() or not self.node.isprintable() or any(mark in self.node for mark in ";, "):
            raise ValueError(f"node={self.node!r}: must be printable ASCII without spaces, commas and semicolons")


class _Kept:
    """A session that this server knows."""

    __slots__ = ("expiry", "key", "principal", "sid", "transport")

    def __init__(self, key: bytes, sid: bytes, principal: Hashable) -> None:
        self.key, self.sid, self.principal = key, sid, principal
        self.transport: SessionTransport | None = None
        """None once it has ended."""
        self.expiry: asyncio.TimerHandle | None = None


class Sessions:
    """All sessions of a server."""

    def __init__(self, config: SessionConfig, limits: Limits) -> None:
        self._config, self._limits = config, limits
        self._known: dict[bytes, _Kept] = {}
        """By a digest of their secret; those that have ended stay for a while."""
        self._detached: dict[SessionTransport, _Kept] = {}
        """In the order in which their sockets broke."""
        self._sweep: asyncio.TimerHandle | None = None

    def open(
        self, inner: Transport, hello: Hello, principal: Hashable, adopt: Callable[[SessionTransport], Any]
    ) -> None:
        """Answer a client: go on with the session that it asks for, or begin one.

        Args:
            adopt: called with the transport of a session that is new, before anything of it is read.

        Raises:
            BadFrame: what it asks for makes no sense.
        """
        theirs = limits_of(hello)
        kept = self._find(hello.sid, principal)
        status = self._status_of(kept, hello)
        if status == RESUMED and kept is not None and kept.transport is not None:
            self._resume(kept, kept.transport, inner, hello)
        else:
            self._begin(inner, hello, theirs, principal, status, adopt)

    def _find(self, sid: bytes, principal: Hashable) -> _Kept | None:
        kept = self._known.get(_digest(sid)) if sid else None
        if kept is None or not hmac.compare_digest(kept.sid, sid) or kept.principal != principal:
            return None
        return kept

    def _status_of(self, kept: _Kept | None, hello: Hello) -> int:
        if not hello.sid:
            return NEW
        if kept is None:
            return UNKNOWN
        if kept.transport is None:
            return ENDED
        return RESUMED if kept.transport.session.may_resume(hello) else LOST

    def _begin(
        self,
        inner: Transport,
        hello: Hello,
        theirs: Limits,
        principal: Hashable,
        status: int,
        adopt: Callable[[SessionTransport], Any],
    ) -> None:
        sid = secrets.token_bytes(SID_BYTES)
        codec = choose_codec(hello.codecs, AVAILABLE)
        session = Session(self._limits, theirs, codec)
        kept = _Kept(_digest(sid), sid, principal)
        self._known[kept.key] = kept
        transport = kept.transport = SessionTransport(
            session, inner, on_detached=lambda _: self._keep(kept), on_ended=lambda _: self._bury(kept)
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
        inner.write(inner.frames.one(WHOLE, write(welcome)))

    # Sessions without a socket

    def _keep(self, kept: _Kept) -> None:
        """The socket broke: wait for the client, for some time."""
        transport = kept.transport
        if transport is None:
            return
        self._detached[transport] = kept
        kept.expiry = transport.loop.call_later(self._config.ttl, self._expire, kept)
        if len(self._detached) > self._config.max_detached:
            self._expire_first()
        if self._sweep is None:
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
        transport = kept.transport
        self._known.pop(kept.key, None)
        if transport is not None:
            transport.give_up(reason)

    def _release(self, kept: _Kept) -> None:
        if kept.expiry is not None:
            kept.expiry.cancel()
            kept.expiry = None
        if kept.transport is not None:
            self._detached.pop(kept.transport, None)

    def _bury(self, kept: _Kept) -> None:
        """The session has ended: know it for some time, to tell a client that comes back."""
        transport = kept.transport
        self._release(kept)
        kept.transport = None
        if transport is not None and kept.key in self._known:
            kept.expiry = transport.loop.call_later(self._config.ttl, self._known.pop, kept.key, None)

    def close(self) -> None:
        """The server closes: sessions without a socket end now."""
        for kept in list(self._detached.values()):
            self._expire(kept, "the server is closing")
        if self._sweep is not None:
            self._sweep.cancel()
        for kept in self._known.values():
            if kept.transport is None and kept.expiry is not None:
                kept.expiry.cancel()


def _digest(sid: bytes) -> bytes:
    return hashlib.sha256(sid).digest()
