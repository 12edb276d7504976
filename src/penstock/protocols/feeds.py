"""What subscriptions are made of, and what happens to them. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum
from typing import Any, TypeAlias

from msgspec import Raw, Struct

Connection: TypeAlias = Hashable
"""An upstream connection, whatever that is to the shell; another one after each reconnect."""
Id: TypeAlias = str | int


class FeedStage(Enum):
    """Where a feed is."""

    UNASKED = 1
    """To be subscribed, for the first time or after its connection was lost."""
    ASKED = 2
    OPEN = 3
    ENDED = 4


class Feed(Struct, eq=False):
    """One subscription at the server, of one consumer or shared by several."""

    key: Hashable
    """What it is shared by; None if it is not shared."""
    method: str
    params: Any
    unsubscribe: Any
    """What ends it; of a protocol with methods, the method."""
    subscriptions: dict[Id, Subscription]
    stage: FeedStage = FeedStage.UNASKED
    connection: Connection | None = None
    id: Id | None = None
    """The server's; it may be another after a reconnect, and another feed's on another connection."""
    timeout: float | None = 10.0
    """Seconds for the server to accept it."""


class Subscription(Struct, eq=False):
    """One consumer's, under an id that stays."""

    id: Id
    owner: Hashable
    """Who may unsubscribe it."""
    feed: Feed
    resumes: bool
    """After a reconnect it goes on with a `Gap`; else it ends."""
    is_confirmed: bool = False
    """The server has confirmed it."""
    gap: str | None = None
    """Why events were missed, until the consumer is told."""


class Subscribe(Struct, frozen=True):
    """To do: send the feed's method and parameters, on any connection, and tell which."""

    feed: Feed


class Unsubscribe(Struct, frozen=True):
    """To do: nobody wants this any more; tell when the server has answered."""

    connection: Connection
    method: Any
    """What ends the feed."""
    id: Id


class Confirmed(Struct, frozen=True):
    """The server has accepted the subscription; its events follow."""

    subscription: Subscription


class Delivered(Struct, frozen=True):
    """An event for a consumer."""

    subscription: Subscription
    payload: Raw


class Gap(Struct, frozen=True):
    """Events between the last and the next may be missing: ``"reconnected"`` or ``"overflow"``."""

    subscription: Subscription
    reason: str


class Ended(Struct, frozen=True):
    """A subscription is over, and gets nothing more; ``error`` says why, None if the server has completed it."""

    subscription: Subscription
    error: Exception | None


Outcome: TypeAlias = Subscribe | Unsubscribe | Confirmed | Delivered | Gap | Ended


class SubscriptionStats(Struct, frozen=True):
    """Counts."""

    subscriptions: int
    feeds: int
    early: int
    """Events that wait for the reply to their subscribe call."""
    early_dropped: int
    """Of those, because there were too many."""
    unsolicited: int
    """Events that belong to no subscription."""
    gaps: int
    """Consumers that were told that events may be missing."""
