"""What clients of all protocols have in common: many callers over few connections."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from penstock.errors import (
    CallLost,
    ConnectionFailed,
    RpcClosed,
)
from penstock.protocols.calls import Frame
from penstock.rpc.asking import OWNERS, Asking, Gone, Request
from penstock.rpc.feeding import Feeds
from penstock.rpc.identity import identity_of
from penstock.rpc.keeping import Answer, AnswerCache, Keeping
from penstock.rpc.leading import Leading
from penstock.rpc.link import Link, S
from penstock.rpc.links import Links
from penstock.rpc.sources import Lends, Pooled, Source
from penstock.rpc.stats import Counts, RpcStats
from penstock.transport.base import ConnectionClosed, Data

logger = logging.getLogger("penstock.rpc")

MAX_CALLS = 1024
GREETING = 10.0
"""Seconds for a server to let a client in."""

R = TypeVar("R")


class Client(ABC, Generic[S]):
    """Calls over a pool's connections, or over one; see `penstock.Rpc`.

    Args:
        pool: where connections come from.
        url: of the server.
        options: of connections.
        connections: how many it takes at most.
        cache: where answers are kept.
        max_calls: that wait for their answers at a time.
        identity: what else tells who asks, beside URL, headers and subprotocol.
        greeting: seconds for a server to let it in.
    """

    SUBPROTOCOLS: ClassVar[Sequence[str]] = ()
    IS_REUSABLE: ClassVar[bool] = True
    """Connections may be lent to others afterwards."""

    _feeds: Feeds

    def __init__(
        self,
        pool: Lends | Source,
        url: str,
        options: Mapping[str, Any],
        *,
        connections: int = 4,
        cache: AnswerCache | None = None,
        max_calls: int = MAX_CALLS,
        identity: str = "",
        greeting: float = GREETING,
    ) -> None:
        for name, value in (("connections", connections), ("max_calls", max_calls)):
            if value < 1:
                raise ValueError(f"{name}={value!r}: must be at least 1")
        options = with_subprotocols(type(self), options)
        self._url = url
        self._who = identity_of(url, options, identity)
        source: Source
        if isinstance(pool, Lends):
            source = Pooled(pool, url, connections, options, is_reusable=self.IS_REUSABLE)
        else:
            source = pool
        self._links: Links[S] = Links(source, self, greeting)
        self._counts = Counts()
        self._asking: Asking[S] = Asking(self._links, self._counts, self._forget, max_calls)
        self._ask = self._asking.ask
        self._leading = None if cache is None else Leading(self._asking, Keeping(cache, self._counts))

    def __repr__(self) -> str:
        state = "closed" if self._links.is_closed else "open"
        return f"<{type(self).__name__} {state}, {self._asking.pending} calls pending>"

    # Calls

    def _admit(self) -> None:
        if self._links.is_closed:
            raise RpcClosed
        self._counts.calls += 1

    def _check_ttl(self, ttl: float | None) -> None:
        if ttl is None:
            return
        if not isinstance(ttl, int | float) or not ttl >= 0:
            raise ValueError(f"ttl={ttl!r}: must be a number of seconds; 0 asks the server")
        if ttl and self._leading is None:
            raise ValueError(
                f"ttl={ttl!r}: there is no cache to keep it in; pass cache=MessageCache(...) to the client"
            )

    def _find(self, key: str) -> bytes | None:
        """The answer as JSON, if the cache has it."""
        assert self._leading is not None
        found = self._leading.find(key)
        if found is not None:
            self._counts.cached += 1
        return found

    def _load(self, key: str, request: Request[S], ttl: float, timeout: float | None) -> Coroutine[Any, Any, bytes]:
        """The answer as JSON, in time: of one call for all who ask for it."""
        assert self._leading is not None
        return self._leading.load(key, request, ttl, timeout)

    # What happens on links; penstock's own

    @abstractmethod
    def speak(self, known: Any) -> S:
        """The protocol's state for a connection; ``known`` is what it had when it was used before, if it was."""

    @abstractmethod
    def due(self, link: Link[S]) -> Sequence[Frame]:
        """What is to be sent now."""

    @abstractmethod
    def take(self, link: Link[S], message: Data) -> None:
        """What the server says."""

    @abstractmethod
    def _forget(self, link: Link[S], call: Any) -> None:
        """Nobody wants the answer to a call any more."""

    @abstractmethod
    def _lost(self, link: Link[S], exc: ConnectionClosed | None) -> Exception:
        """Tell whose calls are gone with a link; why calls were never possible on it, if they were not."""

    def needs(self, link: Link[S]) -> bool:
        """Whether a link is to be kept though nobody waits for an answer."""
        return self._feeds.is_on(link)

    def leave(self, link: Link[S]) -> None:
        """A link is no longer fit: subscriptions move to another."""
        self._feeds.lost(link, CallLost("a subscription", True))

    def unsent(self, link: Link[S], call: Any, exc: Exception) -> None:
        """A call could not be sent, and is over."""
        if not isinstance(call.owner, OWNERS):
            self._feeds.unsent(link, call, exc)
        elif not call.owner.done():
            call.owner.set_exception(exc)

    def lost(self, link: Link[S], exc: ConnectionClosed | None) -> None:
        """A link has ended."""
        self._links.lost(link)
        link.refuse(self._lost(link, exc))
        self._feeds.lost(link, lost_with("a subscription", True, exc))

    def _settle(self, owner: object, outcome: Answer | Gone) -> None:
        if isinstance(owner, OWNERS) and not owner.done():
            owner.set_result(outcome)

    def _fail(self, owner: object, error: Exception) -> None:
        if isinstance(owner, OWNERS) and not owner.done():
            owner.set_exception(error)

    def _tell(self, callback: Callable[..., object] | None, *args: Any) -> None:
        """The server has sent something by itself."""
        self._counts.notifications += 1
        if callback is not None:
            try:
                callback(*args)
            except Exception:
                logger.exception("the callback for the server's messages failed")

    # What it is, and its end

    @property
    def url(self) -> str:
        """Of the server."""
        return self._url

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._links.is_closed

    def stats(self) -> RpcStats:
        """What it has, and has done so far."""
        return self._counts.snapshot(len(self._links), self._links.opened, self._asking.pending, self._feeds.stats())

    async def open(self) -> Self:
        """Have a connection, which calls would else wait for.

        Raises:
            ConnectionFailed, PoolExhausted: there is none; likewise what `penstock.connect` raises.
            RpcClosed: the client is closed.
        """
        self._links.unused(await self._links.pick())
        return self

    async def close(self) -> None:
        """End all calls and subscriptions with `RpcClosed`, then close the connection, or return what is the pool's.

        Cancelling ends the waiting, not the closing. Calling it again waits as well.
        """
        self._feeds.close()
        try:
            await self._links.close()
        finally:
            if self._leading is not None:
                self._leading.close()
            self._asking.deadlines.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def lost_with(name: str, written: bool, exc: ConnectionClosed | None) -> CallLost:
    """That something ended with its connection, and how that was closed."""
    rcvd, sent = (None, None) if exc is None else (exc.rcvd, exc.sent)
    error = CallLost(name, written, rcvd, sent)
    error.__cause__ = exc
    return error


def shut_out(url: str, exc: ConnectionClosed | None) -> ConnectionFailed:
    """That a server hung up before it let the client in."""
    error = ConnectionFailed(url, f"closed before calls could be sent: {exc or 'given up'}")
    error.__cause__ = exc
    return error


def with_subprotocols(client: type[Client[Any]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a connection on which a protocol is spoken."""
    given = dict(options)
    if client.SUBPROTOCOLS:
        given.setdefault("subprotocols", list(client.SUBPROTOCOLS))
    return given
