"""How long to wait before another connection is opened."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from penstock.backoff import backoff

STEADY = 5.0
"""Seconds that a connection has to last for the next to be opened at once."""


def quick() -> Iterator[float]:
    """Delays between attempts to connect again: soon at first, because callers wait."""
    return backoff(random.random, initial=0.2, minimum=0.2, maximum=30.0)


class Pace:
    """Delays that grow with each attempt, whether it fails or its connection does not last."""

    def __init__(self, delays: Callable[[], Iterator[float]] = quick) -> None:
        self._make = delays
        self._delays: Iterator[float] | None = None
        self._is_hasty = False

    def lost(self, lived: float) -> None:
        """A connection was lost, that many seconds after it was opened."""
        self._is_hasty = lived < STEADY
        if not self._is_hasty:
            self._delays = None

    def before(self) -> float:
        """Seconds to wait before the next connection: none unless the one before was lost too soon."""
        hasty, self._is_hasty = self._is_hasty, False
        return self.after_failure() or 0.0 if hasty else 0.0

    def after_failure(self) -> float | None:
        """Seconds to wait before the next attempt; None if there are to be no more."""
        if self._delays is None:
            self._delays = iter(self._make())
        return next(self._delays, None)
