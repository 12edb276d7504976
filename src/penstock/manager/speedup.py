"""What a stage gains, measured: a few operations take the plain way. Pure."""

from __future__ import annotations

from collections import deque
from statistics import median

KEPT = 64
"""Of each kind, the latest count."""
LEAST = 8
"""Of each kind, before anything is said."""
SAMPLED = 32
"""Operations in a row that are timed together."""


class Sampler:
    """Says when an operation is to be measured.

    Every ``every`` operations, but not twice within ``interval`` seconds, one takes the plain way, and the next is
    timed as it is.

    Args:
        every: 0 for never.
    """

    __slots__ = ("_every", "_interval", "_next_at", "_plain_is_next", "left")

    def __init__(self, every: int, interval: float = 1.0) -> None:
        self.left = every or -1
        """Operations until one is due: the way of an operation counts this down, and asks with `turn` at 0."""
        self._every, self._interval = every, interval
        self._next_at = 0.0
        self._plain_is_next = True

    def turn(self, now: float) -> bool | None:
        """What the operation that is due does: True takes the plain way, False is timed, None does neither."""
        if now < self._next_at:
            self.left = self._every
            return None
        plain, self._plain_is_next = self._plain_is_next, not self._plain_is_next
        self.left = 1 if plain else self._every
        if not plain:
            self._next_at = now + self._interval
        return plain


class Sample:
    """Operations in a row that are timed together, because one alone is too short."""

    __slots__ = ("left", "plain", "seconds")

    def __init__(self, *, plain: bool) -> None:
        self.plain, self.left, self.seconds = plain, SAMPLED, 0.0


class Speedup:
    """How long operations take through a stage, and past it."""

    def __init__(self) -> None:
        self._seconds: dict[bool, deque[float]] = {True: deque(maxlen=KEPT), False: deque(maxlen=KEPT)}

    def record(self, seconds: float, *, plain: bool) -> None:
        """An operation took so long."""
        self._seconds[plain].append(seconds)

    def forget(self) -> None:
        """What was measured says nothing about the future."""
        for kind in self._seconds.values():
            kind.clear()

    @property
    def ratio(self) -> float | None:
        """How many times as long the plain way takes; None while that is not known."""
        if any(len(kind) < LEAST for kind in self._seconds.values()):
            return None
        return median(self._seconds[True]) / max(median(self._seconds[False]), 1e-9)
