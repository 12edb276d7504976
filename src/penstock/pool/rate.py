"""How often something may be done. Pure."""

from __future__ import annotations


class RateLimit:
    """Spaces what may be done ``rate`` times a second; ``burst`` may be done at once after a rest.

    The generic cell rate algorithm (ITU-T I.371): `_due` is when the next would come if all were evenly spaced.
    """

    def __init__(self, rate: float, burst: int) -> None:
        self._interval = 1 / rate
        self._tolerance = (burst - 1) / rate
        self._due = float("-inf")

    def reserve(self, now: float) -> float:
        """Take the next place; seconds to wait for it."""
        due = max(self._due, now)
        self._due = due + self._interval
        return max(0.0, due - self._tolerance - now)
