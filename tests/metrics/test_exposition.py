"""Snapshots as text, as others read them."""

from __future__ import annotations

from itertools import product
from math import inf, nan

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from penstock import MetricsCollector
from penstock.metrics import catalogue as m
from penstock.metrics.exposition import number, openmetrics_text, prometheus_text
from penstock.metrics.histogram import Histogram
from penstock.metrics.prometheus import PrometheusCollector
from penstock.metrics.samples import MetricsSnapshot, Sample
from support.prometheus import promtool

ODD = 'a "quoted" \\ text\nof two lines'


def everything() -> list[Sample]:
    """A sample or more of each metric but those that a collector has itself."""
    histogram = Histogram()
    for value in (0.0001, 0.04, 0.04, 7.0, 5000.0):
        histogram.record(value)
    own = {m.BUILD_INFO, m.EVENT_LOOP_LAG, m.SELF, m.SELF_FAILURES}
    return [
        Sample(metric, histogram.snapshot() if metric.kind == "histogram" else 2.5, labels)
        for metric in m.CATALOGUE.values()
        if metric not in own
        for labels in product(*(("x", ODD) for _ in metric.labels))
    ]


@pytest.fixture
def snapshot() -> MetricsSnapshot:
    collector = MetricsCollector()
    collector.add_source(everything)
    return collector.snapshot()


def values(families: object) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families  # type: ignore[attr-defined]
        for sample in family.samples
    }


def test_both_formats_say_what_there_is(snapshot: MetricsSnapshot) -> None:
    plain = values(parse(prometheus_text(snapshot)))
    assert plain == values(parse_openmetrics(openmetrics_text(snapshot)))
    assert plain["penstock_cache_entries", frozenset()] == 2.5
    assert plain["penstock_pool_closed_total", frozenset({("pool", ODD), ("reason", "x")})] == 2.5
    waits = {
        bound: plain["penstock_batch_wait_seconds_bucket", frozenset({("le", bound)})] for bound in ("0.025", "0.05")
    }
    assert waits == {"0.025": 1, "0.05": 3}
    assert plain["penstock_batch_wait_seconds_bucket", frozenset({("le", "+Inf")})] == 5
    assert plain["penstock_batch_wait_seconds_count", frozenset()] == 5
    assert plain["penstock_batch_wait_seconds_sum", frozenset()] == pytest.approx(5007.0801)


def test_each_family_has_kind_and_help(snapshot: MetricsSnapshot) -> None:
    families = {family.name: family for family in parse_openmetrics(openmetrics_text(snapshot))}
    for metric in m.CATALOGUE.values():
        family = families[metric.prometheus_name.removesuffix("_total")]
        assert (family.type, family.documentation, family.unit) == (metric.kind, metric.help, metric.unit)


def test_promtool_finds_nothing_to_object_to(snapshot: MetricsSnapshot) -> None:
    assert promtool("check", "metrics", stdin=prometheus_text(snapshot)) == ""


def test_a_registry_of_prometheus_client_has_the_same() -> None:
    collector, registry = MetricsCollector(), CollectorRegistry()
    collector.add_source(everything)
    registry.register(PrometheusCollector(collector))
    theirs = values(parse(generate_latest(registry).decode()))
    ours = values(parse(prometheus_text(collector.snapshot())))
    changing = ("penstock_self_seconds_total", frozenset[tuple[str, str]]())
    theirs.pop(changing)
    ours.pop(changing)
    assert theirs == ours


def test_registering_reads_nothing() -> None:
    collector, registry, asked = MetricsCollector(), CollectorRegistry(), []
    collector.add_source(lambda: asked.append(1) or [])
    registry.register(PrometheusCollector(collector))
    assert not asked


def test_nothing_makes_an_empty_text() -> None:
    assert prometheus_text(MetricsSnapshot(0.0)) == ""
    assert openmetrics_text(MetricsSnapshot(0.0)) == "# EOF\n"


@pytest.mark.parametrize(("value", "text"), [(1, "1.0"), (inf, "+Inf"), (-inf, "-Inf"), (nan, "NaN"), (1e-5, "1e-05")])
def test_numbers_are_written_as_go_reads_them(value: float, text: str) -> None:
    assert number(value) == text
