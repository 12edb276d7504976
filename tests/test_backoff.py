"""Delays grow, and scatter."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.backoff import FACTOR, INITIAL_DELAY, MAX_DELAY, MIN_DELAY, backoff

chances = st.floats(0, 1, exclude_max=True)


def take(number: int, chance: float, **options: float) -> list[float]:
    return list(islice(backoff(lambda: chance, **options), number))


def test_the_first_delay_is_anywhere_below_its_bound() -> None:
    assert take(1, 0.0) == [0.0]
    assert take(1, 0.5) == [INITIAL_DELAY / 2]
    assert take(1, 0.999)[0] < INITIAL_DELAY


def test_later_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    delays = take(5, 0.0, initial=1, minimum=2, maximum=9, factor=2)
    assert delays == [0, 1, 2, 4, 4.5]


def test_delays_go_on_for_ever() -> None:
    assert take(10_000, 0.0)[-1] == MAX_DELAY / 2


@given(chances, st.integers(1, 40))
def test_each_later_delay_lies_in_the_upper_half_of_its_step(chance: float, number: int) -> None:
    step = min(MIN_DELAY * FACTOR ** (number - 1), MAX_DELAY)
    assert step / 2 * 0.999 <= take(number + 1, chance)[number] <= step * 1.001


@given(st.lists(chances, min_size=30, max_size=30))
def test_no_delay_is_negative_or_longer_than_the_maximum(draws: list[float]) -> None:
    numbers = iter(draws)
    assert all(0 <= delay <= MAX_DELAY for delay in islice(backoff(lambda: next(numbers)), 30))


@pytest.mark.parametrize("attempt", [0, 1, 5, 20])
def test_clients_with_other_luck_come_back_at_other_moments(attempt: int) -> None:
    unlucky, lucky = take(attempt + 1, 0.1)[attempt], take(attempt + 1, 0.9)[attempt]
    assert lucky - unlucky > 0.3 * lucky
