"""Whether a stage is used: by choice, or because it works. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import inf
from typing import Literal

PROBES = 10
"""Operations in a row that have to succeed before a stage counts as sound again."""
LONGEST_REST = 3600.0
"""Seconds between probes at most."""


class Stage(StrEnum):
    """What an operation may go through, or pass by."""

    POOL = "pool"
    """Borrowed connections; without, each loan opens one and closes it."""
    BATCH = "batch"
    """Messages that leave together; without, each is written by itself."""
    ENVELOPE = "envelope"
    """Numbered and acknowledged messages; chosen when a connection is opened."""
    CACHE = "cache"
    """Answers that are kept; without, each call asks the server."""


class Mode(StrEnum):
    """How a stage is used at present."""

    OPTIMIZED = "optimized"
    BYPASSED = "bypassed"
    """Operations take the plain way."""
    PROBING = "probing"
    """In use again, on trial: one failure, and it is bypassed for twice as long."""


Choice = Literal["auto", "optimized", "bypassed"]
"""``auto`` falls back by itself; the others stay until somebody changes them by hand."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A stage's mode has changed."""

    stage: Stage
    url: str
    to: Mode
    reason: str
    at: float
    """Seconds, on the clock of who asks."""


class Switch:
    """One stage for one URL.

    Args:
        choice: what it does by itself.
        failures: in a row, after which it is bypassed.
        probe_after: seconds after which it is tried again; twice as long each time that fails.
    """

    __slots__ = (
        "_choice",
        "_failures",
        "_probe_after",
        "_probe_at",
        "_rest",
        "_row",
        "_successes",
        "failure",
        "is_on",
        "is_shaky",
        "mode",
        "reason",
        "since",
        "stage",
        "url",
    )

    def __init__(
        self, stage: Stage, url: str, choice: Choice, *, failures: int = 3, probe_after: float = 60.0, now: float = 0.0
    ) -> None:
        self.stage, self.url = stage, url
        self.is_on = choice != "bypassed"
        """Whether operations go through the stage: all that the way of a message looks at."""
        self.is_shaky = False
        """Whether a success is news, and to be told with `worked`."""
        self.mode = Mode.OPTIMIZED if self.is_on else Mode.BYPASSED
        self.reason = "configured"
        """Why it is in this mode."""
        self.since = now
        self.failure: str | None = None
        """What went wrong last."""
        self._choice: Choice = choice
        self._failures, self._probe_after = failures, probe_after
        self._rest = probe_after
        self._row = self._successes = 0
        self._probe_at = inf

    def failed(self, now: float, failure: str) -> Transition | None:
        """An operation did not get through the stage, for a reason that is the stage's own."""
        self.failure = failure
        self._row += 1
        self._successes = 0
        self.is_shaky = self.is_on
        if self._choice != "auto" or not self.is_on:
            return None
        if self.mode is Mode.PROBING:
            self._rest = min(self._rest * 2, LONGEST_REST)
        elif self._row < self._failures:
            return None
        return self._bypass(now, "failure", self._rest)

    def worked(self, now: float) -> Transition | None:
        """An operation got through; to be told while `is_shaky`."""
        self._row = 0
        if self.mode is not Mode.PROBING:
            self.is_shaky = False
            return None
        self._successes += 1
        if self._successes < PROBES:
            return None
        self._rest = self._probe_after
        return self._go(Mode.OPTIMIZED, "probes succeeded", now)

    def bypass(self, now: float, reason: str, seconds: float | None = None) -> Transition | None:
        """Pass the stage by, for so many seconds at least until it is probed; None until `restore`."""
        if seconds is not None and self._choice != "auto":
            return None
        return self._bypass(now, reason, inf if seconds is None else seconds)

    def restore(self, now: float, reason: str) -> Transition | None:
        """Use the stage again, whatever it was bypassed for."""
        self._row = 0
        self._rest = self._probe_after
        return None if self.mode is Mode.OPTIMIZED else self._go(Mode.OPTIMIZED, reason, now)

    def tick(self, now: float) -> Transition | None:
        """Time passes."""
        if self.mode is Mode.BYPASSED and now >= self._probe_at:
            self._successes = 0
            return self._go(Mode.PROBING, "probe", now)
        return None

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing about it that a new one would not have."""
        return self.reason == "configured" and not self._row

    def _bypass(self, now: float, reason: str, seconds: float) -> Transition | None:
        self._row = 0
        if self.mode is Mode.BYPASSED:
            self._probe_at = max(self._probe_at, now + seconds)
            return None
        self._probe_at = now + seconds
        return self._go(Mode.BYPASSED, reason, now)

    def _go(self, mode: Mode, reason: str, now: float) -> Transition:
        self.mode, self.reason, self.since = mode, reason, now
        self.is_on = mode is not Mode.BYPASSED
        self.is_shaky = mode is Mode.PROBING
        return Transition(self.stage, self.url, mode, reason, now)
