"""A client's subscriptions: asked for, asked for again after a reconnect, ended."""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any
from weakref import WeakValueDictionary

from msgspec import Raw

from penstock.errors import CallTimeout, CertificateRefused, ConnectionDenied, RpcClosed
from penstock.protocols.feeds import (
    Confirmed,
    Delivered,
    Ended,
    Feed,
    FeedStage,
    Gap,
    Id,
    Outcome,
    Subscribe,
    Subscription,
    SubscriptionStats,
    Unsubscribe,
)
from penstock.protocols.subscriptions import Subscriptions
from penstock.rpc import consumer
from penstock.rpc.link import Link
from penstock.rpc.links import Links
from penstock.rpc.pacing import quick
from penstock.rpc.stats import Counts

TIMEOUT = 10.0
"""Seconds for a server to accept a subscription; and to confirm its end, where nobody waits."""
APART = 0.1
"""Seconds within which subscriptions are made again, so that a server is not asked for all at once."""


class Ask:
    """Who waits for the reply to a subscribe call."""

    def __init__(self, feed: Feed, done: asyncio.Future[None]) -> None:
        self.feed, self.done = feed, done

    def tell(self) -> None:
        """There is nothing to wait for any more."""
        if not self.done.done():
            self.done.set_result(None)


class Unask:
    """What the reply to an unsubscribe call is for."""

    def __init__(self, id: Id) -> None:  # noqa: A002 - the protocol's word
        self.id = id


class Feeds(ABC):
    """All of one client; each protocol has its own way to begin and to end one."""

    def __init__(self, links: Links[Any], counts: Counts) -> None:
        self._links, self._counts = links, counts
        self._subs = Subscriptions()
        self._consumers: WeakValueDictionary[Id, consumer.Subscription] = WeakValueDictionary()

    def is_on(self, link: Link[Any]) -> bool:
        """Whether anything is subscribed on a link."""
        return self._subs.is_used(link)

    def stats(self) -> SubscriptionStats:
        """Counts until now."""
        return self._subs.stats()

    # For consumers

    def begin(
        self,
        taker: consumer.Subscription,
        method: str,
        params: Any,
        unsubscribe: Any,
        *,
        resume: bool,
        key: Hashable,
        timeout: float | None,
    ) -> Subscription:
        """Subscribe; the consumer is told of everything, for as long as somebody holds it."""
        if self._links.is_closed:
            raise RpcClosed
        subscription, outcomes = self._subs.subscribe(
            method, params, unsubscribe=unsubscribe, owner=None, key=key, resumes=resume, timeout=timeout
        )
        self._consumers[subscription.id] = taker
        self._apply(outcomes)
        return subscription

    def end(self, subscription: Subscription) -> None:
        """A consumer wants no more."""
        self._apply(self._subs.unsubscribe(subscription))
        self._links.tidy()

    def close(self) -> None:
        """The client is closed."""
        for taker in list(self._consumers.values()):
            taker.finish(RpcClosed())

    def _apply(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Subscribe(feed):
                    if not self._links.is_closed:
                        self._links.spawn(self._subscribe(feed))
                case Unsubscribe(link, method, id):
                    assert isinstance(link, Link)
                    if not link.is_lost:
                        self._unask(link, method, id)
                case _:
                    self._tell(outcome)

    def _tell(self, outcome: Confirmed | Delivered | Gap | Ended) -> None:
        taker = self._consumers.get(outcome.subscription.id)
        if taker is None:
            return
        match outcome:
            case Confirmed():
                taker.confirm()
            case Delivered(subscription, payload):
                self._put(taker, subscription, payload)
            case Gap(subscription, reason):
                self._put(taker, subscription, consumer.Gap(reason))
            case Ended(_, error):
                taker.finish(error)

    def _put(self, taker: consumer.Subscription, subscription: Subscription, event: Raw | consumer.Gap) -> None:
        error = taker.put(event)
        if error is None:
            self._counts.events += not isinstance(event, consumer.Gap)
            return
        self._counts.too_slow += 1
        del self._consumers[subscription.id]
        taker.finish(error)
        self.end(subscription)

    # The server

    async def _subscribe(self, feed: Feed) -> None:
        again = any(subscription.is_confirmed for subscription in feed.subscriptions.values())
        delays = quick()
        if again:
            await asyncio.sleep(random.random() * APART)  # noqa: S311 - no secret
        while feed.stage is FeedStage.UNASKED:
            try:
                async with asyncio.timeout(feed.timeout):
                    link = await self._links.pick()
            except RpcClosed:
                return
            except Exception as exc:  # noqa: BLE001 - told to the consumers
                if again and isinstance(exc, OSError) and not isinstance(exc, ConnectionDenied | CertificateRefused):
                    await asyncio.sleep(next(delays))
                else:
                    self._apply(self._subs.refused(feed, None, exc))
            else:
                if feed.stage is FeedStage.UNASKED:  # somebody wants it still
                    await self._ask(link, feed)
                return  # whether it is to be asked for once more is told by what became of this

    async def _ask(self, link: Link[Any], feed: Feed) -> None:
        """Ask for a feed, and wait until the server has answered."""
        ask = Ask(feed, asyncio.get_running_loop().create_future())
        with self._links.use(link):
            call = self._call(link, feed, ask)
            self._subs.asked(feed, link)  # before any reply can come
            try:
                async with asyncio.timeout(feed.timeout):
                    await ask.done
            except TimeoutError:
                self._forget(link, call)
                self._apply(self._subs.refused(feed, link, CallTimeout(feed.method, feed.timeout or 0.0)))

    def _unask(self, link: Link[Any], method: Any, id: Id) -> None:  # noqa: A002 - the protocol's word
        """Have the server end a feed."""
        call = self._uncall(link, method, id)
        if call is not None:
            asyncio.get_running_loop().call_later(TIMEOUT, self._forget, link, call)

    def unsent(self, link: Link[Any], call: Any, exc: Exception) -> None:
        """A call could not be sent."""
        if isinstance(call.owner, Ask):
            self._apply(self._subs.refused(call.owner.feed, link, exc))
            call.owner.tell()

    def received(self, link: Link[Any], id: Id, payload: Raw) -> None:  # noqa: A002 - the protocol's word
        """An event."""
        self._apply(self._subs.received(link, id, payload))

    def lost(self, link: Link[Any], error: Exception) -> None:
        """A link is lost, and with it what was subscribed on it."""
        self._apply(self._subs.lost(link, error))

    # How a protocol does it

    @abstractmethod
    def _call(self, link: Link[Any], feed: Feed, ask: Ask) -> Any:
        """Send the call that asks for a feed, with `ask` as its owner."""

    @abstractmethod
    def _uncall(self, link: Link[Any], method: Any, id: Id) -> Any:  # noqa: A002 - the protocol's word
        """Send the call that ends a feed, with an `Unask` as its owner; None if no answer comes."""

    @abstractmethod
    def _forget(self, link: Link[Any], call: Any) -> None:
        """Nobody waits for the answer to a call any more."""
