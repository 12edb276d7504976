"""What happened between snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import MetricsCollector
from penstock.metrics import catalogue as m
from penstock.metrics.histogram import EMPTY, Histogram, HistogramSnapshot
from penstock.metrics.history import History, quantile_between
from penstock.metrics.samples import MetricsSnapshot

durations = st.lists(st.floats(0, 10), max_size=30)
parts = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
near = st.sampled_from(m.DURATION_BOUNDS).flatmap(lambda bound: st.floats(bound * 0.93, bound * 1.07))


def counted(at: float, value: float, label: str = "x") -> MetricsSnapshot:
    return MetricsSnapshot(at, {m.BATCH_FLUSHES: {(label,): value}})


def increase(history: History, window: float) -> float:
    return history.delta(m.BATCH_FLUSHES, window, {})


def test_a_window_begins_with_the_snapshot_that_is_as_old() -> None:
    history = History()
    for second in range(100):
        history.add(counted(float(second), second * second))
    assert increase(history, 10) == 99**2 - 89**2
    assert history.elapsed(10) == 10
    assert increase(history, 9.5) == 99**2 - 89**2
    assert history.elapsed(1000) == 99


def test_before_the_second_snapshot_nothing_has_happened() -> None:
    history = History()
    assert history.latest is None
    assert (increase(history, 10), history.elapsed(10)) == (0, 0)
    history.add(counted(0.0, 5))
    assert (increase(history, 10), history.elapsed(10)) == (0, 0)
    assert history.delta(m.CACHE_ENTRIES, 10, {}) == 0


def test_what_is_remembered_is_bounded_and_reaches_far_enough() -> None:
    history = History(fine=60, step=10, span=900)
    for second in range(5000):
        history.add(counted(float(second), second))
    assert len(history) <= 61 + 92
    assert increase(history, 60) == 60
    for window in (100, 333, 600, 900):
        assert window <= increase(history, window) <= window + 10


class Interrupted(dict[Any, float]):
    """Values of a metric; while they are read another thread does something."""

    def __init__(self, values: dict[Any, float], meanwhile: Callable[[], None]) -> None:
        super().__init__(values)
        self._meanwhile = meanwhile

    def items(self) -> Any:
        self._meanwhile()
        return super().items()


def test_what_another_thread_looked_up_before_the_latest_reading_is_not_taken_for_that() -> None:
    history = History()
    history.add(counted(0.0, 0))
    newer = counted(2.0, 100)
    values = Interrupted({("x",): 1.0}, lambda: history.add(newer) if history.latest is not newer else None)
    history.add(MetricsSnapshot(1.0, {m.BATCH_FLUSHES: values}))
    increase(history, 10)
    assert increase(history, 10) == 100
    assert history.elapsed(10) == 2


def test_what_another_thread_is_looking_up_is_not_taken_for_all_of_it() -> None:
    history = History()
    history.add(counted(0.0, 0))
    seen: list[float] = []

    def look() -> None:
        if not seen:
            seen.append(0)
            seen[0] = increase(history, 10)

    history.add(MetricsSnapshot(1.0, {m.BATCH_FLUSHES: Interrupted({("x",): 7.0}, look)}))
    assert increase(history, 10) == 7
    assert seen == [7]


def test_two_readings_at_the_same_moment_have_no_rate() -> None:
    collector = MetricsCollector()
    for _ in range(2):
        collector.tick(1.0)
    assert collector.rate("self", 10) == 0
    assert collector.history.elapsed(10) == 0


def test_its_snapshots_come_oldest_first() -> None:
    history = History(fine=3, step=2, span=100)
    for second in range(10):
        history.add(counted(second, second))
    assert [one.at for one in history] == [0, 2, 4, 6, 7, 8, 9]


def test_a_counter_that_begins_anew_or_at_all_has_counted_all_it_has() -> None:
    history = History()
    history.add(counted(0.0, 100))
    history.add(counted(1.0, 7))
    assert increase(history, 1) == 7
    history.add(counted(2.0, 3, "y"))
    assert increase(history, 1) == 3


def test_a_gauge_may_fall() -> None:
    history = History()
    for at, value in ((0.0, 9.0), (1.0, 4.0)):
        history.add(MetricsSnapshot(at, {m.CACHE_ENTRIES: {(): value}}))
    assert history.delta(m.CACHE_ENTRIES, 1, {}) == -5


@given(durations, durations, parts)
def test_a_quantile_of_a_window_is_that_of_what_was_recorded_in_it(
    before: list[float], after: list[float], q: float
) -> None:
    whole, late = Histogram(), Histogram()
    for value in before:
        whole.record(value)
    then = whole.snapshot()
    for value in after:
        whole.record(value)
        late.record(value)
    now, wanted = whole.snapshot(), late.snapshot()
    assert now.since(then).buckets == wanted.buckets
    assert now.since(then).sum == pytest.approx(wanted.sum)
    found = quantile_between([(now, then)], q)
    assert found == (wanted.quantile(q) if after else None)
    twice = quantile_between([(now, then), (now, then), (now, now)], q)
    assert twice == (wanted.merged(wanted).quantile(q) if after else None)


def test_half_of_two_values_do_not_exceed_the_first() -> None:
    histogram = Histogram()
    histogram.record(0.1)
    histogram.record(0.2)
    assert histogram.snapshot().quantile_since(EMPTY, 0.5) == histogram.snapshot().quantile(0.5) < 0.15


def test_a_histogram_that_begins_anew_has_recorded_all_it_has() -> None:
    old = HistogramSnapshot(3, 3.0, ((1.0, 1), (2.0, 2)))
    for new in (
        HistogramSnapshot(1, 0.5, ((0.5, 1),)),
        HistogramSnapshot(9, 4.5, ((0.5, 9),)),
        HistogramSnapshot(4, 4.5, ((0.5, 1), (1.0, 2), (2.0, 1))),
    ):
        assert new.since(old) == new
        assert new.quantile_since(old, 0.5) == new.quantile(0.5)
    assert old.since(EMPTY) is old
    history = History()
    for at, snapshot in enumerate((old, HistogramSnapshot(1, 0.5, ((0.5, 1),)))):
        history.add(MetricsSnapshot(float(at), {}, {m.BATCH_WAIT: {(): snapshot}}))
    assert history.delta(m.BATCH_WAIT, 1, {}) == 1


@given(st.lists(near, max_size=30), st.floats(0.001, 1), st.sampled_from(m.DURATION_BOUNDS))
def test_a_quantile_exceeds_a_bound_exactly_where_prometheus_says_so(
    values: list[float], q: float, bound: float
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    snapshot = histogram.snapshot()
    [within] = snapshot.at_most([bound])
    assert (snapshot.quantile(q) > bound) == (within < q * snapshot.count)


def test_a_bucket_that_a_bound_divides_counts_where_its_middle_is() -> None:
    histogram = Histogram()
    histogram.record(0.1)  # in a bucket from 0.0923 to 0.1007 s
    assert histogram.snapshot().at_most([0.05, 0.1, 0.2]) == [0, 1, 1]


def test_a_part_outside_zero_to_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"q=1\.5"):
        History().quantile(m.BATCH_WAIT, 1.5, 60, {})
