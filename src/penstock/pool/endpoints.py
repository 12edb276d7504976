"""The servers behind a URL, and which of them is next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penstock.errors.urls import shown_url
from penstock.pool.breaker import Breaker


class Endpoint:
    """A server that connections may be opened to.

    Args:
        weight: how much it can take, beside the others.
    """

    __slots__ = ("attempts", "breaker", "leased", "open", "shown", "url", "weight")

    def __init__(self, url: str, weight: float, breaker: Breaker) -> None:
        if not weight > 0:
            raise ValueError(f"weight={weight!r}: must be more than 0")
        self.url, self.weight, self.breaker = url, weight, breaker
        self.shown = shown_url(url)
        """The URL as it may be logged."""
        self.open = 0
        """Connections that are open, or being opened or closed."""
        self.attempts = 0
        """Connections that are being opened."""
        self.leased = 0
        """Connections that are lent; counted where a URL has several endpoints."""


def choose(endpoints: Sequence[Endpoint], now: float, random: Callable[[], float]) -> Endpoint:
    """Where the next connection goes: to one that works, with fewest connections for its weight; else by chance.

    One that failed last has one attempt at a time, when that is due; nobody else is sent there as long as others work.
    If none may be tried, the one that may be tried soonest.
    """
    if len(endpoints) == 1:
        return endpoints[0]

    def rank(endpoint: Endpoint) -> tuple[bool, float, bool, float, float]:
        refusing = endpoint.breaker.is_open(now)
        pause = max(0.0, endpoint.breaker.retry_at - now)
        being_probed = endpoint.breaker.cause is not None and endpoint.attempts > 0
        return refusing, pause, being_probed, endpoint.open / endpoint.weight, random()

    return min(endpoints, key=rank)
