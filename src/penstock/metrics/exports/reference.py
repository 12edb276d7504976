"""The reference page of all metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.metrics.catalogue import CATALOGUE, Metric

_INTRODUCTION = """\
# Metrics

Made by `penstock export catalogue` from the catalogue in `penstock.metrics.catalogue`. Prometheus has the names with
underscores, OpenTelemetry those with dots. Below its meaning are a metric's labels; none has a URL, a peer or a
connection in it. Exported histograms count at fixed bounds; `MetricsCollector.quantile` is exact to 6.25 %.
"""


def reference(metrics: Iterable[Metric] = CATALOGUE.values()) -> str:
    """A page of Markdown."""
    lines = [_INTRODUCTION, "| Prometheus, OpenTelemetry | kind | meaning |", "|---|---|---|"]
    for metric in metrics:
        names = f"`{metric.prometheus_name}`<br>`{metric.name}`"
        kind = f"{metric.kind}, {metric.unit}" if metric.unit else metric.kind
        labels = "".join(f"<br>`{label}`" for label in metric.labels)
        lines.append(f"| {names} | {kind} | {metric.help}{labels} |")
    return "\n".join(lines) + "\n"
