"""When a stage is passed by, and when it is used again."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from penstock.manager.switch import LONGEST_REST, PROBES, Mode, Stage, Switch, Transition


def a_switch(choice: str = "auto", failures: int = 3) -> Switch:
    return Switch(Stage.POOL, "ws://a", choice, failures=failures, probe_after=60.0)  # type: ignore[arg-type]


def broken(switch: Switch, now: float = 0.0) -> Transition | None:
    last = None
    while switch.is_on:
        last = switch.failed(now, "boom")
    return last


def test_a_stage_that_fails_three_times_in_a_row_is_bypassed() -> None:
    switch = a_switch()
    assert switch.failed(1, "boom") is None
    assert switch.failed(2, "boom") is None
    assert switch.failed(3, "boom") == Transition(Stage.POOL, "ws://a", Mode.BYPASSED, "failure", 3)
    assert not switch.is_on
    assert switch.failure == "boom"


def test_a_success_in_between_starts_the_row_again() -> None:
    switch = a_switch()
    for _ in range(10):
        switch.failed(1, "boom")
        switch.failed(1, "boom")
        assert switch.is_shaky
        switch.worked(1)
        assert not switch.is_shaky
    assert switch.mode is Mode.OPTIMIZED


def test_a_bypassed_stage_is_probed_after_its_rest_and_then_used_again() -> None:
    switch = a_switch()
    broken(switch, now=10)
    assert switch.tick(69.9) is None
    probe = switch.tick(70)
    assert probe is not None
    assert probe.to is Mode.PROBING
    assert switch.is_on
    assert switch.is_shaky
    for _ in range(PROBES - 1):
        assert switch.worked(71) is None
    back = switch.worked(72)
    assert back is not None
    assert back.to is Mode.OPTIMIZED
    assert not switch.is_shaky


def test_one_failure_of_a_probe_doubles_the_rest_up_to_an_hour() -> None:
    switch = a_switch()
    broken(switch, now=0)
    now, rest = 0.0, 60.0
    for _ in range(10):
        assert switch.tick(now + rest - 0.1) is None
        now += rest
        assert switch.tick(now) is not None
        assert switch.failed(now, "again") is not None
        rest = min(rest * 2, LONGEST_REST)
    assert rest == LONGEST_REST


def test_what_is_bypassed_by_hand_stays_so_until_it_is_restored() -> None:
    switch = a_switch()
    assert switch.bypass(1, "by hand") is not None
    assert switch.tick(1e9) is None
    restored = switch.restore(2, "by hand")
    assert restored is not None
    assert restored.to is Mode.OPTIMIZED
    assert switch.restore(3, "by hand") is None


def test_by_hand_holds_on_though_an_alert_would_probe_later() -> None:
    switch = a_switch()
    switch.bypass(0, "an alert", seconds=5)
    switch.bypass(1, "by hand")
    assert switch.tick(100) is None
    assert not switch.is_on


def test_optimized_is_never_left_by_itself_but_by_hand() -> None:
    switch = a_switch("optimized")
    for _ in range(100):
        assert switch.failed(0, "boom") is None
    assert switch.bypass(0, "an alert", seconds=60) is None
    assert switch.is_on
    assert switch.bypass(0, "by hand") is not None
    assert not switch.is_on


def test_bypassed_is_never_probed() -> None:
    switch = a_switch("bypassed")
    assert not switch.is_on
    assert switch.failed(0, "late") is None
    assert switch.tick(1e9) is None
    assert not switch.is_shaky


@given(st.lists(st.sampled_from(["fail", "work", "tick", "bypass", "brief", "restore"]), max_size=60))
def test_what_it_tells_is_what_it_is(steps: list[str]) -> None:
    """Every change of the mode is told, none twice; `is_on` agrees with the mode; nothing lasts for ever in `auto`."""
    switch, now, told = a_switch(), 0.0, Mode.OPTIMIZED
    steps_of: dict[str, Callable[[float], Transition | None]] = {
        "fail": lambda now: switch.failed(now, "x"),
        "work": switch.worked,
        "tick": switch.tick,
        "bypass": lambda now: switch.bypass(now, "hand"),
        "brief": lambda now: switch.bypass(now, "alert", 30),
        "restore": lambda now: switch.restore(now, "hand"),
    }
    for step in steps:
        now += 10
        transition = steps_of[step](now)
        if transition is not None:
            assert transition.to is not told
            told = transition.to
        assert switch.mode is told
        assert switch.is_on == (told is not Mode.BYPASSED)
