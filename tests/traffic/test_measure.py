from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.traffic.measure import Run, median_run, quantile


def test_the_rate_is_messages_by_time() -> None:
    assert Run(messages=10, seconds=0.5).rate == 20
    assert Run().rate == 0


def test_the_median_is_taken_field_by_field() -> None:
    runs = [Run(messages=1, seconds=9), Run(messages=3, seconds=1), Run(messages=2, seconds=5)]
    assert median_run(runs) == Run(messages=2, seconds=5)


def test_what_no_run_could_measure_stays_unknown() -> None:
    assert median_run([Run(), Run()]).server_cpu is None
    assert median_run([Run(server_cpu=0.5), Run()]).server_cpu == 0.5


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_quantile_is_one_of_the_values_with_as_many_below_it(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert found in values
    assert sum(value < found for value in values) <= share * len(values)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_quantiles_of_four_values(share: float, expected: float) -> None:
    assert quantile([1, 2, 3, 4], share) == expected


def test_a_run_is_written_with_its_rate() -> None:
    assert Run(messages=4, seconds=2).as_json()["rate"] == 2
