"""JSON-RPC 2.0."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from time import monotonic
from typing import Any

from msgspec import Raw

from penstock.errors import CallLost, InvalidReply, PerformanceError, RpcClosed
from penstock.protocols import keys
from penstock.protocols.batching import Batching
from penstock.protocols.calls import (
    Call,
    Event,
    Failed,
    Frame,
    Late,
    Malformed,
    Notified,
    Refused,
    Reply,
    Requested,
    Unsolicited,
    parse,
)
from penstock.protocols.feeds import Feed, Id
from penstock.protocols.jsonrpc import JsonRpc
from penstock.protocols.messages import result_of_event, subscription_of, text_of_method, text_of_params
from penstock.protocols.policy import CachePolicy
from penstock.rpc.answering import Answers, Handler
from penstock.rpc.asking import OWNERS, Gone, Owner
from penstock.rpc.client import GREETING, MAX_CALLS, Client, lost_with, shut_out
from penstock.rpc.consumer import MAX_EVENT_BYTES, MAX_EVENTS, Subscription
from penstock.rpc.feeding import TIMEOUT, Ask, Feeds, Unask
from penstock.rpc.keeping import AnswerCache
from penstock.rpc.link import Link, logger
from penstock.rpc.sources import Lends, Source
from penstock.transport.base import ConnectionClosed, Data

NEVER = CachePolicy({})
"""Keeps nothing by itself."""


class _Request(Call):
    """A call on its way: the first that is sent, and what others are made after if it has to be sent again."""

    policy: CachePolicy = NEVER
    was_sent: bool = False

    @property
    def name(self) -> str:
        return self.method

    def send(self, link: Link[JsonRpc], owner: Owner) -> Call:
        call: Call = self
        if self.was_sent:
            call = link.rpc.add_again(self, now=monotonic())
        else:
            self.was_sent = True
            link.rpc.take(self, now=monotonic())
        call.owner = owner
        link.wake()
        return call

    def may_keep(self, answer: Any) -> bool:
        return self.policy.may_keep(answer)


class _Feeds(Feeds):
    """Subscriptions that a call begins, whose result is their id, and another call ends."""

    def _call(self, link: Link[JsonRpc], feed: Feed, ask: Ask) -> Call:
        call = link.rpc.add(feed.method, feed.params, now=monotonic(), alone=True, owner=ask)
        link.wake()
        return call

    def _uncall(self, link: Link[JsonRpc], method: Any, id: Id) -> Call:  # noqa: A002 - the protocol's word
        call = link.rpc.add(method, [id], now=monotonic(), alone=True, owner=Unask(id))
        link.wake()
        return call

    def _forget(self, link: Link[JsonRpc], call: Call) -> None:
        link.rpc.forget(call, now=monotonic())

    def answered(self, link: Link[JsonRpc], call: Call, event: Reply | Failed | Late) -> None:
        """A subscribe or unsubscribe call is answered."""
        if isinstance(call.owner, Unask):
            self._subs.closed(link, call.owner.id)
        elif isinstance(call.owner, Ask):
            self._opened(link, call.owner.feed, event)
            call.owner.tell()

    def _opened(self, link: Link[JsonRpc], feed: Feed, event: Reply | Failed | Late) -> None:
        if isinstance(event, Failed):
            self._apply(self._subs.refused(feed, link, event.error))
        elif event.raw is not None:
            try:
                id = parse(event.raw)  # noqa: A001 - the protocol's word
                if not isinstance(id, str | int) or isinstance(id, bool):
                    raise InvalidReply(f"{id!r} is no id of a subscription")
            except InvalidReply as exc:
                self._apply(self._subs.refused(feed, link, exc))
            else:
                self._apply(self._subs.opened(feed, link, id))


class Rpc(Client[JsonRpc]):
    """A client of a JSON-RPC 2.0 server; made for a pool's connections, or by `penstock.rpc.connect` for one.

    Many may call at the same time: calls of one iteration of the event loop go out together. Of a pool it takes whole
    connections, returns them when nothing is pending and nothing subscribed for a tenth of a second, and asks for
    another when 64 calls wait on each. When the pool retires one, subscriptions move to another, with a
    `Gap`. Close it with `close` or ``async with``.

    Args:
        pool: where connections come from.
        url: of the server.
        connections: how many it takes at most.
        idempotent: methods that may be sent again when it is not known what became of them.
        batching: which methods go in arrays where the server is faster so; None for no arrays. Clients of one server
            may share it.
        cache: where answers are kept; several clients may share it.
        policy: which answers are kept for how long, where a call does not say.
        on_request: called with the method and parameters of what the server asks, in a task of its own; returns the
            result, or raises `RpcError`. None tells the server that there is no such method.
        on_notification: called with the method and parameters of what the server tells, and no subscription gets;
            nothing else is read meanwhile. What it raises is logged.
        max_calls: that wait for their answers at a time; the next is refused.
        identity: what else tells who asks, such as the certificate in ``ssl``: clients that share a cache share
            answers if URL, headers, subprotocols and this are equal. Those with different ``ssl`` contexts share none
            unless both have one.
        options: ``additional_headers``, ``subprotocols`` and ``ssl``, as for `ConnectionPool.get_connection`.

    Raises:
        ValueError: a bound is no positive number, or there is a policy and no cache.
    """

    _feeds: _Feeds

    def __init__(
        self,
        pool: Lends | Source,
        url: str,
        *,
        connections: int = 4,
        idempotent: Collection[str] = (),
        batching: Batching | None = None,
        cache: AnswerCache | None = None,
        policy: CachePolicy | None = None,
        on_request: Handler | None = None,
        on_notification: Callable[[str, Any], object] | None = None,
        max_calls: int = MAX_CALLS,
        identity: str = "",
        **options: Any,
    ) -> None:
        if isinstance(idempotent, str):
            raise ValueError(f"idempotent={idempotent!r} is one name; give a collection of methods")
        if policy is not None and cache is None:
            raise ValueError("policy= keeps answers in a cache; pass cache=MessageCache(...) as well")
        super().__init__(
            pool,
            url,
            options,
            connections=connections,
            cache=cache,
            max_calls=max_calls,
            identity=identity,
            greeting=GREETING,
        )
        self._feeds = _Feeds(self._links, self._counts)
        self._answers = Answers(self._links, on_request)
        self._on_notification = on_notification
        self._idempotent = frozenset(idempotent)
        self._batching = batching
        self._policy = NEVER if policy is None else policy

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
            params: a list or a dict of what JSON knows, or ``msgspec.Raw`` JSON.
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
            ValueError: ``ttl`` is no number of seconds, or there is no cache to keep it in.
        """
        leading, key = self._leading, None
        if ttl is None:
            ttl = 0.0 if leading is None else self._policy.ttl(method, params)
        elif ttl:
            self._check_ttl(ttl)
        if self._links.is_closed:
            raise RpcClosed
        self._counts.calls += 1
        if ttl and leading is not None and (key := keys.key(method, params, self._who)) is not None:
            found = leading.find(key)
            if found is not None:
                self._counts.cached += 1
                return parse(found)
        again = method in self._idempotent if idempotent is None else idempotent
        request = _Request(method, text_of_method(method), text_of_params(method, params), again, policy=self._policy)
        if key is None:
            return parse((await self._ask(request, timeout)).raw)
        return parse(await self._load(key, request, ttl, timeout))

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
        await self._asking.limited(method, timeout, self._notify(method, params))

    async def _notify(self, method: str, params: Any) -> None:
        link = await self._links.pick()
        with self._links.use(link):
            done = link.put(link.rpc.notify(method, params))
            await asyncio.wait([done])
        if done.cancelled():
            raise CallLost(method, False)
        done.result()

    # Subscriptions

    def subscribe(
        self,
        method: str,
        params: Any = None,
        *,
        unsubscribe: str | None = None,
        resume: bool = True,
        share: bool = False,
        timeout: float | None = TIMEOUT,
        max_events: int = MAX_EVENTS,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> Subscription:
        """The events of a subscription, to be iterated over; it is made when the iteration begins.

        Args:
            unsubscribe: the method that ends it; by default ``method`` with "unsubscribe" for "subscribe".
            resume: after a reconnect subscribe again, and tell of it with a `Gap`; else it ends with `CallLost`.
            share: the server is asked once for all equal ones of this client that say so. Who comes later gets no
                events from before.
            timeout: seconds for the server to accept it; None for no limit.
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
        text = text_of_params(method, params)
        given = None if text is None else Raw(text.encode())
        key = keys.key(method, given, unsubscribe) if share else None
        begin = partial(
            self._feeds.begin,
            method=method,
            params=given,
            unsubscribe=unsubscribe,
            resume=resume,
            key=key,
            timeout=timeout,
        )
        return Subscription(method, begin, self._feeds.end, max_events, max_event_bytes, timeout)

    # What happens on links; penstock's own

    def speak(self, known: Any) -> JsonRpc:
        rpc = known if isinstance(known, JsonRpc) else JsonRpc()
        rpc.batching = self._batching
        return rpc

    def due(self, link: Link[JsonRpc]) -> Sequence[Frame]:
        frames = link.rpc.due(random.random)
        if self._batching is not None:
            self._counts.batched += sum(len(frame.calls) for frame in frames if len(frame.calls) > 1)
        return frames

    def take(self, link: Link[JsonRpc], message: Data) -> None:
        for event in link.rpc.receive(message, now=monotonic()):
            if isinstance(event, Reply):
                call = event.call
                owner = call.owner
                if isinstance(owner, OWNERS):
                    if not owner.done():
                        owner.set_result(event)
                    call.owner = None  # it has the event now: a circle, which only the garbage collector would undo
                    continue
            self._received(link, event)

    def _received(self, link: Link[JsonRpc], event: Event) -> None:
        match event:
            case Reply() | Failed() | Late():
                self._answered(link, event)
            case Notified():
                self._notified(link, event)
            case Requested():
                self._answers.asked(link, event)
            case Refused(error):
                for call in (*event.again, *event.failed):
                    self._settle(call.owner, Gone(True, call.idempotent, error, by_server=True))
            case Unsolicited():
                self._counts.unsolicited += 1
            case Malformed(reason):
                self._counts.malformed += 1
                logger.debug("the server sent what is no JSON-RPC: %s", reason)

    def _answered(self, link: Link[JsonRpc], event: Reply | Failed | Late) -> None:
        owner = event.call.owner
        self._counts.late += isinstance(event, Late)
        if not isinstance(owner, OWNERS):
            self._feeds.answered(link, event.call, event)
        elif isinstance(event, Reply):
            self._settle(owner, event)
        elif isinstance(event, Failed):
            self._fail(owner, event.error)

    def _notified(self, link: Link[JsonRpc], event: Notified) -> None:
        id = subscription_of(event.params)  # noqa: A001 - the protocol's word
        if id is not None and event.params is not None:
            self._feeds.received(link, id, result_of_event(event.params))
            return
        try:
            params = None if event.params is None else parse(event.params)
        except InvalidReply:
            self._counts.malformed += 1
        else:
            self._tell(self._on_notification, event.method, params)

    def _forget(self, link: Link[JsonRpc], call: Call) -> None:
        link.rpc.forget(call, now=monotonic())

    def _lost(self, link: Link[JsonRpc], exc: ConnectionClosed | None) -> Exception:
        for lost in link.rpc.lost():
            owner = lost.call.owner
            if isinstance(owner, OWNERS):
                error = lost_with(lost.call.method, lost.written, exc)
                self._settle(owner, Gone(lost.written, lost.may_send_again, error))
            elif isinstance(owner, Ask):
                owner.tell()
        return shut_out(self.url, exc)
