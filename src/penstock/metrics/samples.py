"""What sources report, and all of it at one moment. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeAlias, TypeVar

from penstock.metrics.catalogue import Metric, find
from penstock.metrics.histogram import EMPTY, HistogramSnapshot

V = TypeVar("V")

Labels: TypeAlias = tuple[str, ...]
"""Values of labels, in the order of their names."""
Match: TypeAlias = tuple[tuple[str, Labels], ...]
"""For some labels, the values that are meant."""


class Sample(NamedTuple):
    """What a metric is, for some values of its labels. Counters count from their source's making."""

    metric: Metric
    value: float | HistogramSnapshot
    labels: Labels = ()


Source: TypeAlias = Callable[[], Iterable[Sample]]
"""Called whenever somebody asks: it reads plain counters, and waits for nothing.

Samples of the same metric and labels, from any sources, are added up. A counter that may count later is reported as 0
until then, because Prometheus sees no increase in a series that begins with another value.
"""


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """What all sources reported at one moment."""

    at: float
    """Seconds on the monotonic clock."""
    numbers: Mapping[Metric, Mapping[Labels, float]] = field(default_factory=dict)
    """Counters and gauges, by the values of their labels."""
    histograms: Mapping[Metric, Mapping[Labels, HistogramSnapshot]] = field(default_factory=dict)
    """Likewise."""

    def value(self, name: str | Metric, **labels: str | Labels) -> float | None:
        """A counter or gauge, or how many values a histogram has; None if nothing was reported.

        It is the sum over all values of the labels that are not given; a label may be given several, as a tuple.

        Raises:
            KeyError: there is no such metric, or it has no such label.
        """
        metric = find(name)
        if metric.kind == "histogram":
            found = selected(self.histograms.get(metric, {}), metric, match_of(labels))
            values = [float(one.count) for one in found]
        else:
            values = selected(self.numbers.get(metric, {}), metric, match_of(labels))
        return sum(values) if values else None

    def histogram(self, name: str | Metric, **labels: str | Labels) -> HistogramSnapshot:
        """A histogram, likewise; an empty one if nothing was reported.

        Raises:
            KeyError: as `value`.
        """
        metric = find(name)
        return total(selected(self.histograms.get(metric, {}), metric, match_of(labels)))

    def __iter__(self) -> Iterator[Sample]:
        for metric, numbers in self.numbers.items():
            yield from (Sample(metric, number, labels) for labels, number in numbers.items())
        for metric, histograms in self.histograms.items():
            yield from (Sample(metric, histogram, labels) for labels, histogram in histograms.items())


class Reading:
    """A snapshot in the making: what was reported so far."""

    __slots__ = ("histograms", "numbers")

    def __init__(self) -> None:
        self.numbers: dict[Metric, dict[Labels, float]] = {}
        self.histograms: dict[Metric, dict[Labels, HistogramSnapshot]] = {}

    def add(self, samples: Iterable[Sample]) -> None:
        """Add to what there is.

        Raises:
            ValueError: a sample is not as its metric says; what came before it has been added.
        """
        for metric, value, labels in samples:
            if len(labels) != len(metric.labels):
                raise ValueError(f"{metric.name} has the labels {metric.labels}, not {labels}")
            for text in labels:
                if not isinstance(text, str):
                    raise ValueError(f"{metric.name} has labels of text, not {text!r}")
            if not isinstance(value, HistogramSnapshot):
                numbers = self.numbers.get(metric)
                if numbers is None:
                    if metric.kind == "histogram":
                        raise ValueError(f"{metric.name} is a histogram, not {value!r}")
                    numbers = self.numbers[metric] = {}
                numbers[labels] = numbers.get(labels, 0.0) + value
                continue
            histograms = self.histograms.get(metric)
            if histograms is None:
                if metric.kind != "histogram":
                    raise ValueError(f"{metric.name} is a {metric.kind}, and no histogram")
                histograms = self.histograms[metric] = {}
            histograms[labels] = value.merged(histograms[labels]) if labels in histograms else value

    def snapshot(self, at: float) -> MetricsSnapshot:
        """All of it; no more is to be added."""
        return MetricsSnapshot(at, self.numbers, self.histograms)


def distribution(sizes: Mapping[int, int], total: float) -> HistogramSnapshot:
    """A histogram of counts: how many there were up to each bound, but more than the bound before."""
    buckets = tuple((float(bound), number) for bound, number in sorted(sizes.items()) if number)
    return HistogramSnapshot(sum(sizes.values()), float(total), buckets)


def match_of(labels: Mapping[str, str | Labels]) -> Match:
    """Labels as they were given, each with all the values that are meant."""
    return tuple((name, (value,) if isinstance(value, str) else value) for name, value in labels.items())


def selected(series: Mapping[Labels, V], metric: Metric, match: Match) -> list[V]:
    """The values whose labels are meant.

    Raises:
        KeyError: the metric has no such label.
    """
    checks, _ = _positions(metric, match, ())
    return [value for labels, value in series.items() if all(labels[at] in meant for at, meant in checks)]


def grouped(series: Mapping[Labels, V], metric: Metric, match: Match, by: Labels) -> dict[Labels, list[V]]:
    """The values whose labels are meant, by the values of some labels; one that the metric does not have is empty.

    Raises:
        KeyError: as `selected`.
    """
    checks, keys = _positions(metric, match, by)
    found: dict[Labels, list[V]] = {}
    for labels, value in series.items():
        for at, meant in checks:
            if labels[at] not in meant:
                break
        else:
            key = tuple([labels[at] if at >= 0 else "" for at in keys])
            found.setdefault(key, []).append(value)
    return found


def total(snapshots: Iterable[HistogramSnapshot]) -> HistogramSnapshot:
    """All in one."""
    found = EMPTY
    for one in snapshots:
        found = found.merged(one) if found.count else one
    return found


@lru_cache(maxsize=1024)
def _positions(metric: Metric, match: Match, by: Labels) -> tuple[tuple[tuple[int, Labels], ...], tuple[int, ...]]:
    names = metric.labels
    unknown = [name for name, _ in match if name not in names]
    if unknown:
        raise KeyError(f"{metric.name} has no label {unknown[0]!r}; it has {', '.join(names) or 'none'}")
    checks = tuple((names.index(name), meant) for name, meant in match)
    return checks, tuple(names.index(name) if name in names else -1 for name in by)
