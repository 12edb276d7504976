"""The rules that everybody has, and what they say in Prometheus' language."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import AlertRule
from penstock.metrics import catalogue as m
from penstock.metrics.alerts.expressions import (
    Above,
    Gauge,
    Increase,
    Quantile,
    Rate,
    Ratio,
    Selection,
    duration,
    number,
    select,
)
from penstock.metrics.alerts.rules import default_rules
from penstock.metrics.exports.rule_file import rule_file
from penstock.metrics.histogram import Histogram
from penstock.metrics.history import History
from penstock.metrics.samples import MetricsSnapshot
from support.prometheus import promtool

DEFAULT = default_rules()
EACH = pytest.mark.parametrize("rule", DEFAULT, ids=lambda rule: f"{rule.name}-{rule.severity}")


def test_promtool_accepts_the_rule_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.yml"
    path.write_text(rule_file(DEFAULT))
    assert f"{len(DEFAULT)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", path)


@EACH
def test_thresholds_of_durations_are_bounds_of_exported_histograms(rule: AlertRule) -> None:
    """Elsewhere Prometheus would interpolate, and come to another end."""
    if isinstance(rule.expression, Quantile):
        assert {rule.fire, rule.fire if rule.clear is None else rule.clear} <= set(m.DURATION_BOUNDS)


@EACH
def test_an_alert_is_told_apart_by_labels_that_its_metric_has(rule: AlertRule) -> None:
    parts, metrics = [rule.expression], []
    while parts:
        part = parts.pop()
        if isinstance(part, Ratio):
            parts += [part.part, part.whole]
        else:
            metrics.append(part.of.metric)  # type: ignore[attr-defined]
    assert all(set(rule.by) <= set(metric.labels) for metric in metrics)
    assert all("pool" in rule.by or "pool" not in metric.labels for metric in metrics)


def test_a_critical_rule_is_stricter_than_a_warning_of_the_same() -> None:
    for warning in (rule for rule in DEFAULT if rule.severity == "warning"):
        for critical in (rule for rule in DEFAULT if rule.name == warning.name and rule.severity == "critical"):
            assert critical.expression is not warning.expression or critical.fire > warning.fire


def history() -> History:
    found, lag = History(), Histogram()
    for at in (0.0, 10.0):
        counters = {("a", "x"): at * 3, ("a", "y"): at * 5, ("b", "x"): at * 7}
        gauges = {("a",): 4.0, ("b",): 0.0}
        if at:
            for _ in range(9):
                lag.record(0.25)
        found.add(
            MetricsSnapshot(
                at,
                {m.POOL_ACQUIRES: counters, m.POOL_WAITERS: gauges, m.MEMORY: {(): -1.0}},
                {m.POOL_USE: {("a",): lag.snapshot()}, m.POOL_CONNECT: {("b",): Histogram().snapshot()}},
            )
        )
    return found


X = select(m.POOL_ACQUIRES, outcome="x")


@pytest.mark.parametrize(
    ("expression", "by", "values"),
    [
        (Gauge(select(m.POOL_WAITERS)), (), {(): 4}),
        (Gauge(select(m.POOL_WAITERS)), ("pool",), {("a",): 4, ("b",): 0}),
        (Gauge(select(m.CACHE_SIZE)), (), {}),
        (Increase(X, 10), (), {(): 100}),
        (Increase(select(m.POOL_USE), 10), ("pool",), {("a",): 9}),
        (Rate(X, 10), ("pool",), {("a",): 3, ("b",): 7}),
        (Rate(select(m.POOL_ACQUIRES, outcome=("x", "y")), 10), (), {(): 15}),
        (Ratio(Rate(X, 10), Rate(select(m.POOL_ACQUIRES), 10)), ("pool",), {("a",): 3 / 8, ("b",): 1}),
        (Ratio(Gauge(select(m.POOL_WAITERS)), Gauge(select(m.POOL_WAITERS))), ("pool",), {("a",): 1}),
        (Ratio(Rate(X, 10), Gauge(select(m.CACHE_SIZE))), (), {}),
        (Ratio(Rate(X, 10), Gauge(select(m.MEMORY))), (), {}),
        (Quantile(select(m.POOL_CONNECT), 0.5, 10), (), {}),
    ],
)
def test_expressions_have_a_value_for_each_group(
    expression: Gauge | Increase | Rate | Ratio | Quantile, by: tuple[str, ...], values: object
) -> None:
    assert expression.values(history(), by) == values


def test_a_quantile_is_that_of_the_window() -> None:
    assert Quantile(select(m.POOL_USE), 0.5, 10).values(history(), ("pool",)) == {("a",): pytest.approx(0.25, rel=0.07)}


def test_nothing_is_known_before_there_are_two_readings() -> None:
    empty = History()
    assert Gauge(select(m.POOL_WAITERS)).values(empty, ()) == {}
    assert Rate(X, 10).values(empty, ()) == {}
    assert Above(Gauge(select(m.POOL_WAITERS))).holds(empty, ()) == set()


def test_a_label_that_its_metric_does_not_have_is_a_failure() -> None:
    with pytest.raises(KeyError, match="colour"):
        Gauge(select(m.POOL_WAITERS, colour="red")).values(history(), ())


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (Gauge(select(m.CACHE_SIZE)), "sum by (job, instance, pool) (penstock_cache_size_bytes)"),
        (Increase(X, 90), 'sum by (job, instance, pool) (increase(penstock_pool_acquires_total{outcome="x"}[90s]))'),
        (
            Rate(select(m.POOL_USE), 0.5),
            "sum by (job, instance, pool) (rate(penstock_pool_use_seconds_count[500ms]))",
        ),
        (
            Quantile(select(m.POOL_USE), 0.99, 120),
            "histogram_quantile(0.99, sum by (job, instance, pool, le) (rate(penstock_pool_use_seconds_bucket[2m])))",
        ),
    ],
)
def test_expressions_are_written_in_prometheus_language(
    expression: Gauge | Increase | Rate | Quantile, text: str
) -> None:
    assert expression.promql(("pool",)) == text


def test_several_values_of_a_label_are_a_pattern() -> None:
    assert Selection(m.POOL_CLOSED, (("reason", ("a", "b")),)).promql() == 'penstock_pool_closed_total{reason=~"a|b"}'


def test_values_of_labels_are_written_as_they_are_meant() -> None:
    odd = 'say "a\\b"\n'
    assert select(m.POOL_CLOSED, reason=odd).promql() == r'penstock_pool_closed_total{reason="say \"a\\b\"\n"}'
    assert select(m.POOL_CLOSED, reason=("1.0", "a|b")).promql() == r'penstock_pool_closed_total{reason=~"1\\.0|a\\|b"}'


def test_promtool_accepts_a_rule_with_odd_values(tmp_path: Path) -> None:
    expression = Increase(select(m.POOL_CLOSED, reason=('say "a\\b"\n', "1.0|x y")), 60)
    rules = [
        AlertRule(name="Odd", expression=expression, fire=float("inf"), clear=0, summary="odd: 'x'"),
        AlertRule(name="Low", expression=expression, fire=float("-inf"), below=True, summary="# low"),
    ]
    (tmp_path / "rules.yml").write_text(rule_file(rules))
    promtool("check", "rules", str(tmp_path / "rules.yml"))


def test_numbers_and_durations_are_short_and_exact() -> None:
    assert [duration(seconds) for seconds in (0, 0.25, 15, 60, 90, 600)] == ["0s", "250ms", "15s", "1m", "90s", "10m"]
    assert [number(value) for value in (0, 0.01, 2.0, 1e999, -1e999)] == ["0", "0.01", "2", "+Inf", "-Inf"]
