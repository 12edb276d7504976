"""What the charts show."""

from __future__ import annotations

import pytest

from penstock.dashboard.points import SERIES, points_after
from penstock.metrics import catalogue as m
from penstock.metrics.histogram import Histogram
from penstock.metrics.samples import MetricsSnapshot, distribution

EVERYTHING = float("-inf")


def reading(at: float, **counted: float) -> MetricsSnapshot:
    requests = {(result,): counted.get(result, 0.0) for result in ("hit", "stale", "miss", "coalesced")}
    return MetricsSnapshot(
        at,
        {
            m.MESSAGES: {("client", "sent"): counted.get("sent", 0.0), ("client", "received"): 0.0},
            m.CACHE_REQUESTS: requests,
            m.POOL_CONNECTIONS: {("main", "in_use"): counted.get("in_use", 0.0), ("main", "idle"): 7.0},
        },
    )


def test_rates_are_what_was_counted_between_two_readings_for_each_second() -> None:
    points = points_after([reading(0, sent=100), reading(10, sent=200), reading(11, sent=260)], EVERYTHING)
    assert points["at"] == [10, 11]
    assert points["messages_sent"] == [10, 60]
    assert points["messages_received"] == [0, 0]


def test_a_counter_that_began_anew_has_counted_all_that_it_has() -> None:
    assert points_after([reading(0, sent=100), reading(1, sent=30)], EVERYTHING)["messages_sent"] == [30]


def test_gauges_are_what_they_are() -> None:
    points = points_after([reading(0), reading(1, in_use=3)], EVERYTHING)
    assert (points["pool_in_use"], points["pool_idle"]) == ([3], [7])


def test_what_was_not_reported_is_not_known() -> None:
    points = points_after([MetricsSnapshot(0), MetricsSnapshot(1)], EVERYTHING)
    assert {name: points[name] for name in SERIES} == {name: [None] for name in SERIES}


def test_the_hit_ratio_counts_stale_answers_and_is_not_known_without_questions() -> None:
    readings = [reading(0), reading(1, hit=2, stale=1, miss=1), reading(2, hit=2, stale=1, miss=1)]
    assert points_after(readings, EVERYTHING)["cache_hit_ratio"] == [0.75, None]


def test_quantiles_are_of_what_was_recorded_between_two_readings() -> None:
    lag = Histogram()
    lag.record(5.0)
    before = MetricsSnapshot(0, {}, {m.EVENT_LOOP_LAG: {(): lag.snapshot()}})
    for _ in range(10):
        lag.record(0.001)
    now = MetricsSnapshot(1, {}, {m.EVENT_LOOP_LAG: {(): lag.snapshot()}})
    assert points_after([before, now], EVERYTHING)["lag_p99"] == [pytest.approx(0.001, rel=0.0625)]


def test_the_size_of_batches_is_their_mean() -> None:
    before = MetricsSnapshot(0, {}, {m.BATCH_MESSAGES: {(): distribution({64: 1}, 50)}})
    now = MetricsSnapshot(1, {}, {m.BATCH_MESSAGES: {(): distribution({64: 1, 8: 2}, 60)}})
    assert points_after([before, now], EVERYTHING)["batch_size"] == [5]


def test_only_younger_readings_have_points() -> None:
    readings = [reading(at, sent=at) for at in (0, 1, 2, 3)]
    assert points_after(readings, 1)["at"] == [2, 3]
    assert points_after(readings, 3)["at"] == []
    assert points_after([], EVERYTHING)["at"] == []
