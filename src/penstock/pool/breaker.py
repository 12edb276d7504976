"""When a server that fails may be tried again. Pure."""

from __future__ import annotations

from collections.abc import Callable

FAILURES = 5
"""In a row, after which the server is left alone for a while."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0
FIRST_REST, LONGEST_REST = 1.0, 30.0


class Breaker:
    """Backs off between attempts, and after several failures refuses attempts at once, but for one probe at a time.

    Args:
        random: uniform in [0, 1); spreads the attempts of many programs.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.cause: Exception | None = None
        """Why the last attempt failed."""
        self._random = random
        self._failures = 0
        self._rest = FIRST_REST
        self._not_before = 0.0
        self._probing = False

    def refuses(self, now: float) -> bool:
        """Whether an attempt would not be worth its time; one that is let through as a probe must be reported."""
        if self._failures < FAILURES:
            return False
        if now < self._not_before or self._probing:
            return True
        self._probing = True
        return False

    def delay(self, now: float) -> float:
        """Seconds to wait before an attempt that is not refused."""
        return 0.0 if self._failures >= FAILURES else max(0.0, self._not_before - now)

    def succeeded(self) -> None:
        """The server answers again."""
        self._failures = 0
        self._rest = FIRST_REST
        self._not_before = 0.0
        self._probing = False
        self.cause = None

    def failed(self, now: float, cause: Exception) -> None:
        """An attempt failed."""
        self.cause = cause
        self._probing = False
        self._failures += 1
        if self._failures < FAILURES:
            step: float = min(FIRST_DELAY * 2 ** (self._failures - 1), LONGEST_DELAY)
            self._not_before = now + step * self._random()
        else:
            self._not_before = now + self._rest * (0.5 + self._random() / 2)
            self._rest = min(self._rest * 2, LONGEST_REST)

    def abandoned(self) -> None:
        """An attempt was given up before it could tell anything."""
        self._probing = False
