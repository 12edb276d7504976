"""Snapshots as text: Prometheus' format 0.0.4, and OpenMetrics 1.0. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import inf, isnan

from penstock.metrics.catalogue import CATALOGUE, Metric
from penstock.metrics.histogram import HistogramSnapshot
from penstock.metrics.samples import Labels, MetricsSnapshot

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of `prometheus_text`."""
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
"""The content type of `openmetrics_text`."""


def prometheus_text(snapshot: MetricsSnapshot) -> str:
    """A snapshot for Prometheus to scrape. Metrics of which nothing was reported are left out."""
    return "".join(f"{line}\n" for metric in CATALOGUE.values() for line in _lines(snapshot, metric, False))


def openmetrics_text(snapshot: MetricsSnapshot) -> str:
    """The same in the OpenMetrics format."""
    lines = (line for metric in CATALOGUE.values() for line in _lines(snapshot, metric, True))
    return "".join(f"{line}\n" for line in lines) + "# EOF\n"


def cumulated(histogram: HistogramSnapshot, metric: Metric) -> list[tuple[str, float]]:
    """How many values do not exceed each of the metric's bounds, and infinity, by the bound as text."""
    bounds = metric.bounds
    counts = [*histogram.at_most(bounds), histogram.count]
    return [(number(bound), float(count)) for bound, count in zip((*bounds, inf), counts, strict=True)]


def number(value: float) -> str:
    """A number as both formats have it."""
    if isnan(value):
        return "NaN"
    if abs(value) == inf:
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))


def _lines(snapshot: MetricsSnapshot, metric: Metric, openmetrics: bool) -> Iterator[str]:
    numbers, histograms = snapshot.numbers.get(metric, {}), snapshot.histograms.get(metric, {})
    if not numbers and not histograms:
        return
    name = metric.prometheus_name
    family = name.removesuffix("_total") if openmetrics else name
    yield f"# HELP {family} {_escaped_help(metric.help, openmetrics)}"
    yield f"# TYPE {family} {metric.kind}"
    if openmetrics and metric.unit:
        yield f"# UNIT {family} {metric.unit}"
    for labels, value in numbers.items():
        yield f"{name}{_labels(metric, labels)} {number(value)}"
    for labels, histogram in histograms.items():
        for bound, count in cumulated(histogram, metric):
            yield f"{name}_bucket{_labels(metric, labels, {'le': bound})} {number(count)}"
        yield f"{name}_sum{_labels(metric, labels)} {number(histogram.sum)}"
        yield f"{name}_count{_labels(metric, labels)} {number(histogram.count)}"


def _labels(metric: Metric, values: Labels, more: Mapping[str, str] | None = None) -> str:
    pairs = {**dict(zip(metric.labels, values, strict=True)), **(more or {})}
    return "{" + ",".join(f'{name}="{_escaped(text)}"' for name, text in pairs.items()) + "}" if pairs else ""


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escaped_help(text: str, openmetrics: bool) -> str:
    return _escaped(text) if openmetrics else text.replace("\\", "\\\\").replace("\n", "\\n")
