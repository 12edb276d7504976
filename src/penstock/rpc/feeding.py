"""A client's subscriptions: asked for, asked for again after a reconnect, ended."""

from __future__ import annotations

import asyncio
import random
from weakref import WeakValueDictionary

from msgspec import Raw

from penstock.errors import CallTimeout, CertificateRefused, ConnectionDenied, InvalidReply, RpcClosed
from penstock.protocols.calls import Call, Failed, Late, Notified, Reply, parse
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
    Unsubscribe,
)
from penstock.protocols.messages import result_of_event, subscription_of
from penstock.protocols.subscriptions import Subscriptions
from penstock.rpc import consumer
from penstock.rpc.link import Link
from penstock.rpc.links import Links
from penstock.rpc.sources import quick

TIMEOUT = 10.0
"""Seconds for a server to answer a subscribe call, and for a connection to be had."""
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


class Feeds:
    """All of one client."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._subs = Subscriptions()
        self._consumers: WeakValueDictionary[Id, consumer.Subscription] = WeakValueDictionary()

    @property
    def is_used(self) -> bool:
        """Whether there is any subscription."""
        return self._subs.stats().subscriptions > 0

    # For consumers

    def begin(
        self, taker: consumer.Subscription, method: str, params: Raw | None, unsubscribe: str, *, resume: bool
    ) -> Subscription:
        """Subscribe; the consumer is told of everything, for as long as somebody holds it."""
        if self._links.is_closed:
            raise RpcClosed
        subscription, outcomes = self._subs.subscribe(
            method, params, unsubscribe=unsubscribe, owner=None, resumes=resume
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
                        link.add(method, [id], Unask(id), alone=True)
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
        if error is not None:
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
                async with asyncio.timeout(TIMEOUT):
                    link = await self._links.pick()
            except RpcClosed:
                return
            except Exception as exc:  # noqa: BLE001 - told to the consumers
                if again and isinstance(exc, OSError) and not isinstance(exc, ConnectionDenied | CertificateRefused):
                    await asyncio.sleep(next(delays))
                else:
                    self._apply(self._subs.refused(feed, None, exc))
            else:
                await self._ask(feed, link)
                return  # whether it is to be asked for once more is told by what became of this

    async def _ask(self, feed: Feed, link: Link) -> None:
        ask = Ask(feed, asyncio.get_running_loop().create_future())
        call = link.add(feed.method, feed.params, ask, alone=True)
        self._subs.asked(feed, link)  # before any reply can come
        try:
            async with asyncio.timeout(TIMEOUT):
                await ask.done
        except TimeoutError:
            link.forget(call)
            self._apply(self._subs.refused(feed, link, CallTimeout(feed.method, TIMEOUT)))

    def answered(self, link: Link, call: Call, event: Reply | Failed | Late) -> None:
        """A subscribe or unsubscribe call is answered."""
        if isinstance(call.owner, Unask):
            self._subs.closed(link, call.owner.id)
        elif isinstance(call.owner, Ask):
            self._apply(self._opened(link, call.owner.feed, event))
            call.owner.tell()

    def _opened(self, link: Link, feed: Feed, event: Reply | Failed | Late) -> list[Outcome]:
        if isinstance(event, Failed):
            return self._subs.refused(feed, link, event.error)
        if event.raw is None:
            return []
        try:
            id = parse(event.raw)  # noqa: A001 - the protocol's word
        except InvalidReply as exc:
            return self._subs.refused(feed, link, exc)
        if isinstance(id, str | int) and not isinstance(id, bool):
            return self._subs.opened(feed, link, id)
        return self._subs.refused(feed, link, InvalidReply(f"{id!r} is no id of a subscription"))

    def notified(self, link: Link, event: Notified) -> None:
        """The server tells something; events of subscriptions go to their consumers."""
        id = subscription_of(event.params)  # noqa: A001 - the protocol's word
        if id is not None and event.params is not None:
            self._apply(self._subs.received(link, id, result_of_event(event.params)))

    def lost(self, link: Link, error: Exception) -> None:
        """A link is lost, and with it what was subscribed on it."""
        self._apply(self._subs.lost(link, error))
