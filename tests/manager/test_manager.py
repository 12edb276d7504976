"""Modes by stage and URL: by hand, by failures, by alerts."""

from __future__ import annotations

import logging

import pytest

from penstock.manager.manager import PerformanceManager
from penstock.manager.switch import Mode, Stage
from support.clocks import Clock

A, B = "ws://a", "ws://b"


def test_everything_is_optimized_at_first() -> None:
    manager = PerformanceManager()
    assert manager.mode(A) == dict.fromkeys(Stage, Mode.OPTIMIZED)
    assert manager.modes() == {}


def test_a_choice_holds_for_every_url() -> None:
    manager = PerformanceManager({Stage.CACHE: "bypassed"})
    assert manager.mode(A)[Stage.CACHE] is Mode.BYPASSED
    assert not manager.switch(Stage.CACHE, B).is_on


def test_by_hand_for_one_url_or_for_all_those_to_come_among_them() -> None:
    manager = PerformanceManager()
    here, there = manager.switch(Stage.POOL, A), manager.switch(Stage.POOL, B)
    manager.bypass("pool", A)
    assert (here.is_on, there.is_on) == (False, True)
    manager.bypass("pool")
    assert not there.is_on
    assert not manager.switch(Stage.POOL, "ws://new").is_on
    manager.restore("pool")
    assert here.is_on
    assert there.is_on
    assert manager.switch(Stage.POOL, "ws://newer").is_on


def test_a_stage_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="stage='pol': must be one of pool, batch, envelope, cache"):
        PerformanceManager().bypass("pol")


def test_what_is_bypassed_for_a_while_is_probed_for_new_urls_as_well() -> None:
    clock = Clock()
    manager = PerformanceManager(clock=clock)
    old = manager.switch(Stage.CACHE, A)
    manager.bypass("cache", seconds=10, reason="OptimizationRegressed")
    clock.now += 5
    new = manager.switch(Stage.CACHE, B)
    clock.now += 5
    manager.tick()
    assert old.mode is new.mode is Mode.PROBING
    assert manager.switch(Stage.CACHE, "ws://later").mode is Mode.OPTIMIZED


def test_transitions_are_kept_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    manager = PerformanceManager(failures=1)
    with caplog.at_level(logging.INFO, "penstock.manager"):
        manager.failed(manager.switch(Stage.BATCH, A), RuntimeError("boom"))
    assert [(one.stage, one.to, one.reason) for one in manager.transitions] == [(Stage.BATCH, Mode.BYPASSED, "failure")]
    assert manager.counts == {(Stage.BATCH, Mode.BYPASSED, "failure"): 1}
    assert manager.failures[Stage.BATCH] == 1
    assert f"batch is bypassed for {A}: failure" in caplog.text


def test_reasons_that_are_all_different_are_counted_within_bounds() -> None:
    manager = PerformanceManager()
    for number in range(500):
        manager.bypass("pool", A, reason=f"ticket {number}")
        manager.restore("pool", A, reason=f"ticket {number}")
    assert sum(manager.counts.values()) == 1000
    assert len(manager.counts) < 100


def test_urls_that_nobody_uses_are_forgotten_unless_something_was_decided_about_them() -> None:
    manager = PerformanceManager()
    manager.switch(Stage.POOL, A)
    manager.bypass("pool", B)
    manager.forget(A)
    manager.forget(B)
    assert set(manager.modes()) == {B}


def test_a_stage_that_comes_back_is_measured_anew() -> None:
    manager = PerformanceManager()
    speedup = manager.speedups[Stage.POOL]
    for _ in range(10):
        speedup.record(1.0, plain=True)
        speedup.record(2.0, plain=False)
    manager.bypass("pool", A)
    manager.restore("pool", A)
    assert speedup.ratio is None


def test_a_stage_that_fails_all_the_time_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    manager = PerformanceManager({Stage.BATCH: "optimized"}, clock=clock)
    for _ in range(100):
        manager.failed(manager.switch(Stage.BATCH, A), RuntimeError("boom"))
    manager.failed(manager.switch(Stage.POOL, A), RuntimeError("boom"))
    clock.now += 1.0
    manager.failed(manager.switch(Stage.BATCH, B), RuntimeError("boom"))
    assert manager.failures[Stage.BATCH] == 101
    assert [record.args[0] for record in caplog.records] == [Stage.BATCH, Stage.POOL, Stage.BATCH]  # type: ignore[index]
