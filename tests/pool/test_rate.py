from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.pool.rate import RateLimit


def test_after_a_burst_places_are_evenly_spaced() -> None:
    limit = RateLimit(10, 3)
    assert [limit.reserve(100.0) for _ in range(6)] == pytest.approx([0, 0, 0, 0.1, 0.2, 0.3])


def test_a_rest_allows_another_burst_and_no_more() -> None:
    limit = RateLimit(10, 3)
    for _ in range(3):
        limit.reserve(0.0)
    assert [limit.reserve(1000.0) for _ in range(4)] == pytest.approx([0, 0, 0, 0.1])


def test_a_short_rest_gives_back_as_much_as_it_is_long() -> None:
    limit = RateLimit(10, 3)
    for _ in range(3):
        limit.reserve(0.0)
    assert [limit.reserve(0.25) for _ in range(3)] == pytest.approx([0, 0, 0.05])


def test_without_a_limit_nobody_waits() -> None:
    limit = RateLimit(inf, 1)
    assert [limit.reserve(now) for now in (0.0, 0.0, 0.0, 5.0, 5.0)] == [0.0] * 5


def test_the_clock_may_start_anywhere() -> None:
    limit = RateLimit(1, 1)
    assert [limit.reserve(-50.0), limit.reserve(-50.0)] == [0.0, 1.0]


rates = st.floats(0.01, 1e4)
gaps = st.lists(st.one_of(st.just(0.0), st.floats(0, 5)), min_size=1, max_size=60)


@given(rates, st.integers(1, 20), gaps)
def test_no_window_has_more_than_a_burst_and_what_the_rate_allows(rate: float, burst: int, gaps: list[float]) -> None:
    limit, now, granted = RateLimit(rate, burst), 0.0, []
    for gap in gaps:
        now += gap
        wait = limit.reserve(now)
        assert wait >= 0
        granted.append(now + wait)
    assert granted == sorted(granted)
    for first, began in enumerate(granted):
        for last in range(first, len(granted)):
            window = granted[last] - began
            assert last - first + 1 <= burst + rate * window + 1e-6


@given(rates, st.integers(1, 20), gaps)
def test_nobody_waits_longer_than_the_rate_demands(rate: float, burst: int, gaps: list[float]) -> None:
    limit, now = RateLimit(rate, burst), 0.0
    for number, gap in enumerate(gaps):
        now += gap
        assert limit.reserve(now) <= max(0, number - burst + 1) / rate + 1e-6
