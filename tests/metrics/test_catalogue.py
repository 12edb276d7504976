"""The table of metrics."""

from __future__ import annotations

import re

import pytest

from penstock.metrics import catalogue as m
from penstock.metrics.catalogue import CATALOGUE, Metric, find

EACH = pytest.mark.parametrize("metric", CATALOGUE.values(), ids=str)


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (m.POOL_ACQUIRE_WAIT, "penstock_pool_acquire_wait_seconds"),
        (m.POOL_ACQUIRES, "penstock_pool_acquires_total"),
        (m.WIRE_BYTES, "penstock_wire_bytes_total"),
        (m.CACHE_SIZE, "penstock_cache_size_bytes"),
        (m.OPTIMIZATION_SPEEDUP, "penstock_optimization_speedup_ratio"),
        (m.SELF, "penstock_self_seconds_total"),
        (m.BUILD_INFO, "penstock_build_info"),
    ],
)
def test_prometheus_names_are_made_of_name_unit_and_kind(metric: Metric, name: str) -> None:
    assert metric.prometheus_name == name


@EACH
def test_a_metric_is_found_by_any_of_its_names(metric: Metric) -> None:
    for name in (metric.name, metric.prometheus_name):
        assert find(name) is metric
        assert find(name[len("penstock.") :]) is metric
    assert find(metric) is metric


def test_no_two_metrics_have_one_name() -> None:
    assert len({metric.prometheus_name for metric in CATALOGUE.values()}) == len(CATALOGUE)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(KeyError, match=r"pool\.acquire_weight"):
        find("pool.acquire_weight")


@EACH
def test_no_label_tells_a_url_a_peer_or_a_connection(metric: Metric) -> None:
    assert not {"url", "host", "peer", "address", "connection", "id"} & set(metric.labels)


@EACH
def test_names_labels_and_help_are_well_formed(metric: Metric) -> None:
    assert re.fullmatch(r"penstock(\.[a-z][a-z_]*)+", metric.name)
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels)
    assert metric.help
    assert not metric.help.endswith(".")


@EACH
def test_bounds_of_histograms_ascend(metric: Metric) -> None:
    assert list(metric.bounds) == sorted(set(metric.bounds))


def test_metrics_are_equal_only_to_themselves() -> None:
    twin = Metric(m.SELF.name, m.SELF.kind, m.SELF.help, m.SELF.unit)
    assert twin != m.SELF
    assert repr(twin) == "<Metric penstock.self>"
