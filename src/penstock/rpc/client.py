"""Many callers over few connections."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias

from msgspec import Raw, Struct

from penstock.cache.cache import MessageCache
from penstock.errors import CallLost, CallTimeout, PerformanceError, RpcClosed, TooManyCalls
from penstock.pool.pool import ConnectionPool
from penstock.protocols import keys
from penstock.protocols.batching import Batching
from penstock.protocols.calls import Call, Event, Failed, Late, Lost, Notified, Refused, Reply, Requested, parse
from penstock.protocols.messages import text_of_params
from penstock.protocols.policy import CachePolicy
from penstock.rpc.answering import Answers, Handler
from penstock.rpc.consumer import MAX_EVENT_BYTES, MAX_EVENTS, Subscription
from penstock.rpc.feeding import Ask, Feeds
from penstock.rpc.link import Link, logger
from penstock.rpc.links import Links
from penstock.rpc.sources import Pooled, Source
from penstock.transport.base import ConnectionClosed, Headers

MAX_CALLS = 1024
MAX_SENDS = 3
"""Times that a call is written, if it may be: one that ends each connection that it is sent on has to end as well."""


class _NotKept(Exception):  # noqa: N818 - not raised to applications
    """An answer that all who wait get, and that is not stored."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer


class Rpc:
    """A client of a JSON-RPC 2.0 server; made for a pool's connections, or by `penstock.rpc.connect` for one.

    Many may call at the same time: calls of one iteration of the event loop go out together. Of a pool it takes whole
    connections, returns them when nothing is pending and nothing subscribed for a tenth of a second, and asks for
    another when more than 32 calls wait on each. Close it with `close` or ``async with``.

    Args:
        pool: where connections come from.
        url: of the server.
        protocol: ``"jsonrpc"``.
        connections: how many it takes at most.
        idempotent: methods that may be sent again when it is not known what became of them.
        batching: which methods go in arrays where the server is faster so; None for no arrays. Clients of one server
            may share it.
        cache: where answers are kept; several clients may share it.
        policy: which answers are kept for how long, where a call does not say.
        on_request: called with the method and parameters of what the server asks, in a task of its own; returns the
            result, or raises `RpcError`. None tells the server that there is no such method.
        max_calls: that wait for their answers at a time; the next is refused.
        options: ``additional_headers``, ``subprotocols`` and ``ssl``, as for `ConnectionPool.get_connection`.

    Raises:
        ValueError: a bound is no positive number, the protocol is unknown, or there is a policy and no cache.
    """

    def __init__(
        self,
        pool: ConnectionPool | Source,
        url: str,
        *,
        protocol: str = "jsonrpc",
        connections: int = 4,
        idempotent: Collection[str] = (),
        batching: Batching | None = None,
        cache: MessageCache | None = None,
        policy: CachePolicy | None = None,
        on_request: Handler | None = None,
        max_calls: int = MAX_CALLS,
        **options: Any,
    ) -> None:
        if protocol != "jsonrpc":
            raise ValueError(f"protocol={protocol!r}: must be 'jsonrpc'")
        if isinstance(idempotent, str):
            raise ValueError(f"idempotent={idempotent!r} is one name; give a collection of methods")
        for name, value in (("connections", connections), ("max_calls", max_calls)):
            if value < 1:
                raise ValueError(f"{name}={value!r}: must be at least 1")
        if policy is not None and cache is None:
            raise ValueError("policy= keeps answers in a cache; pass cache=MessageCache(...) as well")
        self._who = _identity(url, options)
        source: Source = Pooled(pool, url, connections, options) if isinstance(pool, ConnectionPool) else pool
        self._links = Links(source, self, batching, lambda: self._feeds.is_used)
        self._feeds = Feeds(self._links)
        self._answers = Answers(self._links, on_request)
        self._idempotent = frozenset(idempotent)
        self._cache, self._policy = cache, CachePolicy({}) if policy is None else policy
        self._max_calls = max_calls
        self._calls: set[asyncio.Future[Any]] = set()
        """Those that wait for an answer."""
        self._pending = 0
        """And those that wait for a connection as well."""

    def __repr__(self) -> str:
        return f"<Rpc {'closed' if self._links.is_closed else 'open'}, {self._pending} calls pending>"

    # Calls

    async def call(
        self,
        method: str,
        params: Any = None,
        *,
        timeout: float | None = 10.0,
        ttl: float | None = None,
        idempotent: bool | None = None,
    ) -> Any:
        """The result of a call.

        It is sent again after its connection was lost if it certainly was not written before, or is idempotent.
        Cancelling is safe: a call that is not written yet never is, and the answer to another is dropped.

        Args:
            params: a list or a dict of what JSON knows, or `msgspec.Raw` JSON.
            timeout: seconds for all of it; None for no limit.
            ttl: seconds for which the answer may be kept, in the client's cache; 0 to ask the server, None to do as
                the policy says. Errors are never kept, and null only where the policy says so.
            idempotent: it may be sent again though it may have been done; None to do as the client says.

        Raises:
            RpcError: the server has answered with an error.
            CallTimeout: it was not answered in time.
            CallLost: the connection was lost, and it was not to be sent again.
            TooManyCalls: too many wait; it was not sent.
            SerializationError: it is no JSON; it was not sent.
            InvalidReply: an answer that Python cannot hold.
            RpcClosed: the client is closed.
            ConnectionFailed, PoolExhausted: there is no connection; likewise what `penstock.connect` raises.
            ValueError: a ``ttl``, and no cache to keep it in.
        """
        if self._links.is_closed:
            raise RpcClosed
        kept = self._seconds(method, params, ttl)
        again = method in self._idempotent if idempotent is None else idempotent
        try:
            async with asyncio.timeout(timeout) as deadline:
                key = keys.key(method, params, self._who) if kept else None
                if key is None:
                    return (await self._ask(method, params, idempotent=again)).value()
                return parse(Raw(await self._find(key, method, params, kept, idempotent=again)))
        except TimeoutError as exc:
            if timeout is None or not deadline.expired():
                raise
            raise CallTimeout(method, timeout) from exc

    async def batch(
        self, calls: Iterable[tuple[str, Any] | str], *, timeout: float | None = 10.0
    ) -> list[Any | PerformanceError | OSError]:
        """The results of several calls that go out together, in order; in place of a result what its call raised.

        Whether they share arrays is for ``batching`` to say. Cancelling is safe, as for `call`.

        Args:
            calls: each a method and its parameters, or a method alone.
            timeout: seconds for each.
        """
        asked = [(one, None) if isinstance(one, str) else one for one in calls]
        tasks = [self.call(method, params, timeout=timeout) for method, params in asked]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, PerformanceError | OSError):
                raise result
        return results

    async def notify(self, method: str, params: Any = None, *, timeout: float | None = 10.0) -> None:
        """Send what is not answered; returns when it is accepted for sending. Cancelling it may be too late.

        Raises:
            CallTimeout, CallLost, SerializationError, RpcClosed, ConnectionFailed, PoolExhausted: as `call`.
        """
        try:
            async with asyncio.timeout(timeout) as deadline:
                link = await self._links.pick()
                with _Use(self._links, link):
                    done = link.notify(method, params)
                    await asyncio.wait([done])
        except TimeoutError as exc:
            if timeout is None or not deadline.expired():
                raise
            raise CallTimeout(method, timeout) from exc
        if done.cancelled():
            raise CallLost(method, False)
        done.result()

    def _seconds(self, method: str, params: Any, ttl: float | None) -> float:
        if ttl is None:
            return self._policy.ttl(method, params) if self._cache is not None else 0.0
        if ttl and self._cache is None:
            raise ValueError(
                f"ttl={ttl!r}: there is no cache to keep it in; pass cache=MessageCache(...) to the client"
            )
        return ttl

    async def _find(self, key: str, method: str, params: Any, ttl: float, *, idempotent: bool) -> bytes:
        """The answer as JSON, from the cache or of one call for all who ask for it, whatever becomes of any of them."""
        assert self._cache is not None
        load = partial(self._load, method, params, idempotent=idempotent)
        try:
            return await self._cache.get_or_load(key, load, ttl)
        except _NotKept as exc:
            return exc.answer

    async def _load(self, method: str, params: Any, *, idempotent: bool) -> bytes:
        reply = await self._ask(method, params, idempotent=idempotent)
        answer = bytes(reply.raw)
        if not self._policy.may_keep(reply):
            raise _NotKept(answer)
        return answer

    async def _ask(self, method: str, params: Any, *, idempotent: bool) -> Reply:
        if self._pending >= self._max_calls:
            raise TooManyCalls(self._pending, self._max_calls)
        self._pending += 1
        try:
            return await self._ask_until_answered(Call(method, "", None, idempotent), params)
        finally:
            self._pending -= 1

    async def _ask_until_answered(self, call: Call, params: Any) -> Reply:
        """Send a call, and again for as long as that may be done."""
        sends = 0
        while True:
            link = await self._links.pick()
            with _Use(self._links, link):
                call, event = await self._send(link, call, params, is_new=not call.name)
            if isinstance(event, Reply):
                return event
            if isinstance(event, Failed):
                raise event.error
            sends += call.written
            if isinstance(event, Refused):
                if call in event.failed or sends >= MAX_SENDS:
                    raise event.error
            elif self._links.is_closed:
                raise RpcClosed
            elif not event.lost.may_send_again or sends >= MAX_SENDS:
                closed = event.exc
                rcvd, sent = (None, None) if closed is None else (closed.rcvd, closed.sent)
                raise CallLost(call.method, event.lost.written, rcvd, sent) from closed

    async def _send(self, link: Link, call: Call, params: Any, *, is_new: bool) -> tuple[Call, _Settled]:
        """Send a call on a link; what becomes of it there."""
        settled: asyncio.Future[_Settled] = asyncio.get_running_loop().create_future()
        if is_new:
            call = link.add(call.method, params, settled, idempotent=call.idempotent)
        else:
            call = link.add_again(call, settled)
        try:
            return call, await settled
        except asyncio.CancelledError:
            link.forget(call)
            raise

    # Subscriptions

    def subscribe(
        self,
        method: str,
        params: Any = None,
        *,
        unsubscribe: str | None = None,
        resume: bool = True,
        max_events: int = MAX_EVENTS,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> Subscription:
        """The events of a subscription, to be iterated over; it is made when the iteration begins.

        Args:
            unsubscribe: the method that ends it; by default ``method`` with "unsubscribe" for "subscribe".
            resume: after a reconnect subscribe again, and tell of it with a `Gap`; else it ends with `CallLost`.
            max_events: that wait to be taken; at the next it ends with `ConsumerTooSlow`.
            max_event_bytes: the same, of all that wait. One event may be longer.

        Raises:
            SerializationError: the parameters are no JSON.
            ValueError: a bound is not positive, or there is no telling what ends it.
        """
        if unsubscribe is None:
            unsubscribe = method.replace("subscribe", "unsubscribe")
            if unsubscribe == method:
                raise ValueError(f"pass unsubscribe=, the method that ends what {method} begins")
        for name, value in (("max_events", max_events), ("max_event_bytes", max_event_bytes)):
            if value < 1:
                raise ValueError(f"{name}={value!r}: must be at least 1")
        text = text_of_params(method, params)
        given = None if text is None else Raw(text.encode())
        begin = partial(self._feeds.begin, method=method, params=given, unsubscribe=unsubscribe, resume=resume)
        return Subscription(method, begin, self._feeds.end, max_events, max_event_bytes)

    # What happens on links; penstock's own

    def received(self, link: Link, event: Event) -> None:
        """A link tells what the server says."""
        match event:
            case Reply(call) | Failed(call) | Late(call):
                if isinstance(call.owner, asyncio.Future):
                    _settle(call, event)
                else:
                    self._feeds.answered(link, call, event)
            case Refused():
                for call in (*event.again, *event.failed):
                    _settle(call, event)
            case Notified():
                self._feeds.notified(link, event)
            case Requested():
                self._answers.asked(link, event)
            case _:  # counted by the protocol, and nobody's
                logger.debug("the server sent %r", event)

    def lost(self, link: Link, calls: Sequence[Lost], exc: ConnectionClosed | None) -> None:
        """A link has ended."""
        self._links.drop(link)
        for lost in calls:
            if isinstance(lost.call.owner, asyncio.Future):
                _settle(lost.call, _LostWith(lost, exc))
            elif isinstance(lost.call.owner, Ask):
                lost.call.owner.tell()
        rcvd, sent = (None, None) if exc is None else (exc.rcvd, exc.sent)
        self._feeds.lost(link, CallLost("a subscription", True, rcvd, sent))

    # The end

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
        await self._links.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class _LostWith(Struct, frozen=True):
    """A call was lost, and what ended the connection."""

    lost: Lost
    exc: ConnectionClosed | None


_Settled: TypeAlias = Reply | Failed | Refused | _LostWith


class _Use:
    """Somebody waits on a link."""

    def __init__(self, links: Links, link: Link) -> None:
        self._links, self._link = links, link

    def __enter__(self) -> None:
        self._link.users += 1
        self._link.uses += 1

    def __exit__(self, *_: object) -> None:
        self._link.users -= 1
        if not self._link.users:
            self._links.unused(self._link)


def _settle(call: Call, event: _Settled | Late) -> None:
    future = call.owner
    if not future.done():
        future.set_result(event)


def _identity(url: str, options: dict[str, Any]) -> str:
    """Who asks; answers are shared by equal ones."""
    headers = Headers(options.get("additional_headers") or ()).raw_items()
    return keys.identity(url, ",".join(options.get("subprotocols") or ()), headers)
