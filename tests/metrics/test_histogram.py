"""Histograms against the values themselves."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from math import ceil, inf, nan

import pytest
from ddsketch import DDSketch
from hypothesis import assume, given
from hypothesis import strategies as st

from penstock.metrics.histogram import Histogram, HistogramSnapshot

NANOSECOND = 1e-9
ROUNDING = 1 + 1e-9

durations = st.one_of(
    st.floats(0, 1e-7),
    st.floats(0, 10),
    st.floats(0, 1e10),
    st.integers(0, 70).map(lambda power: 2**power / 1e9),
    st.integers(4, 70).map(lambda power: 2**power * (1 - 2**-20) / 1e9),
)
parts = st.floats(0, 1)


def recorded(*values: float) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    return histogram


@given(st.lists(durations, min_size=1), parts)
def test_a_quantile_is_near_the_exact_one(values: list[float], q: float) -> None:
    exact = sorted(values)[max(0, ceil(q * len(values)) - 1)]
    found = recorded(*values).snapshot().quantile(q)
    assert abs(found - exact) <= max(exact * 0.0625, NANOSECOND) * ROUNDING


@given(st.lists(st.floats(1e-6, 1e4), min_size=1), parts)
def test_a_quantile_is_near_that_of_a_sketch(values: list[float], q: float) -> None:
    assume(max(0, ceil(q * len(values)) - 1) == int(q * (len(values) - 1)))  # both mean the same value
    sketch = DDSketch(relative_accuracy=0.001)
    for value in values:
        sketch.add(value)
    assert recorded(*values).snapshot().quantile(q) == pytest.approx(sketch.get_quantile_value(q), rel=0.0645)


@given(st.lists(durations, min_size=1), parts, parts)
def test_quantiles_ascend(values: list[float], one: float, other: float) -> None:
    snapshot = recorded(*values).snapshot()
    assert snapshot.quantile(min(one, other)) <= snapshot.quantile(max(one, other))


@given(st.lists(durations), st.lists(durations))
def test_merging_equals_recording_all(some: list[float], others: list[float]) -> None:
    merged, other = recorded(*some), recorded(*others)
    before = other.snapshot()
    merged.merge(other)
    assert merged.snapshot() == recorded(*some, *others).snapshot()
    assert other.snapshot() == before


def test_merging_with_itself_doubles() -> None:
    histogram = recorded(0.001, 0.5)
    histogram.merge(histogram)
    assert histogram.snapshot() == recorded(0.001, 0.001, 0.5, 0.5).snapshot()


@given(st.lists(durations, min_size=1))
def test_count_sum_and_mean_are_those_of_the_values(values: list[float]) -> None:
    snapshot = recorded(*values).snapshot()
    assert snapshot.count == len(values)
    assert snapshot.sum == pytest.approx(sum(values), rel=1e-9, abs=len(values) * NANOSECOND)
    assert snapshot.mean == pytest.approx(sum(values) / len(values), rel=1e-9, abs=NANOSECOND)


@given(st.lists(durations))
def test_buckets_ascend_and_hold_every_value_once(values: list[float]) -> None:
    buckets = recorded(*values).snapshot().buckets
    bounds = [bound for bound, _ in buckets]
    assert bounds == sorted(set(bounds))
    assert all(number > 0 for _, number in buckets)
    assert sum(number for _, number in buckets) == len(values)


@given(durations)
def test_a_value_lies_below_the_bound_of_its_bucket_by_an_eighth_at_most(value: float) -> None:
    [(bound, number)] = recorded(value).snapshot().buckets
    assert number == 1
    assert value <= bound * ROUNDING
    assert bound - value <= max(value / 8, NANOSECOND) * ROUNDING


@pytest.mark.parametrize(
    ("nanoseconds", "bound"),
    [(0, 1), (1, 2), (7, 8), (8, 9), (15, 16), (16, 18), (17, 18), (30, 32), (31, 32), (32, 36), (1000, 1024)],
)
def test_an_octave_has_eight_buckets(nanoseconds: int, bound: int) -> None:
    # Half a nanosecond more, so that the product with 1e9 falls on no edge.
    [(seconds, _)] = recorded((nanoseconds + 0.5) / 1e9).snapshot().buckets
    assert seconds == bound / 1e9


def test_from_eight_nanoseconds_every_doubling_has_eight_buckets() -> None:
    values = [(nanoseconds + 0.5) / 1e9 for nanoseconds in range(8, 1024)]
    assert len(recorded(*values).snapshot().buckets) == 7 * 8


@pytest.mark.parametrize("value", [-1e-12, -1.0, -1e200])
def test_a_negative_duration_counts_as_zero(value: float) -> None:
    assert recorded(value).snapshot() == recorded(0.0).snapshot()
    assert recorded(value).snapshot().sum == 0.0


@pytest.mark.parametrize("value", [inf, -inf, nan])
def test_what_is_no_number_is_refused_and_leaves_no_trace(value: float) -> None:
    histogram = recorded(0.25)
    before = histogram.snapshot()
    with pytest.raises((OverflowError, ValueError)):
        histogram.record(value)
    assert histogram.snapshot() == before


def test_an_empty_histogram_has_zeros() -> None:
    snapshot = Histogram().snapshot()
    assert snapshot == HistogramSnapshot(count=0, sum=0.0, buckets=())
    assert snapshot.mean == 0.0
    assert [snapshot.quantile(q) for q in (0, 0.5, 1)] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("snapshot", [Histogram().snapshot(), recorded(0.25).snapshot()], ids=["empty", "one"])
@pytest.mark.parametrize("q", [-0.001, 1.001, 99, inf, -inf, nan])
def test_a_part_outside_zero_to_one_is_refused(snapshot: HistogramSnapshot, q: float) -> None:
    with pytest.raises(ValueError, match=r"^q=") as refusal:
        snapshot.quantile(q)
    assert repr(q) in str(refusal.value)
    assert "at least 0 and at most 1" in str(refusal.value)


def test_the_ends_are_the_least_and_the_greatest() -> None:
    snapshot = recorded(3.0, 0.001, 0.02).snapshot()
    assert snapshot.quantile(0) == pytest.approx(0.001, rel=0.0625)
    assert snapshot.quantile(1) == pytest.approx(3.0, rel=0.0625)


def test_a_snapshot_stays_as_it_was() -> None:
    histogram = recorded(0.25)
    snapshot = histogram.snapshot()
    histogram.record(0.5)
    assert snapshot == recorded(0.25).snapshot()
    with pytest.raises(FrozenInstanceError):
        snapshot.count = 2  # type: ignore[misc]


class Interrupted(dict[int, int]):
    """Counts of buckets; while they are read another thread records."""

    def __getitem__(self, index: int) -> int:
        self[index] = self.get(index, 0) + 1
        return super().__getitem__(index)


def test_a_snapshot_counts_what_its_buckets_have_though_another_thread_records() -> None:
    histogram = recorded(0.5, 1.0)
    histogram._counts = Interrupted(histogram._counts)
    snapshot = histogram.snapshot()
    assert snapshot.count == sum(number for _, number in snapshot.buckets) == 4


def test_neither_has_a_dictionary() -> None:
    assert not hasattr(Histogram(), "__dict__")
    assert not hasattr(Histogram().snapshot(), "__dict__")
