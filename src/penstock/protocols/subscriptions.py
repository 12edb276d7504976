"""Who gets which events: subscriptions of many consumers, over connections that come and go. Pure.

Every change returns what is to be done and told, in order. A subscription keeps its id for life; the server's id is
known by its connection and itself, because two connections may have the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from msgspec import Raw

from penstock.protocols.feeds import (
    Confirmed,
    Connection,
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

MAX_EARLY, MAX_EARLY_BYTES = 1000, 4 * 1024 * 1024
"""Events that a connection keeps until the reply to the subscribe call that they belong to."""


def hexadecimal(number: int) -> str:
    """Ids as Ethereum nodes give them."""
    return f"0x{number:x}"


class _Link:
    """What is known of one connection."""

    def __init__(self) -> None:
        self.open: dict[Id, dict[Feed, None]] = {}
        """A server may give equal subscriptions one id."""
        self.asked: dict[Feed, None] = {}
        self.closing: set[Id] = set()
        """Ids that were given up; their events come until the server has answered, and are nobody's."""
        self.early: deque[tuple[Id, Raw]] = deque()
        self.early_bytes = 0
        self.overflowed: set[Id] = set()
        """Ids of which early events were dropped."""


class Subscriptions:
    """All of one server and identity.

    Args:
        make_id: the id of the n-th subscription, as the server's own look.
        max_early: events that a connection keeps until the reply to the subscribe call that they belong to.
        max_early_bytes: and their size.
    """

    def __init__(
        self,
        make_id: Callable[[int], Id] = hexadecimal,
        *,
        max_early: int = MAX_EARLY,
        max_early_bytes: int = MAX_EARLY_BYTES,
    ) -> None:
        self._make_id = make_id
        self._max_early, self._max_early_bytes = max_early, max_early_bytes
        self._number = 0
        self._subscriptions: dict[Id, Subscription] = {}
        self._feeds: dict[Feed, None] = {}
        self._shared: dict[Hashable, Feed] = {}
        self._links: dict[Connection, _Link] = {}
        self._early = self._early_dropped = self._unsolicited = self._gaps = 0

    # Consumers

    def subscribe(
        self,
        method: str,
        params: Any,
        *,
        unsubscribe: Any,
        owner: Hashable,
        key: Hashable = None,
        resumes: bool = True,
        timeout: float | None = 10.0,
    ) -> tuple[Subscription, list[Outcome]]:
        """Take a consumer.

        Args:
            unsubscribe: the method that ends it, its parameter being the server's id; or whatever does.
            owner: who may unsubscribe it.
            key: what equal subscriptions share; None to share nothing.
            resumes: go on after a reconnect, with a `Gap`; else it ends with its connection.
            timeout: seconds for the server to accept it; of consumers that share, the first one's.
        """
        feed = None if key is None else self._shared.get(key)
        outcomes: list[Outcome] = []
        if feed is None:
            feed = Feed(key, method, params, unsubscribe, {}, timeout=timeout)
            self._feeds[feed] = None
            if key is not None:
                self._shared[key] = feed
            outcomes.append(Subscribe(feed))
        self._number += 1
        subscription = Subscription(self._make_id(self._number), owner, feed, resumes)
        self._subscriptions[subscription.id] = feed.subscriptions[subscription.id] = subscription
        if feed.stage is FeedStage.OPEN:
            subscription.is_confirmed = True
            outcomes.append(Confirmed(subscription))
        return subscription, outcomes

    def find(self, id: Id, owner: Hashable) -> Subscription | None:  # noqa: A002 - the protocol's word
        """The subscription of that id, if it is the owner's own."""
        subscription = self._subscriptions.get(id)
        if subscription is None or subscription.owner != owner or type(subscription.id) is not type(id):
            return None
        return subscription

    def unsubscribe(self, subscription: Subscription) -> list[Outcome]:
        """A consumer wants no more; nothing more is told of it. The last one of a feed ends it at the server."""
        if self._subscriptions.get(subscription.id) is not subscription:
            return []
        return self._remove(subscription)

    def _remove(self, subscription: Subscription) -> list[Outcome]:
        feed = subscription.feed
        del self._subscriptions[subscription.id], feed.subscriptions[subscription.id]
        return [] if feed.subscriptions else self._end(feed)

    def _end(self, feed: Feed) -> list[Outcome]:
        """Nobody wants a feed any more. One that was asked for is ended when the server has told its id."""
        del self._feeds[feed]
        if feed.key is not None:
            del self._shared[feed.key]
        stage, feed.stage = feed.stage, FeedStage.ENDED
        if stage is not FeedStage.OPEN or feed.id is None or feed.connection is None:
            return []
        link = self._links[feed.connection]
        del link.open[feed.id][feed]
        if link.open[feed.id]:
            return []
        del link.open[feed.id]
        link.closing.add(feed.id)
        return [Unsubscribe(feed.connection, feed.unsubscribe, feed.id)]

    def is_used(self, connection: Connection) -> bool:
        """Whether anything is subscribed on a connection, or was asked for."""
        link = self._links.get(connection)
        return link is not None and bool(link.open or link.asked)

    # The server

    def asked(self, feed: Feed, connection: Connection) -> None:
        """The subscribe call of a feed is being sent, on this connection: to be told before any reply can come."""
        if feed.stage is FeedStage.UNASKED:
            feed.stage, feed.connection = FeedStage.ASKED, connection
            self._links.setdefault(connection, _Link()).asked[feed] = None

    def opened(self, feed: Feed, connection: Connection, id: Id) -> list[Outcome]:  # noqa: A002 - as above
        """The server has accepted a feed; also to be told when the reply comes too late to be of use."""
        link = self._links.setdefault(connection, _Link())
        asked = feed in link.asked
        link.asked.pop(feed, None)
        if feed.stage is not FeedStage.ASKED or not asked or feed.connection != connection:
            self._drop_early(link, id)
            if id in link.open:
                return []
            link.closing.add(id)
            return [Unsubscribe(connection, feed.unsubscribe, id)]
        feed.stage, feed.id = FeedStage.OPEN, id
        link.open.setdefault(id, {})[feed] = None
        outcomes: list[Outcome] = []
        for subscription in feed.subscriptions.values():
            if not subscription.is_confirmed:
                subscription.is_confirmed = True
                outcomes.append(Confirmed(subscription))
            if id in link.overflowed and subscription.gap is None:
                subscription.gap = "overflow"
            if subscription.gap is not None:
                self._gaps += 1
                outcomes.append(Gap(subscription, subscription.gap))
                subscription.gap = None
        for payload in self._drop_early(link, id):
            outcomes += [Delivered(subscription, payload) for subscription in feed.subscriptions.values()]
        return outcomes

    def refused(self, feed: Feed, connection: Connection, error: Exception) -> list[Outcome]:
        """The server has refused a feed, or the subscribe call was given up: all its consumers have their end.

        Not to be told of a call whose connection is `lost`.
        """
        link = self._links.get(connection)
        if link is not None and feed in link.asked:
            del link.asked[feed]
            self._forget_early(link)
        return self._end_all(feed, error) if feed.connection == connection else []

    def completed(self, connection: Connection, id: Id, error: Exception | None = None) -> list[Outcome]:  # noqa: A002
        """The server has ended a feed by itself."""
        link = self._links.get(connection)
        outcomes: list[Outcome] = []
        for feed in link.open.pop(id, ()) if link is not None else ():
            feed.stage = FeedStage.UNASKED  # nothing to unsubscribe
            outcomes += self._end_all(feed, error)
        return outcomes

    def _end_all(self, feed: Feed, error: Exception | None) -> list[Outcome]:
        if feed.stage is FeedStage.ENDED:
            return []
        ended = list(feed.subscriptions.values())
        outcomes: list[Outcome] = [Ended(subscription, error) for subscription in ended]
        for subscription in ended:
            outcomes += self._remove(subscription)
        return outcomes

    def closed(self, connection: Connection, id: Id) -> None:  # noqa: A002 - as above
        """The server has answered an unsubscribe: the id may be another's from now on."""
        link = self._links.get(connection)
        if link is not None:
            link.closing.discard(id)

    def received(self, connection: Connection, id: Id, payload: Raw) -> list[Outcome]:  # noqa: A002 - as above
        """An event; kept if its subscribe call may be one that is not answered yet."""
        link = self._links.get(connection)
        feeds = None if link is None else link.open.get(id)
        if feeds is not None:
            return [Delivered(subscription, payload) for feed in feeds for subscription in feed.subscriptions.values()]
        if link is None or not link.asked or id in link.closing:
            self._unsolicited += 1
            return []
        link.early.append((id, payload.copy()))
        link.early_bytes += len(memoryview(payload))
        self._early += 1
        while len(link.early) > self._max_early or link.early_bytes > self._max_early_bytes:
            dropped, old = link.early.popleft()
            link.early_bytes -= len(memoryview(old))
            link.overflowed.add(dropped)
            self._early -= 1
            self._early_dropped += 1
        return []

    def _drop_early(self, link: _Link, id: Id) -> list[Raw]:  # noqa: A002 - as above
        """The early events of an id, which are kept no longer."""
        payloads = [payload for known, payload in link.early if known == id]
        if payloads:
            link.early = deque(item for item in link.early if item[0] != id)
            link.early_bytes -= sum(len(memoryview(payload)) for payload in payloads)
            self._early -= len(payloads)
        link.overflowed.discard(id)
        self._forget_early(link)
        return payloads

    def _forget_early(self, link: _Link) -> None:
        if link.asked:
            return
        self._early -= len(link.early)
        self._unsolicited += len(link.early)  # they can be nobody's any more
        link.early.clear()
        link.overflowed.clear()
        link.early_bytes = 0

    def lost(self, connection: Connection, error: Exception) -> list[Outcome]:
        """A connection is lost: what was on it is subscribed again, or ends with ``error`` if it does not resume."""
        link = self._links.pop(connection, None)
        if link is None:
            return []
        self._early -= len(link.early)
        outcomes: list[Outcome] = []
        for feed in (*(feed for feeds in link.open.values() for feed in feeds), *link.asked):
            if feed.stage is FeedStage.ENDED:
                continue
            feed.stage, feed.connection, feed.id = FeedStage.UNASKED, None, None
            for subscription in list(feed.subscriptions.values()):
                if not subscription.is_confirmed:
                    continue
                subscription.gap = "reconnected"
                if not subscription.resumes:
                    outcomes.append(Ended(subscription, error))
                    self._remove(subscription)
            if feed.subscriptions:
                outcomes.append(Subscribe(feed))
        return outcomes

    def stats(self) -> SubscriptionStats:
        """Counts until now."""
        return SubscriptionStats(
            subscriptions=len(self._subscriptions),
            feeds=len(self._feeds),
            early=self._early,
            early_dropped=self._early_dropped,
            unsolicited=self._unsolicited,
            gaps=self._gaps,
        )
