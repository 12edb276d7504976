from __future__ import annotations

from math import inf

import pytest

from penstock.pool.breaker import FAILURES, LONGEST_ASKED, LONGEST_REST, Breaker

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


def test_asking_whether_it_is_open_takes_no_probe() -> None:
    breaker = broken()
    assert breaker.is_open(0.1)
    assert not breaker.is_open(1.0)
    assert not breaker.refuses(1.0)
    assert breaker.is_open(1.0)
    assert not Breaker(lambda: 0.5).is_open(0.0)


def test_an_attempt_is_worth_it_when_the_rest_and_the_pause_are_over() -> None:
    breaker = broken()
    assert breaker.retry_at == 0.75
    breaker.rejected(0.0, policy=True)
    assert breaker.retry_at == 3.75
    assert Breaker(lambda: 0.5).retry_at == 0.0


def test_a_server_that_asks_for_rest_gets_it_at_once_and_then_one_probe() -> None:
    breaker = Breaker(lambda: 0.0)
    breaker.failed(10.0, DOWN, rest=7.0)
    assert breaker.retry_at == 17.0
    assert breaker.is_open(16.9)
    assert breaker.refuses(16.9)
    assert not breaker.refuses(17.0)
    assert breaker.refuses(17.0)
    breaker.succeeded()
    assert not breaker.refuses(17.0)
    assert not breaker.refuses(17.0)


def test_a_server_cannot_ask_for_ever() -> None:
    breaker = Breaker(lambda: 0.0)
    breaker.failed(0.0, DOWN, rest=inf)
    assert breaker.retry_at == LONGEST_ASKED


@pytest.mark.parametrize("rest", [None, 1.0])
def test_an_attempt_under_way_that_fails_does_not_shorten_the_rest_that_was_asked_for(rest: float | None) -> None:
    breaker = Breaker(lambda: 0.0)
    breaker.failed(0.0, DOWN, rest=100.0)
    breaker.failed(1.0, DOWN, rest=rest)
    assert breaker.retry_at == 100.0
    assert breaker.refuses(99.0)


def pauses(random: float, *, policy: bool, apart: float) -> list[float]:
    """How long attempts wait after each of some rejections, with a successful connect before each."""
    breaker, found = Breaker(lambda: random), []
    for number in range(6):
        now = 1000.0 + number * apart
        breaker.succeeded()
        breaker.rejected(now, policy=policy)
        found.append(breaker.delay(now))
    return found


def test_a_policy_keeps_away_for_longer_with_every_rejection_whatever_connects_between() -> None:
    assert pauses(1.0, policy=True, apart=59.0) == [5.0, 10.0, 20.0, 30.0, 30.0, 30.0]
    assert pauses(0.0, policy=True, apart=59.0) == [2.5, 5.0, 10.0, 15.0, 15.0, 15.0]


def test_an_overloaded_server_is_left_alone_for_a_time_drawn_from_the_whole_step() -> None:
    assert pauses(1.0, policy=False, apart=59.0) == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert pauses(0.0, policy=False, apart=59.0) == [0.0] * 6


@pytest.mark.parametrize(("policy", "first"), [(True, 5.0), (False, 1.0)])
def test_rejections_are_forgiven_when_none_came_for_a_while(policy: bool, first: float) -> None:
    assert pauses(1.0, policy=policy, apart=60.1) == [first] * 6


def test_very_many_rejections_are_no_longer_a_pause_than_the_longest() -> None:
    breaker = Breaker(lambda: 1.0)
    for second in range(10_000):
        breaker.rejected(float(second), policy=False)
    assert breaker.delay(9999.0) == 30.0


def test_connections_that_are_closed_together_count_as_one_rejection() -> None:
    breaker = Breaker(lambda: 1.0)
    for _ in range(100):
        breaker.rejected(5.0, policy=False)
    assert breaker.delay(5.0) == 1.0


def test_a_rest_that_was_asked_for_does_not_end_for_all_programs_at_once() -> None:
    breaker = Breaker(lambda: 0.5)
    breaker.failed(0.0, DOWN, rest=100.0)
    assert breaker.retry_at == 105.0


def test_trouble_is_remembered_for_as_long_as_it_matters() -> None:
    breaker = Breaker(lambda: 0.0)
    assert not breaker.remembers(0.0)
    breaker.failed(0.0, DOWN, rest=100.0)
    assert breaker.remembers(159.0)
    assert not breaker.remembers(161.0)


def test_an_attempt_waits_for_the_longer_of_backoff_and_pause() -> None:
    breaker = Breaker(lambda: 1.0)
    breaker.rejected(0.0, policy=True)
    breaker.failed(0.0, DOWN)
    assert breaker.delay(0.0) == 5.0
    assert breaker.delay(5.0) == 0.0
    breaker = Breaker(lambda: 0.01)
    breaker.rejected(0.0, policy=False)
    for _ in range(4):
        breaker.failed(0.0, DOWN)
    breaker.failed(0.0, DOWN, rest=3.0)
    assert breaker.delay(0.0) == 0.01, "a rest refuses, and does not delay"


def test_a_pause_delays_attempts_and_refuses_none() -> None:
    breaker = Breaker(lambda: 0.5)
    breaker.rejected(0.0, policy=True)
    assert not breaker.is_open(0.0)
    assert not breaker.refuses(0.0)


def test_it_is_quiet_until_something_happens_and_again_when_the_pause_is_over() -> None:
    breaker = Breaker(lambda: 0.5)
    assert breaker.quiet(0.0)
    breaker.failed(0.0, DOWN)
    assert not breaker.quiet(0.04)
    assert breaker.quiet(0.06)
    breaker.rejected(1.0, policy=False)
    assert not breaker.quiet(1.4)
    assert breaker.quiet(1.5)


def test_after_an_outage_it_is_quiet_once_rested_but_not_while_a_probe_is_out() -> None:
    breaker = broken()
    assert not breaker.quiet(0.7)
    assert breaker.quiet(1.0)
    assert not breaker.refuses(1.0)
    assert not breaker.quiet(1.0)
    breaker.abandoned()
    assert breaker.quiet(1.0)


def test_a_denial_makes_nobody_wait_and_is_not_quiet_until_a_success() -> None:
    breaker, no = broken(), PermissionError("no")
    breaker.denied(no)
    assert breaker.cause is no
    assert not breaker.refuses(0.1)
    assert breaker.delay(0.1) == 0.0
    assert not breaker.quiet(1e9)
    breaker.failed(2.0, DOWN)
    assert not breaker.quiet(1e9)
    breaker.succeeded()
    assert breaker.quiet(2.0)
    assert breaker.cause is None


def test_a_denial_ends_the_probe_and_the_rest_that_was_asked_for() -> None:
    breaker = Breaker(lambda: 0.0)
    breaker.failed(0.0, DOWN, rest=5.0)
    assert not breaker.refuses(5.0)
    breaker.denied(DOWN)
    assert not breaker.refuses(5.0)
    assert not breaker.refuses(5.0)


def test_a_denial_does_not_end_a_pause_that_the_peer_asked_for() -> None:
    breaker = Breaker(lambda: 1.0)
    breaker.rejected(0.0, policy=True)
    breaker.denied(DOWN)
    assert breaker.delay(0.0) == 5.0
