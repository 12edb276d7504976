"""Pending, firing, resolved."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import AlertRule
from penstock.metrics import catalogue as m
from penstock.metrics.alerts.engine import BROKEN, RESOLVED_FOR, Alert, AlertEngine
from penstock.metrics.alerts.expressions import (
    Above,
    Expression,
    Gauge,
    Groups,
    Increase,
    Quantile,
    Rate,
    Ratio,
    select,
)
from penstock.metrics.history import History
from penstock.metrics.samples import Labels, MetricsSnapshot

ENTRIES = Gauge(select(m.CACHE_ENTRIES))
WAITERS = Gauge(select(m.POOL_WAITERS))


def rule(expression: Expression = ENTRIES, fire: float = 10, **options: object) -> AlertRule:
    return AlertRule(name="Odd", expression=expression, fire=fire, summary="odd", **options)  # type: ignore[arg-type]


class Bench:
    """An engine with one rule, and the gauge that it is about."""

    def __init__(self, one: AlertRule) -> None:
        self.engine, self.history, self.now = AlertEngine([one]), History(), 0.0

    def see(self, value: float | None, seconds: float = 1.0, **others: float) -> list[str]:
        """Let some time pass; return what has changed."""
        self.now += seconds
        numbers = {} if value is None else {m.CACHE_ENTRIES: {(): value}}
        numbers[m.POOL_WAITERS] = {(pool,): waiters for pool, waiters in others.items()}
        self.history.add(MetricsSnapshot(self.now, numbers))
        return [alert.state for alert in self.engine.evaluate(self.history, self.now)]

    @property
    def states(self) -> list[str]:
        return [alert.state for alert in self.engine.alerts]


def test_an_alert_is_pending_until_it_has_lasted() -> None:
    bench = Bench(rule(for_=3))
    assert bench.see(10) == []
    assert bench.states == []
    for _ in range(3):
        assert bench.see(11) == []
        assert bench.states == ["pending"]
    assert bench.see(12) == ["firing"]
    [alert] = bench.engine.alerts
    assert (alert.value, alert.since, alert.fired_at, alert.resolved_at) == (12, 2.0, 5.0, None)
    assert bench.see(13) == []
    assert bench.engine.alerts[0].value == 13


def test_what_was_pending_begins_anew_after_a_good_moment() -> None:
    bench = Bench(rule(for_=2))
    seen = [bench.see(value) for value in (11, 11, 9, 11, 11, 11)]
    assert seen == [[], [], [], [], [], ["firing"]]


def test_between_the_thresholds_an_alert_goes_on_and_none_begins() -> None:
    bench = Bench(rule(clear=5))
    assert [bench.see(value) for value in (7, 11, 7, 6, 5, 7, 11)] == [
        [],
        ["firing"],
        [],
        [],
        ["resolved"],
        [],
        ["firing"],
    ]


def test_a_rule_may_be_about_what_is_too_low() -> None:
    bench = Bench(rule(clear=15, below=True))
    assert [bench.see(value) for value in (12, 9, 12, 15)] == [[], ["firing"], [], ["resolved"]]


def test_what_is_not_known_any_more_is_resolved() -> None:
    bench = Bench(rule())
    assert [bench.see(value) for value in (11, None)] == [["firing"], ["resolved"]]
    [alert] = bench.engine.alerts
    assert (alert.value, alert.resolved_at) == (11, 2.0)


def test_a_resolved_alert_is_shown_for_a_while() -> None:
    bench = Bench(rule())
    bench.see(11)
    bench.see(0)
    bench.see(0, RESOLVED_FOR - 1)
    assert bench.states == ["resolved"]
    bench.see(0)
    assert bench.states == []


def test_it_may_go_on_firing_for_a_while() -> None:
    bench = Bench(rule(keep_firing_for=3))
    seen = [bench.see(value) for value in (11, 0, 0, 11, 0, 0, 0, 0)]
    assert seen == [["firing"], [], [], [], [], [], [], ["resolved"]]


def test_a_condition_matters_until_it_fires() -> None:
    bench = Bench(rule(when=Above(WAITERS), for_=1))
    assert bench.see(11, a=0) == []
    assert bench.see(11, a=1) == []
    assert bench.see(11, a=0) == []
    assert bench.see(11, a=1) == []
    assert bench.see(11, a=2) == ["firing"]
    assert bench.see(11, a=0) == []
    assert bench.see(1, a=2) == ["resolved"]


def test_each_group_has_an_alert_of_its_own() -> None:
    bench = Bench(rule(WAITERS, by=("pool",)))
    assert bench.see(0, a=11, b=3) == ["firing"]
    assert bench.see(0, a=3, b=11) == ["firing", "resolved"]
    assert {alert.labels: alert.state for alert in bench.engine.alerts} == {("a",): "resolved", ("b",): "firing"}
    assert bench.engine.alerts[0].all_labels() == {"alertname": "Odd", "severity": "warning", "pool": "b"}


def ratio(errors: float, messages: float, at: float) -> MetricsSnapshot:
    return MetricsSnapshot(at, {m.ERRORS: {("client", "X"): errors}, m.MESSAGES: {("client", "sent"): messages}})


def test_few_events_are_no_reason_to_fire_and_none_to_stop() -> None:
    share = Ratio(Rate(select(m.ERRORS), 10), Rate(select(m.MESSAGES), 10))
    engine, history, changed = AlertEngine([rule(share, 0.01, min_samples=100)]), History(), []
    for second, (errors, messages) in enumerate([(0, 0), (1, 2), (2, 99), (3, 150), (3, 150), (60, 400)]):
        history.add(ratio(errors, messages, second * 2.0))
        changed.append([alert.state for alert in engine.evaluate(history, second * 2.0)])
    assert changed == [[], [], [], ["firing"], [], []]
    for second in range(6, 12):
        history.add(ratio(60 + second, 400 + second, second * 2.0))
        changed.append([alert.state for alert in engine.evaluate(history, second * 2.0)])
    assert not any(changed[6:])
    history.add(ratio(71, 411, 100.0))
    assert [alert.state for alert in engine.evaluate(history, 100.0)] == ["resolved"]


@dataclass
class Broken:
    """An expression that fails as long as it is told to."""

    ill: bool = True
    samples: Expression | None = None

    def values(self, history: History, by: Labels) -> Groups:
        if self.ill:
            raise LookupError("no such thing")
        return {(): 1.0}

    def promql(self, by: Labels) -> str:
        return "vector(1)"


def test_a_rule_that_cannot_be_evaluated_is_an_alert() -> None:
    broken = Broken()
    bench = Bench(rule(broken))
    assert bench.see(0) == ["firing"]
    assert bench.see(0) == []
    [alert] = bench.engine.alerts
    assert alert.name == BROKEN
    assert alert.all_labels() == {
        "alertname": BROKEN,
        "severity": "warning",
        "rule": "Odd",
        "rule_severity": "warning",
    }
    assert "no such thing" in alert.summary
    assert [failed.name for failed, _ in bench.engine.failures] == ["Odd"]
    broken.ill = False
    assert bench.see(0) == ["resolved"]
    assert bench.engine.failures == []
    broken.ill = True
    assert bench.see(0) == ["firing"]
    broken.ill = False
    bench.see(0)
    bench.see(0, RESOLVED_FOR)
    assert bench.states == []


def test_the_condition_of_a_rule_may_fail_as_well_and_its_alerts_stay() -> None:
    broken = Broken(ill=False)
    bench = Bench(rule(when=Above(broken)))
    assert bench.see(11) == ["firing"]
    bench.see(0)
    broken.ill = True
    assert bench.see(11) == ["firing"]
    assert sorted(bench.states) == ["firing", "resolved"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "two words"}, "name="),
        ({"clear": 11}, "clear="),
        ({"clear": 9, "below": True}, "clear="),
        ({"for_": -1}, "for_="),
        ({"keep_firing_for": float("nan")}, "keep_firing_for="),
        ({"min_samples": 5}, "has no samples"),
        ({"fire": float("nan")}, "fire="),
        ({"clear": float("nan")}, "clear="),
        ({"for_": float("inf")}, "for_="),
        ({"keep_firing_for": float("inf")}, "keep_firing_for="),
        ({"severity": "page"}, "severity='page': must be one of info, warning, critical"),
        ({"action": "fall back", "by": ("pool",)}, "action='fall back': by must have 'stage'"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AlertRule(**{"name": "Odd", "expression": ENTRIES, "fire": 10, "summary": "odd", **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [0, -1, float("nan"), float("inf")])
def test_a_window_that_is_none_is_refused(window: float) -> None:
    for make in (Increase, Rate, lambda of, window: Quantile(of, 0.5, window)):
        with pytest.raises(ValueError, match="window="):
            make(select(m.EVENT_LOOP_LAG), window)


def test_a_value_that_is_no_number_is_not_beyond_anything() -> None:
    bench = Bench(rule(clear=5))
    assert bench.see(float("nan")) == []
    assert bench.see(float("inf")) == ["firing"]
    assert bench.see(float("nan")) == ["resolved"]
    assert bench.states == ["resolved"]


def test_when_the_clock_jumps_what_is_bad_on_both_sides_has_lasted() -> None:
    bench = Bench(rule(for_=60, keep_firing_for=60))
    bench.see(11)
    assert bench.see(11, seconds=86_400) == ["firing"]
    assert bench.see(0) == []
    assert bench.see(0, seconds=86_400) == ["resolved"]
    assert bench.see(11, seconds=86_400) == []
    assert bench.states == ["pending"]


def test_two_rules_of_one_name_need_two_severities() -> None:
    AlertEngine([rule(), rule(severity="critical")])
    with pytest.raises(ValueError, match="named Odd"):
        AlertEngine([rule(), rule()])


levels = st.lists(st.sampled_from([None, 0, 4, 6, 11]), max_size=60)


@given(levels, st.integers(0, 4), st.integers(0, 4))
def test_it_fires_exactly_after_it_was_bad_for_long_enough(values: list[float | None], for_: int, keep: int) -> None:
    """Against what the words say, each second looked at by itself."""
    bench = Bench(rule(clear=5, for_=for_, keep_firing_for=keep))
    firing, bad_for, good_for = False, 0, 0
    for value in values:
        level = -1.0 if value is None else value
        bad_for = bad_for + 1 if level > 10 else 0
        good_for = 0 if level > 5 else good_for + 1
        if not firing and bad_for > for_:
            firing, good_for = True, 0
            assert bench.see(value) == ["firing"]
        elif firing and good_for > keep:
            firing, bad_for = False, 0
            assert bench.see(value) == ["resolved"]
        else:
            assert bench.see(value) == []
        assert ("firing" in bench.states) == firing


@given(levels, st.integers(0, 3))
def test_an_alert_begins_and_ends_by_turns(values: list[float | None], for_: int) -> None:
    bench, told = Bench(rule(for_=for_)), list[Alert]()
    for value in values:
        bench.see(value)
        told += [alert for alert in bench.engine.alerts if bench.now in {alert.fired_at, alert.resolved_at}]
    assert all(one.state != other.state for one, other in pairwise(told))
    assert all(alert.since <= (alert.fired_at or 0) <= (alert.resolved_at or bench.now) for alert in told)
