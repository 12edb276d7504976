from __future__ import annotations

from collections import Counter
from math import nan
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.pool.breaker import FAILURES, Breaker
from penstock.pool.endpoints import Endpoint, choose

DOWN = OSError("down")


def endpoint(name: str, *, weight: float = 1.0, opened: int = 0) -> Endpoint:
    made = Endpoint(f"ws://{name}", weight, Breaker(lambda: 0.5))
    made.open = opened
    return made


def half() -> float:
    return 0.5


@pytest.mark.parametrize("weight", [0, -1.0, nan])
def test_a_weight_that_is_not_above_zero_is_refused_and_named(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"weight={weight!r}: must be more than 0"):
        endpoint("a", weight=weight)


def test_a_new_endpoint_has_no_connections() -> None:
    new = endpoint("a")
    assert (new.open, new.leased) == (0, 0)


def test_the_only_endpoint_is_chosen_even_if_it_refuses() -> None:
    only = endpoint("a")
    only.breaker.failed(0.0, DOWN, rest=5.0)
    assert choose([only], 0.0, half) is only


def test_the_one_with_fewest_connections_for_its_weight_comes_first() -> None:
    small, large = endpoint("small", opened=2), endpoint("large", weight=4, opened=7)
    assert choose([small, large], 0.0, half) is large
    large.open = 9
    assert choose([small, large], 0.0, half) is small


def test_a_tie_is_left_to_chance() -> None:
    endpoints, random = [endpoint(name) for name in "abc"], Random(1).random
    chosen = Counter(choose(endpoints, 0.0, random).url for _ in range(3000))
    assert min(chosen.values()) > 900


def test_one_that_works_comes_before_one_that_backs_off() -> None:
    busy, failing = endpoint("busy", opened=50), endpoint("failing")
    failing.breaker.failed(0.0, DOWN)
    assert choose([failing, busy], 0.0, half) is busy
    assert choose([failing, busy], 1.0, half) is failing


def test_one_that_asked_to_be_left_alone_comes_after_one_that_did_not() -> None:
    busy, restarting = endpoint("busy", opened=50), endpoint("restarting")
    restarting.breaker.rejected(0.0, policy=False)
    assert choose([restarting, busy], 0.0, half) is busy


def test_one_that_backs_off_comes_before_one_that_refuses() -> None:
    pausing, refusing = endpoint("pausing", opened=50), endpoint("refusing")
    pausing.breaker.rejected(0.0, policy=True)
    refusing.breaker.failed(0.0, DOWN, rest=0.5)
    assert choose([refusing, pausing], 0.0, half) is pausing


def test_if_all_refuse_the_one_that_may_be_tried_soonest_is_chosen() -> None:
    soon, late = endpoint("soon", opened=50), endpoint("late")
    soon.breaker.failed(0.0, DOWN, rest=5.0)
    late.breaker.failed(0.0, DOWN, rest=6.0)
    assert choose([late, soon], 0.0, half) is soon


def test_one_that_failed_last_has_one_attempt_at_a_time() -> None:
    busy, failed = endpoint("busy", opened=50), endpoint("failed")
    failed.breaker.failed(0.0, DOWN)
    assert choose([failed, busy], 1.0, half) is failed
    failed.attempts = 1
    assert choose([failed, busy], 1.0, half) is busy
    failed.attempts = 0
    assert choose([failed, busy], 1.0, half) is failed
    failed.attempts = 1
    failed.breaker.succeeded()
    assert choose([failed, busy], 1.0, half) is failed


def test_choosing_takes_no_probe() -> None:
    rested, other = endpoint("rested"), endpoint("other", opened=1)
    for _ in range(FAILURES):
        rested.breaker.failed(0.0, DOWN)
    assert choose([rested, other], 5.0, half) is rested
    assert not rested.breaker.refuses(5.0)


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(0, 2**32))
def test_connections_spread_by_weight(weights: list[int], seed: int) -> None:
    endpoints, random = [endpoint(str(number), weight=weight) for number, weight in enumerate(weights)], Random(seed)
    for _ in range(sum(weights) * 3):
        choose(endpoints, 0.0, random.random).open += 1
    assert [one.open for one in endpoints] == [weight * 3 for weight in weights]


def test_what_is_logged_of_an_endpoint_has_no_password() -> None:
    endpoint = Endpoint("ws://user:secret@host:1/path", 1.0, Breaker(lambda: 0.5))
    assert endpoint.shown == "ws://host:1/path"
