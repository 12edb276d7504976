"""Snapshots of the last quarter of an hour, or as long as is asked for, and what happened between them. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TypeAlias

from penstock.metrics.catalogue import Metric
from penstock.metrics.histogram import EMPTY, HistogramSnapshot
from penstock.metrics.samples import Labels, MetricsSnapshot, match_of, selected, total

Ends: TypeAlias = tuple[HistogramSnapshot, HistogramSnapshot]
"""A histogram at the end of a window, and at its beginning."""

_AT = attrgetter("at")
_ROUNDING = 1e-6
"""Seconds by which a snapshot may be too young: clocks are not exact."""


class History:
    """A bounded number of snapshots. One thread adds; others may ask, and what they look up harms nobody.

    Each of the last ``fine`` seconds is kept, before that one for each ``step``, for ``span`` seconds in all. A window
    reaches back to the youngest snapshot that is at least that old, or to the oldest there is.
    """

    def __init__(self, *, fine: float = 60.0, step: float = 10.0, span: float = 900.0) -> None:
        self.fine, self.step, self.span = fine, step, span
        self._recent: list[MetricsSnapshot] = []
        self._old: list[MetricsSnapshot] = []
        self._begins: dict[float, MetricsSnapshot] = {}
        self._increases: dict[tuple[Metric, float], dict[Labels, float]] = {}
        self._ends: dict[tuple[Metric, float], dict[Labels, Ends]] = {}

    def add(self, snapshot: MetricsSnapshot) -> None:
        """Remember what was read; snapshots come in the order of time."""
        self._begins, self._increases, self._ends = {}, {}, {}  # new ones: another thread may be filling the old
        recent, old = self._recent, self._old
        recent.append(snapshot)
        while len(recent) > 1 and recent[1].at <= snapshot.at - self.fine + _ROUNDING:
            oldest = recent.pop(0)
            if not old or oldest.at >= old[-1].at + self.step - _ROUNDING:
                old.append(oldest)
        while len(old) > 1 and old[1].at <= snapshot.at - self.span + _ROUNDING:
            del old[0]

    def __len__(self) -> int:
        return len(self._recent) + len(self._old)

    def __iter__(self) -> Iterator[MetricsSnapshot]:
        """The snapshots that are kept, oldest first."""
        yield from self._old
        yield from self._recent

    @property
    def latest(self) -> MetricsSnapshot | None:
        """The youngest snapshot; None before the first."""
        return self._recent[-1] if self._recent else None

    def before(self, window: float) -> MetricsSnapshot | None:
        """Where a window that ends with the latest snapshot begins; None before there are two."""
        if len(self) < 2:
            return None
        begins = self._begins
        found = begins.get(window)
        if found is None:
            found = begins[window] = self._find(window)
        return found

    def _find(self, window: float) -> MetricsSnapshot:
        recent, old = list(self._recent), list(self._old)
        then = recent[-1].at - window + _ROUNDING
        for snapshots in (recent, old):
            if snapshots and snapshots[0].at <= then:
                return snapshots[bisect_right(snapshots, then, key=_AT) - 1]
        return (old or recent)[0]

    def elapsed(self, window: float) -> float:
        """Seconds that a window really has; 0 before there are two snapshots."""
        before = self.before(window)
        return self._recent[-1].at - before.at if before is not None else 0.0

    def increases(self, metric: Metric, window: float) -> Mapping[Labels, float]:
        """What a counter has counted in a window. Where it began anew, or at all, it has counted all that it has."""
        cached = self._increases
        found = cached.get((metric, window))
        if found is None:
            found = {}
            before = self.before(window)
            if before is not None:
                base = before.numbers.get(metric, {})
                for labels, value in self._recent[-1].numbers.get(metric, {}).items():
                    then = base.get(labels, 0.0)
                    found[labels] = value - then if value >= then else value
            cached[metric, window] = found
        return found

    def ends(self, metric: Metric, window: float) -> Mapping[Labels, Ends]:
        """What a histogram has at the end of a window, and had at its beginning."""
        cached = self._ends
        found = cached.get((metric, window))
        if found is None:
            found = {}
            before = self.before(window)
            if before is not None:
                base = before.histograms.get(metric, {})
                for labels, value in self._recent[-1].histograms.get(metric, {}).items():
                    found[labels] = (value, base.get(labels, EMPTY))
            cached[metric, window] = found
        return found

    # By name, for people

    def delta(self, metric: Metric, window: float, labels: Mapping[str, str | Labels]) -> float:
        """What was counted in a window; a gauge's change; 0 where nothing was reported."""
        match = match_of(labels)
        if metric.kind == "gauge":
            before = self.before(window)
            ends = [before, self.latest] if before is not None else []
            sums = [sum(selected(one.numbers.get(metric, {}), metric, match)) for one in ends if one is not None]
            return sums[1] - sums[0] if sums else 0.0
        if metric.kind == "histogram":
            return float(sum(count_between(ends) for ends in selected(self.ends(metric, window), metric, match)))
        return sum(selected(self.increases(metric, window), metric, match))

    def quantile(self, metric: Metric, q: float, window: float, labels: Mapping[str, str | Labels]) -> float | None:
        """What a part ``q`` of what was recorded in a window does not exceed; None if nothing was."""
        return quantile_between(selected(self.ends(metric, window), metric, match_of(labels)), q)


def count_between(ends: Ends) -> int:
    """How many values were recorded in a window."""
    count = ends[0].count - ends[1].count
    return count if count >= 0 else ends[0].count


def quantile_between(pairs: Sequence[Ends], q: float) -> float | None:
    """What a part ``q`` of what was recorded in a window, by all these together, does not exceed; None if nothing was.

    Raises:
        ValueError: ``q`` is not from 0 to 1.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"q={q!r}: must be at least 0 and at most 1")
    recording = [ends for ends in pairs if ends[0].count != ends[1].count]
    if len(recording) == 1:
        return recording[0][0].quantile_since(recording[0][1], q)
    return total(now.since(then) for now, then in recording).quantile(q) if recording else None
