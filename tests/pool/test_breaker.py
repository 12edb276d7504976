from __future__ import annotations

import pytest

from penstock.pool.breaker import FAILURES, LONGEST_REST, Breaker

DOWN = OSError("down")


def broken(random: float = 0.5) -> Breaker:
    breaker = Breaker(lambda: random)
    for _ in range(FAILURES):
        breaker.failed(0.0, DOWN)
    return breaker


def test_an_attempt_waits_longer_after_every_failure_but_for_chance() -> None:
    breaker = Breaker(lambda: 0.5)
    assert breaker.delay(0) == 0
    delays = []
    for _ in range(FAILURES - 1):
        breaker.failed(0.0, DOWN)
        assert not breaker.refuses(0.0)
        delays.append(breaker.delay(0.0))
    assert delays == pytest.approx([0.05, 0.1, 0.2, 0.4])
    assert breaker.delay(10.0) == 0


def test_after_several_failures_attempts_are_refused_with_the_cause_at_hand() -> None:
    breaker = broken()
    assert breaker.refuses(0.1)
    assert breaker.cause is DOWN


def test_after_a_rest_one_probe_at_a_time_is_let_through() -> None:
    breaker = broken()
    assert not breaker.refuses(1.0)
    assert breaker.delay(1.0) == 0
    assert breaker.refuses(1.0)
    breaker.abandoned()
    assert not breaker.refuses(1.0)


def test_a_probe_that_fails_doubles_the_rest_up_to_a_bound() -> None:
    breaker, now, rests = broken(random=1.0), 0.0, []
    for _ in range(8):
        began = now
        while breaker.refuses(now):
            now += 0.5
        rests.append(now - began)
        breaker.failed(now, DOWN)
    assert rests == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_REST, LONGEST_REST, LONGEST_REST]


def test_a_success_forgets_all() -> None:
    breaker = broken()
    breaker.succeeded()
    assert not breaker.refuses(0.0)
    assert breaker.delay(0.0) == 0
    assert breaker.cause is None
