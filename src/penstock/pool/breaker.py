"""When a server that fails may be tried again. Pure."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

FAILURES = 5
"""In a row, after which the server is left alone for a while."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 30.0
FIRST_REST, LONGEST_REST = 1.0, 30.0
LONGEST_ASKED = 300.0
"""Seconds that a server may ask to be left alone."""
FIRST_PAUSE, FIRST_POLICY_PAUSE = 1.0, 5.0
"""After the peer has closed a connection because it is overloaded or restarts, and because of a policy."""
SAME_EVENT = 1.0
FORGIVEN = 60.0
"""Seconds after which such a closing is forgotten."""


class Breaker:
    """Backs off between attempts, and after several failures refuses attempts at once, but for one probe at a time.

    Args:
        random: uniform in [0, 1); spreads the attempts of many programs.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self.cause: Exception | None = None
        """Why the last attempt failed."""
        self.denials = 0
        """Times that the server has refused for good."""
        self._random = random
        self._failures = 0
        self._rest = FIRST_REST
        self._not_before = 0.0
        self._asked = False
        self._denied = False
        self._probing = False
        self._rejections = 0
        self._rejected_at = -inf
        self._pause_until = 0.0
        self._last_trouble = -inf

    @property
    def retry_at(self) -> float:
        """When an attempt is worth its time."""
        return max(self._not_before, self._pause_until)

    @property
    def _broken(self) -> bool:
        return self._asked or self._failures >= FAILURES

    def is_open(self, now: float) -> bool:
        """Whether `refuses` would say no."""
        return self._broken and (now < self._not_before or self._probing)

    def refuses(self, now: float) -> bool:
        """Whether an attempt would not be worth its time; one that is let through as a probe must be reported."""
        if self.is_open(now):
            return True
        self._probing = self._broken
        return False

    def delay(self, now: float) -> float:
        """Seconds to wait before an attempt that is not refused."""
        backoff = 0.0 if self._broken else self._not_before - now
        return max(0.0, backoff, self._pause_until - now)

    def quiet(self, now: float) -> bool:
        """Whether a connection may be opened that nobody has asked for."""
        return not self._denied and not self._probing and now >= self.retry_at

    def remembers(self, now: float) -> bool:
        """Whether a new breaker would behave otherwise, for as long as it matters."""
        return self._last_trouble > -inf and now < max(self.retry_at, self._last_trouble) + FORGIVEN

    def succeeded(self) -> None:
        """The server answers again."""
        self._failures = 0
        self._rest = FIRST_REST
        self._not_before = 0.0
        self._asked = self._denied = self._probing = False
        self.cause = None

    def failed(self, now: float, cause: Exception, *, rest: float | None = None) -> None:
        """An attempt failed.

        Args:
            rest: seconds for which the server itself asks to be left alone; `LONGEST_ASKED` at most are granted.
        """
        self.cause = cause
        self._last_trouble = now
        self._probing = False
        if rest is None and self._broken and now < self._not_before:
            return  # it began before the rest, and says nothing new
        self._failures += 1
        # An attempt that was under way when the server asked for rest may fail later, and must not cut that short.
        asked_until = self._not_before if self._asked else 0.0
        if rest is not None:
            self._asked = True
            not_before = now + min(rest, LONGEST_ASKED) * (1 + self._random() / 10)
        elif self._failures < FAILURES:
            step: float = min(FIRST_DELAY * 2 ** (self._failures - 1), LONGEST_DELAY)
            not_before = now + step * self._random()
        else:
            not_before = now + self._rest * (0.5 + self._random() / 2)
            self._rest = min(self._rest * 2, LONGEST_REST)
        self._not_before = max(not_before, asked_until)

    def denied(self, cause: Exception) -> None:
        """The server answers, and refuses: whoever asks is told, and nothing is opened that nobody asked for."""
        self.cause = cause
        self._failures = 0
        self._not_before = 0.0
        self._asked = self._probing = False
        self._denied = True
        self.denials += 1

    def rejected(self, now: float, *, policy: bool) -> None:
        """The peer closed an open connection in a way that asks to stay away: by its policy, or for a while.

        Several connections that are closed within a second count as one: a server that restarts closes all it has.
        """
        if now - self._rejected_at < SAME_EVENT:
            return
        if now - self._rejected_at > FORGIVEN:
            self._rejections = 0
        self._rejected_at = self._last_trouble = now
        first = FIRST_POLICY_PAUSE if policy else FIRST_PAUSE
        step: float = min(first * 2 ** min(self._rejections, 8), LONGEST_DELAY)
        self._rejections += 1
        part = 0.5 + self._random() / 2 if policy else self._random()
        self._pause_until = max(self._pause_until, now + step * part)

    def abandoned(self) -> None:
        """An attempt was given up before it could tell anything."""
        self._probing = False
