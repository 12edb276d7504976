"""What a client has done."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.metrics.histogram import Histogram, HistogramSnapshot
from penstock.protocols.feeds import SubscriptionStats


@dataclass(frozen=True, slots=True)
class RpcStats:
    """What a client has, and has done so far."""

    connections: int
    """Open now."""
    in_flight: int
    """Calls that wait now: for a connection, or for the server's answer."""
    subscriptions: int
    """That have not ended; those that are not confirmed yet among them."""
    calls: int
    """Made; with those that were answered from the cache, but without those that were refused."""
    answered: int
    """Calls that the server has answered, with a result or an error."""
    errors: int
    """Calls that the server has answered with an error."""
    cached: int
    """Calls that were answered from the cache."""
    coalesced: int
    """Calls that had the answer to an equal one that was under way."""
    batched: int
    """Times that a call went out in an array with others."""
    retried: int
    """Times that a call was sent again."""
    timeouts: int
    """Calls that were not answered in time."""
    lost: int
    """Calls that ended with their connection."""
    refused: int
    """Calls for which there was no room: `TooManyCalls`."""
    late: int
    """Replies to calls that nobody waited for any more; they were dropped."""
    unsolicited: int
    """Replies, and events of subscriptions, that belong to nothing that this client has asked for; likewise."""
    malformed: int
    """Messages, or items of arrays, that do not keep to the protocol; likewise."""
    notifications: int
    """Messages that the server sent by itself, and that belong to no subscription."""
    events: int
    """Of subscriptions, that were put where they are taken from."""
    gaps: int
    """Times that a subscription may have missed events."""
    too_slow: int
    """Subscriptions that were ended because their events were not taken."""
    opened: int
    """Connections that were opened, or borrowed from the pool."""
    latency: HistogramSnapshot
    """Of calls that the server has answered: seconds from the call to the answer, with the wait for a connection."""


class Counts:
    """The counters of a client, which go up."""

    def __init__(self) -> None:
        self.calls = self.answered = self.errors = self.cached = self.coalesced = self.batched = self.retried = 0
        self.timeouts = self.lost = self.refused = self.late = self.unsolicited = self.malformed = 0
        self.notifications = self.events = self.too_slow = 0
        self.latency = Histogram()

    def took(self, seconds: float) -> None:
        """The server has answered a call."""
        self.answered += 1
        self.latency.record(seconds)

    def snapshot(self, connections: int, opened: int, in_flight: int, feeds: SubscriptionStats) -> RpcStats:
        """The counters at present, with what is counted elsewhere."""
        counted = vars(self) | {
            "unsolicited": self.unsolicited + feeds.unsolicited,
            "latency": self.latency.snapshot(),
            "gaps": feeds.gaps,
            "subscriptions": feeds.subscriptions,
        }
        return RpcStats(connections=connections, opened=opened, in_flight=in_flight, **counted)
