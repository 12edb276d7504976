"""What alert rules are about: evaluated here, and written down as PromQL. Pure.

An expression has a value for each combination of the values of some labels, ``by``; everything else is added up.
Prometheus may watch many programs, so that there ``by`` gains ``job`` and ``instance``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf
from typing import Protocol, TypeAlias

from penstock.metrics.catalogue import Metric
from penstock.metrics.history import History, count_between, quantile_between
from penstock.metrics.samples import Labels, Match, grouped, match_of

Groups: TypeAlias = dict[Labels, float]
"""Values by those of the labels ``by``."""

TARGET = ("job", "instance")
"""The labels by which Prometheus tells programs apart."""


class Expression(Protocol):
    """What a rule compares with its thresholds."""

    def values(self, history: History, by: Labels) -> Groups:
        """What it is now; groups of which nothing is known are missing."""

    def promql(self, by: Labels) -> str:
        """The same for Prometheus."""

    @property
    def samples(self) -> Expression | None:
        """How many events the value is made of; None if that means nothing."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The part of a metric where some labels have some values."""

    metric: Metric
    match: Match = ()

    def promql(self, suffix: str = "") -> str:
        """A selector of Prometheus."""
        labels = ",".join(
            f'{name}="{_escaped(meant[0])}"' if len(meant) == 1 else f'{name}=~"{_escaped(_pattern(meant))}"'
            for name, meant in self.match
        )
        name = self.metric.prometheus_name + suffix
        return f"{name}{{{labels}}}" if labels else name


def select(metric: Metric, **labels: str | Labels) -> Selection:
    """The part of a metric where labels are as given; a label may be given several values, as a tuple."""
    return Selection(metric, match_of(labels))


@dataclass(frozen=True, slots=True)
class Gauge:
    """What a gauge is."""

    of: Selection

    @property
    def samples(self) -> Expression | None:
        return None

    def values(self, history: History, by: Labels) -> Groups:
        latest = history.latest
        series = latest.numbers.get(self.of.metric) if latest is not None else None
        return _sums(grouped(series, self.of.metric, self.of.match, by)) if series else {}

    def promql(self, by: Labels) -> str:
        return f"{_sum_by(by)}({self.of.promql()})"


@dataclass(frozen=True, slots=True)
class Increase:
    """What a counter has counted in a window of so many seconds; a histogram counts its values."""

    of: Selection
    window: float

    def __post_init__(self) -> None:
        _check_window(self.window)

    @property
    def samples(self) -> Expression | None:
        return self

    def values(self, history: History, by: Labels) -> Groups:
        metric, match = self.of.metric, self.of.match
        if metric.kind == "histogram":
            found = grouped(history.ends(metric, self.window), metric, match, by)
            return {key: float(sum(map(count_between, pairs))) for key, pairs in found.items()}
        return _sums(grouped(history.increases(metric, self.window), metric, match, by))

    def promql(self, by: Labels) -> str:
        return _over_time("increase", self.of, self.window, by)


@dataclass(frozen=True, slots=True)
class Rate:
    """The same for each second."""

    of: Selection
    window: float

    def __post_init__(self) -> None:
        _check_window(self.window)

    @property
    def samples(self) -> Expression | None:
        return Increase(self.of, self.window)

    def values(self, history: History, by: Labels) -> Groups:
        elapsed = history.elapsed(self.window)
        increases = Increase(self.of, self.window).values(history, by) if elapsed > 0 else {}
        return {key: value / elapsed for key, value in increases.items()}

    def promql(self, by: Labels) -> str:
        return _over_time("rate", self.of, self.window, by)


@dataclass(frozen=True, slots=True)
class Quantile:
    """What a part ``q`` of the values recorded in a window does not exceed; unknown if there were none."""

    of: Selection
    q: float
    window: float

    def __post_init__(self) -> None:
        _check_window(self.window)

    @property
    def samples(self) -> Expression | None:
        return Increase(self.of, self.window)

    def values(self, history: History, by: Labels) -> Groups:
        metric = self.of.metric
        values = {}
        for key, pairs in grouped(history.ends(metric, self.window), metric, self.of.match, by).items():
            value = quantile_between(pairs, self.q)
            if value is not None:
                values[key] = value
        return values

    def promql(self, by: Labels) -> str:
        buckets = f"rate({self.of.promql('_bucket')}[{duration(self.window)}])"
        return f"histogram_quantile({self.q:g}, {_sum_by((*by, 'le'))}({buckets}))"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One divided by another; unknown where that is not above 0."""

    part: Expression
    whole: Expression

    @property
    def samples(self) -> Expression | None:
        return self.whole.samples or self.part.samples

    def values(self, history: History, by: Labels) -> Groups:
        wholes = self.whole.values(history, by)
        if not wholes:
            return {}
        parts = self.part.values(history, by)
        return {key: part / wholes[key] for key, part in parts.items() if wholes.get(key, 0.0) > 0}

    def promql(self, by: Labels) -> str:
        return f"{self.part.promql(by)} / ({self.whole.promql(by)} > 0)"


@dataclass(frozen=True, slots=True)
class Above:
    """A condition: an expression is above a bound."""

    expression: Expression
    bound: float = 0.0

    def holds(self, history: History, by: Labels) -> set[Labels]:
        """The groups for which it is so."""
        return {key for key, value in self.expression.values(history, by).items() if value > self.bound}

    def promql(self, by: Labels) -> str:
        """The same for Prometheus."""
        return f"{self.expression.promql(by)} > {number(self.bound)}"


def duration(seconds: float) -> str:
    """Prometheus' way to write a duration, which is a whole number of milliseconds."""
    if seconds % 60 == 0 and seconds:
        return f"{seconds / 60:.0f}m"
    return f"{seconds:.0f}s" if seconds % 1 == 0 else f"{seconds * 1000:.0f}ms"


def number(value: float) -> str:
    """Shortest, exact."""
    if abs(value) == inf:
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if value == int(value) else repr(value)


def _check_window(seconds: float) -> None:
    if not 0 < seconds < inf:
        raise ValueError(f"window={seconds!r}: must be more than 0 seconds, and finite")


def _pattern(texts: Labels) -> str:
    return "|".join(map(re.escape, texts))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _sums(found: dict[Labels, list[float]]) -> Groups:
    return {key: values[0] if len(values) == 1 else sum(values) for key, values in found.items()}


def _over_time(function: str, of: Selection, window: float, by: Labels) -> str:
    suffix = "_count" if of.metric.kind == "histogram" else ""
    return f"{_sum_by(by)}({function}({of.promql(suffix)}[{duration(window)}]))"


def _sum_by(by: Labels) -> str:
    return f"sum by ({', '.join((*TARGET, *by))}) "
