"""Decides which stages are used, watches their gain, and remembers why."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from math import inf

from penstock.errors.urls import shown_url
from penstock.manager.speedup import Sampler, Speedup
from penstock.manager.switch import Choice, Mode, Stage, Switch, Transition
from penstock.metrics.traffic import MAX_NAMES, OTHER
from penstock.transport.base import parse_uri

logger = logging.getLogger("penstock.manager")

KEPT = 200
"""Transitions that are remembered."""
SILENCE = 1.0
"""Seconds after a failure was logged in which others of the same stage are only counted."""


class PerformanceManager:
    """Keeps a mode for each stage and URL; it carries no messages.

    A stage that fails by itself is bypassed after ``failures`` in a row, one whose alert asks for it at once; both are
    probed after ``probe_after`` seconds, and used again when that goes well. `bypass` and `restore` do it by hand.

    Args:
        choices: what each stage does by itself; ``auto`` for those that are missing.
        failures: in a row, after which a stage is bypassed.
        probe_after: seconds after which it is tried again.
        sample_every: one in so many operations takes the plain way to be compared with; 0 for never.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        choices: Mapping[Stage, Choice] | None = None,
        *,
        failures: int = 3,
        probe_after: float = 60.0,
        sample_every: int = 1000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._choices = {stage: (choices or {}).get(stage, "auto") for stage in Stage}
        self._failures, self._probe_after, self._sample_every = failures, probe_after, sample_every
        self._now = clock
        self._switches: dict[str, dict[Stage, Switch]] = {}
        self._by_hand: dict[Stage, tuple[str, float | None]] = {}
        """Stages that are bypassed for all URLs, those to come among them: why, and until when."""
        self.speedups = {stage: Speedup() for stage in Stage}
        """What was measured of each stage; operations record it."""
        self.on_transition: Callable[[Transition], object] = _ignore
        """Told of each change of a mode, when it has taken effect."""
        self.transitions: deque[Transition] = deque(maxlen=KEPT)
        """The latest, oldest first."""
        self.counts: dict[tuple[Stage, Mode, str], int] = {}
        """Decisions, by stage, mode and reason; one about all URLs counts once."""
        self.failures: dict[Stage, int] = dict.fromkeys(Stage, 0)
        """Operations that took the plain way because a stage had failed."""
        self._silent_until: dict[Stage, float] = dict.fromkeys(Stage, -inf)

    # What operations ask

    def switch(self, stage: Stage, url: str) -> Switch:
        """What an operation looks at; the same object for as long as the URL is used."""
        of_url = self._switches.get(url)
        if of_url is None:
            of_url = self._switches[url] = {stage: self._new(stage, url) for stage in Stage}
        return of_url[stage]

    def _new(self, stage: Stage, url: str) -> Switch:
        now = self._now()
        switch = Switch(
            stage, url, self._choices[stage], failures=self._failures, probe_after=self._probe_after, now=now
        )
        if stage in self._by_hand:
            reason, until = self._by_hand[stage]
            switch.bypass(now, reason, None if until is None else max(0.0, until - now))
        return switch

    def sampler(self) -> Sampler:
        """Says which operations of one stage and URL are to be measured."""
        return Sampler(self._sample_every)

    def failed(self, switch: Switch, exc: BaseException) -> None:
        """A stage has failed by itself; the operation takes the plain way."""
        self.failures[switch.stage] += 1
        now = self._now()
        if now >= self._silent_until[switch.stage]:
            self._silent_until[switch.stage] = now + SILENCE
            logger.warning("%s failed, and is passed by: %r", switch.stage, exc, exc_info=exc)
        self._note(switch.failed(now, repr(exc)))

    def worked(self, switch: Switch) -> None:
        """An operation got through a stage of which that was not certain (``Switch.is_shaky``)."""
        self._note(switch.worked(self._now()))

    # What people and alerts decide

    def mode(self, url: str) -> dict[Stage, Mode]:
        """The mode of each stage for a URL."""
        of_url = self._switches.get(url)
        return {stage: (self._new(stage, url) if of_url is None else of_url[stage]).mode for stage in Stage}

    @property
    def urls(self) -> set[str]:
        """Those that are used, or of which something was decided."""
        return set(self._switches)

    def modes(self) -> dict[str, dict[Stage, Mode]]:
        """The modes of all URLs that are used."""
        return {url: {stage: one.mode for stage, one in of_url.items()} for url, of_url in self._switches.items()}

    def bypass(
        self, stage: Stage | str, url: str | None = None, *, reason: str = "by hand", seconds: float | None = None
    ) -> None:
        """Let operations pass a stage by.

        Args:
            url: for which; None for all, those to come among them.
            seconds: until it is probed, where its mode is ``auto``; None until `restore`. A stage that is bypassed
                already stays so for the longer of both.

        Raises:
            ValueError: there is no such stage, or ``seconds`` is negative.
            InvalidURI: ``url`` is no WebSocket URL.
        """
        stage = _stage(stage)
        if seconds is not None and not seconds >= 0:
            raise ValueError(f"seconds={seconds!r}: must be at least 0, or None until it is restored")
        now = self._now()
        if url is not None:
            parse_uri(url)
        elif stage not in self._by_hand or _is_later(seconds, self._by_hand[stage][1], now):
            self._by_hand[stage] = reason, None if seconds is None else now + seconds
        self._note_all([switch.bypass(now, reason, seconds) for switch in self._of(stage, url)])

    def restore(self, stage: Stage | str, url: str | None = None, *, reason: str = "by hand") -> None:
        """Use a stage again, whatever it was bypassed for. Raises ValueError if there is no such stage."""
        stage = _stage(stage)
        if url is None:
            self._by_hand.pop(stage, None)
        self._note_all([switch.restore(self._now(), reason) for switch in self._of(stage, url)])

    def _of(self, stage: Stage, url: str | None) -> Iterable[Switch]:
        if url is not None:
            return [self.switch(stage, url)]
        return [of_url[stage] for of_url in self._switches.values()]

    # Time passes

    def tick(self) -> None:
        """Begin the probes that are due; once a second will do."""
        now = self._now()
        for stage in [stage for stage, (_, until) in self._by_hand.items() if until is not None and until <= now]:
            del self._by_hand[stage]
        for stage in Stage:
            switches = [of_url[stage] for of_url in self._switches.values() if not of_url[stage].is_on]
            self._note_all([switch.tick(now) for switch in switches])

    def forget(self, url: str) -> None:
        """A URL is not used any more. What was decided about it stays."""
        of_url = self._switches.get(url)
        if of_url is not None and all(switch.is_plain for switch in of_url.values()):
            del self._switches[url]

    def _note_all(self, transitions: Iterable[Transition | None]) -> None:
        """One decision about several URLs counts once."""
        counted = False
        for transition in transitions:
            if transition is not None:
                self._note(transition, counts=not counted)
                counted = True

    def _note(self, transition: Transition | None, *, counts: bool = True) -> None:
        if transition is None:
            return
        self.transitions.append(transition)
        if counts:
            key = transition.stage, transition.to, transition.reason
            if key not in self.counts and len(self.counts) >= MAX_NAMES:
                key = transition.stage, transition.to, OTHER
            self.counts[key] = self.counts.get(key, 0) + 1
        if transition.to is not Mode.BYPASSED:
            self.speedups[transition.stage].forget()
        level = logging.WARNING if transition.to is Mode.BYPASSED else logging.INFO
        self.on_transition(transition)
        where = shown_url(transition.url)
        logger.log(level, "%s is %s for %s: %s", transition.stage, transition.to, where, transition.reason)


def _ignore(_: Transition) -> None:
    """Nobody wants to know."""


def _is_later(seconds: float | None, until: float | None, now: float) -> bool:
    """Whether so many seconds last longer than an instant; None is for ever."""
    return until is not None and (seconds is None or now + seconds > until)


def _stage(name: Stage | str) -> Stage:
    try:
        return Stage(name)
    except ValueError:
        raise ValueError(f"stage={str(name)!r}: must be one of {', '.join(Stage)}") from None
