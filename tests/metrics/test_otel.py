"""Instruments of OpenTelemetry."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from penstock import MetricsCollector
from penstock.metrics import catalogue as m
from penstock.metrics.histogram import Histogram
from penstock.metrics.otel import OtelInstruments
from penstock.metrics.samples import Sample


def read(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    assert data is not None
    return {
        metric.name: metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def points(metric: Any) -> dict[frozenset[tuple[str, str]], float]:
    return {frozenset(point.attributes.items()): point.value for point in metric.data.data_points}


def test_all_that_is_reported_is_observed_under_names_with_dots() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    collector, histogram, asked = MetricsCollector(), Histogram(), []

    def source() -> list[Sample]:
        asked.append(1)
        return [
            Sample(m.POOL_ACQUIRES, 5, ("main", "waited")),
            Sample(m.CACHE_SIZE, 7),
            Sample(m.PING_RTT, histogram.snapshot(), ("client",)),
        ]

    collector.add_source(source)
    OtelInstruments(collector, provider.get_meter("test"), clock=lambda: 0.0)
    assert not asked
    collector.tick(0.0)
    for _ in range(9):
        histogram.record(0.25)
    collector.tick(1.0)
    asked.clear()
    found = read(reader)
    assert len(asked) == 1
    assert points(found["penstock.pool.acquires"]) == {frozenset({("pool", "main"), ("outcome", "waited")}): 5}
    assert found["penstock.pool.acquires"].data.is_monotonic
    assert points(found["penstock.cache.size"]) == {frozenset(): 7}
    assert found["penstock.cache.size"].unit == "By"
    assert points(found["penstock.ping.rtt.count"]) == {frozenset({("role", "client")}): 9}
    assert points(found["penstock.ping.rtt.sum"]) == {frozenset({("role", "client")}): 2.25}
    quantiles = points(found["penstock.ping.rtt.quantile"])
    assert {dict(labels)["quantile"] for labels in quantiles} == {"0.5", "0.9", "0.99"}
    assert all(0.23 < value < 0.27 for value in quantiles.values())
    provider.shutdown()


def test_the_global_provider_is_the_default() -> None:
    OtelInstruments(MetricsCollector())  # which does nothing, and raises nothing, until one is set
