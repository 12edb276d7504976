"""For programs that export to Prometheus with ``prometheus_client`` (extra ``prometheus``)."""

from __future__ import annotations

from collections.abc import Iterator

try:
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError("PrometheusCollector needs the extra: pip install 'penstock[prometheus]'") from error

from penstock.metrics.catalogue import CATALOGUE, Metric
from penstock.metrics.collector import MetricsCollector
from penstock.metrics.exposition import cumulated


class PrometheusCollector(Collector):
    """Penstock's metrics in a registry of ``prometheus_client``: ``REGISTRY.register(PrometheusCollector(collector))``.

    Nothing is spent until the registry is asked.
    """

    def __init__(self, collector: MetricsCollector) -> None:
        self._collector = collector

    def describe(self) -> Iterator[Family]:
        """All there may be, without reading anything."""
        return map(_family, CATALOGUE.values())

    def collect(self) -> Iterator[Family]:
        """What there is now."""
        snapshot = self._collector.snapshot()
        for metric in CATALOGUE.values():
            family, name = _family(metric), metric.prometheus_name
            for values, number in snapshot.numbers.get(metric, {}).items():
                family.add_sample(name, dict(zip(metric.labels, values, strict=True)), number)
            for values, histogram in snapshot.histograms.get(metric, {}).items():
                labels = dict(zip(metric.labels, values, strict=True))
                for bound, count in cumulated(histogram, metric):
                    family.add_sample(f"{name}_bucket", {**labels, "le": bound}, count)
                family.add_sample(f"{name}_sum", labels, histogram.sum)
                family.add_sample(f"{name}_count", labels, histogram.count)
            if family.samples:
                yield family


def _family(metric: Metric) -> Family:
    return Family(metric.prometheus_name.removesuffix("_total"), metric.help, metric.kind)
