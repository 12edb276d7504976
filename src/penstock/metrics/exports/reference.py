"""The reference page of all metrics. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.metrics.catalogue import CATALOGUE, Metric

_INTRODUCTION = """\
# Metrics

Made by `penstock export catalogue` from the catalogue in `penstock.metrics.catalogue`. OpenTelemetry has the names with
dots, Prometheus those with underscores. No label has a URL, a peer or a connection in it. Exported histograms count at
fixed bounds; `MetricsCollector.quantile` is exact to 6.25 %.
"""


def reference(metrics: Iterable[Metric] = CATALOGUE.values()) -> str:
    """A page of Markdown."""
    lines = [_INTRODUCTION, "| Prometheus | OpenTelemetry | kind | labels | meaning |", "|---|---|---|---|---|"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        unit = f" [{metric.unit}]" if metric.unit else ""
        kind = f"{metric.kind}{unit}"
        lines.append(f"| `{metric.prometheus_name}` | `{metric.name}` | {kind} | {labels} | {metric.help} |")
    return "\n".join(lines) + "\n"
