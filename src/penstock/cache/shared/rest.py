"""When a server that is slow is asked again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from penstock.backoff import backoff

FAILURES = 3
"""In a row, after which the server is left alone for a while."""
FIRST_REST, LONGEST_REST = 0.2, 10.0


def delays(random: Callable[[], float]) -> Iterator[float]:
    """Seconds to leave a server alone, longer each time."""
    return backoff(random, initial=FIRST_REST, minimum=FIRST_REST, maximum=LONGEST_REST, factor=2.0)


class Rest:
    """After several failures in a row nobody asks for a while, then one does, for all."""

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._until = 0.0
        self._delays = delays(random)
        self._probing = False

    def refuses(self, now: float) -> bool:
        """Whether asking is not worth its time. Who is not refused reports what came of it."""
        if self._failures < FAILURES:
            return False
        if self._probing or now < self._until:
            return True
        self._probing = True
        return False

    def succeeded(self) -> None:
        """The server has answered in time."""
        if self._failures:
            self._failures = 0
            self._delays = delays(self._random)
            self._probing = False

    def failed(self, now: float) -> None:
        """It has not."""
        if self._failures >= FAILURES and not self._probing and now < self._until:
            return  # asked before the rest: says nothing new
        self._failures += 1
        self._probing = False
        if self._failures >= FAILURES:
            self._until = now + next(self._delays)

    def abandoned(self) -> None:
        """Whoever asked was cancelled first."""
        self._probing = False
