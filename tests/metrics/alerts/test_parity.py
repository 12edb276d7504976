"""Prometheus, with the exported rules, comes to the same alerts as the engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from penstock.metrics import catalogue as m
from penstock.metrics.alerts.engine import Alert, AlertEngine
from penstock.metrics.alerts.expressions import Above, Gauge, Increase, select
from penstock.metrics.alerts.rules import AlertRule, default_rules
from penstock.metrics.exports.rule_file import annotations_of, rule_file
from penstock.metrics.histogram import Histogram
from penstock.metrics.history import History
from penstock.metrics.samples import MetricsSnapshot, Reading, Sample
from support.prometheus import promtool, rule_test, series_of

POOLS = ("one", "two")


class Program:
    """Something that is measured, well or ill; the numbers are such that no ratio ever equals a threshold."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.counters: dict[tuple[m.Metric, tuple[str, ...]], int] = {}
        self.gauges: dict[tuple[m.Metric, tuple[str, ...]], float] = {}
        self.histograms: dict[tuple[m.Metric, tuple[str, ...]], Histogram] = {}
        self.state: dict[str, Any] = {}
        self.until: dict[str, float] = {}

    def choose(self, what: str, second: int, well: Any, *ill: Any) -> Any:
        """Well for the first minute, then something for a while."""
        if second < 65:
            return well
        if second >= self.until.get(what, 0):
            self.until[what] = second + self.random.choice((3, 20, 50, 90, 170))
            self.state[what] = self.random.choice((well, *ill))
        return self.state[what]

    def count(self, metric: m.Metric, number: int, *labels: str) -> None:
        self.counters[metric, labels] = self.counters.get((metric, labels), 0) + number

    def record(self, metric: m.Metric, seconds: float, *labels: str) -> None:
        histogram = self.histograms.setdefault((metric, labels), Histogram())
        for _ in range(7):
            histogram.record(seconds)

    def step(self, second: int) -> MetricsSnapshot:
        """Live for another second."""
        for pool in POOLS:
            self.step_pool(second, pool)
        self.step_connections(second)
        batch, gauges = self.choose, self.gauges
        self.record(m.BATCH_WAIT, batch("delay", second, 0.001, 0.05))
        gauges[m.BATCH_WAIT_MAX, ()] = 0.01
        gauges[m.BATCH_PENDING_MESSAGES, ()] = self.choose("pending", second, 30, 70, 90)
        gauges[m.BATCH_PENDING_MESSAGES_MAX, ()] = 100
        self.count(m.BATCH_DROPPED, self.choose("drop", second, 0, 0, 1), "expired")
        hits = self.choose("hits", second, 9, 2)
        self.count(m.CACHE_REQUESTS, hits - 1, "hit")
        self.count(m.CACHE_REQUESTS, 1, "stale")
        self.count(m.CACHE_REQUESTS, 13 - hits, "miss")
        self.record(m.EVENT_LOOP_LAG, self.choose("lag", second, 0.01, 0.1, 0.4))
        gauges[m.MEMORY, ()], gauges[m.MEMORY_BUDGET, ()] = self.choose("memory", second, 50, 80, 95), 100
        for stage in ("batch", "cache"):
            gauges[m.OPTIMIZATION_SPEEDUP, (stage,)] = self.choose(f"speed {stage}", second, 2, 1.05, 0.8)
            active = self.choose(f"fallback {stage}", second, 0, 1)
            changed = active != gauges.get((m.FALLBACK_ACTIVE, (stage,)), 0)
            self.count(m.FALLBACK_TRANSITIONS, int(changed), stage, "bypassed", "failure")
            gauges[m.FALLBACK_ACTIVE, (stage,)] = active
        reading = Reading()
        for values in (self.counters, self.gauges):
            reading.add(Sample(metric, float(value), labels) for (metric, labels), value in values.items())
        reading.add(Sample(metric, value.snapshot(), labels) for (metric, labels), value in self.histograms.items())
        return reading.snapshot(float(second))

    def step_pool(self, second: int, pool: str) -> None:
        gauges = self.gauges
        gauges[m.POOL_CONNECTIONS, (pool, "idle")] = 3
        gauges[m.POOL_CONNECTIONS, (pool, "in_use")] = self.choose(f"in use {pool}", second, 50, 80, 95)
        gauges[m.POOL_CONNECTIONS_MAX, (pool,)] = 100
        gauges[m.POOL_WAITERS, (pool,)] = self.choose(f"waiters {pool}", second, 0, 3, 4, 5)
        traffic = self.choose(f"traffic {pool}", second, 1, 1, 0)
        timeouts = self.choose(f"timeouts {pool}", second, 0, 1)
        self.count(m.POOL_ACQUIRES, 17 * traffic - timeouts * traffic, pool, "immediate")
        self.count(m.POOL_ACQUIRES, timeouts * traffic, pool, "timeout")
        failures = self.choose(f"failures {pool}", second, 0, 2)
        self.count(m.POOL_CONNECTS, (7 - failures) * traffic, pool, "opened")
        self.count(m.POOL_CONNECTS, failures * traffic, pool, "failed")
        wait = self.choose(f"wait {pool}", second, 0.02, 0.07, 0.15)
        if traffic:
            self.record(m.POOL_ACQUIRE_WAIT, wait, pool)

    def step_connections(self, second: int) -> None:
        traffic = self.choose("traffic", second, "full", "full", "full", "trickle", "none")
        messages = {"full": 103, "trickle": 1, "none": 0}[traffic]
        errors = self.choose("errors", second, 0, 4, 20)
        self.count(m.MESSAGES, messages, "client", "sent")
        self.count(m.ERRORS, errors if traffic == "full" else 0, "client", "TimeoutError")
        self.record(m.PING_RTT, self.choose("rtt", second, 0.05, 0.4, 2.0), "client")


def live(seed: int, seconds: int) -> Iterator[MetricsSnapshot]:
    program = Program(Random(seed))
    return (program.step(second) for second in range(seconds))


def expected_of(alert: Alert) -> dict[str, Any]:
    labels = {name: text for name, text in alert.all_labels().items() if name != "alertname"}
    return {"exp_labels": labels, "exp_annotations": annotations_of(alert.rule)}


def compare(directory: Path, rules: tuple[AlertRule, ...], snapshots: list[MetricsSnapshot], every: int) -> set[str]:
    """Let both judge; return the names of the rules that have fired."""
    engine, history = AlertEngine(rules), History(fine=700)
    expected, fired = [], set()
    for snapshot in snapshots:
        history.add(snapshot)
        changed = engine.evaluate(history, snapshot.at)
        fired |= {f"{alert.name} {alert.severity}" for alert in changed if alert.state == "firing"}
        if snapshot.at % every and not changed:
            continue
        for name in {rule.name for rule in rules}:
            firing = [alert for alert in engine.alerts if alert.name == name and alert.state == "firing"]
            expected.append(
                {
                    "eval_time": f"{snapshot.at:.0f}s",
                    "alertname": name,
                    "exp_alerts": [expected_of(alert) for alert in firing],
                }
            )
    promtool("test", "rules", rule_test(directory, rule_file(rules), series_of(snapshots), expected))
    return fired


def test_the_default_rules_fire_at_the_same_seconds(tmp_path: Path) -> None:
    fired = set()
    for seed in range(2):
        fired |= compare(tmp_path, default_rules(), list(live(seed, 700)), 20)
    missing = {f"{rule.name} {rule.severity}" for rule in default_rules()} - fired
    assert missing <= {"CacheHitLow info"}, f"never fired: {missing}"  # it takes its time: see below


def test_a_cache_that_answers_little_for_long_is_told_by_both(tmp_path: Path) -> None:
    program = Program(Random(1))
    program.state["hits"], program.until["hits"] = 2, 1300
    rules = tuple(rule for rule in default_rules() if rule.name in {"CacheHitLow", "FallbackFlapping"})
    fired = compare(tmp_path, rules, [program.step(second) for second in range(1700)], 50)
    assert "CacheHitLow info" in fired


@pytest.mark.parametrize("keep", [0, 5, 20])
def test_hysteresis_conditions_and_keeping_on_are_the_same(tmp_path: Path, keep: int) -> None:
    random = Random(keep)
    rule = AlertRule(
        name="Odd",
        expression=Gauge(select(m.CACHE_ENTRIES)),
        fire=5,
        clear=3,
        when=Above(Gauge(select(m.CACHE_SIZE)), 2.5),
        for_=3,
        keep_firing_for=keep,
        summary='a "quoted" text: with a colon',
    )
    other = AlertRule(
        name="Other",
        expression=Increase(select(m.EVENT_LOOP_LAG), 10),
        fire=20,
        min_samples=30,
        severity="info",
        action="call us",
        summary="counts",
    )
    lag, snapshots = Histogram(), []
    for second in range(400):
        for _ in range(random.choice((0, 0, 0, 7))):
            lag.record(0.001)
        level = random.choice((2, 4, 6, 6)) if second // 20 % 2 else random.choice((4, 6))
        numbers = {m.CACHE_ENTRIES: {(): float(level)}, m.CACHE_SIZE: {(): float(random.choice((2, 3, 4, 5)))}}
        snapshots.append(MetricsSnapshot(float(second), numbers, {m.EVENT_LOOP_LAG: {(): lag.snapshot()}}))
    assert compare(tmp_path, (rule, other), snapshots, 1) == {"Odd warning", "Other info"}
