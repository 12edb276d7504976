"""One timer for all who wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.rpc.deadlines import Deadlines

LATE = object()


class Timer:
    def __init__(self, when: float, ring: Callable[..., None], *args: Any) -> None:
        self.when, self.ring, self.args, self.is_cancelled = when, ring, args, False

    def cancel(self) -> None:
        self.is_cancelled = True


class Loop:
    """Its time passes when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, ring: Callable[..., None], *args: Any) -> Timer:
        self.timers.append(Timer(when, ring, *args))
        return self.timers[-1]

    def pass_until(self, now: float) -> None:
        while due := [timer for timer in self.timers if not timer.is_cancelled and timer.when <= now]:
            first = min(due, key=lambda timer: timer.when)
            self.timers.remove(first)
            self.now = first.when
            first.ring(*first.args)
        self.now = now


class Future:
    def __init__(self, loop: Loop) -> None:
        self.loop, self.result, self.told_at = loop, None, None

    def get_loop(self) -> Loop:
        return self.loop

    def done(self) -> bool:
        return self.result is not None

    def set_result(self, result: Any) -> None:
        self.result, self.told_at = result, self.loop.now


def waiting(loop: Loop, deadlines: Deadlines, *timeouts: float) -> list[Any]:
    futures: list[Any] = [Future(loop) for _ in timeouts]
    for future, timeout in zip(futures, timeouts, strict=True):
        deadlines.add(future, timeout, loop)
    return futures


def test_each_is_told_at_its_time_whatever_the_order_in_which_they_came() -> None:
    loop, deadlines = Loop(), Deadlines(LATE)
    timeouts = (3.0, 1.0, 2.0, 1.0)
    futures = waiting(loop, deadlines, *timeouts)
    loop.pass_until(100.5)
    timeouts += (1.0,)
    futures += waiting(loop, deadlines, 1.0)
    loop.pass_until(200)
    assert [future.told_at for future in futures] == [103, 101, 102, 101, 101.5]
    assert all(future.result is LATE for future in futures)
    for future, timeout in zip(futures, timeouts, strict=True):
        deadlines.remove(future, timeout)
    assert not deadlines._queues


def test_who_was_removed_or_is_done_is_left_alone() -> None:
    loop, deadlines = Loop(), Deadlines(LATE)
    removed, done, late = waiting(loop, deadlines, 1.0, 1.0, 2.0)
    deadlines.remove(removed, 1.0)
    done.set_result("answer")
    loop.pass_until(200)
    assert removed.result is None
    assert done.result == "answer"
    assert late.told_at == 102


def test_one_timer_serves_all() -> None:
    loop, deadlines = Loop(), Deadlines(LATE)
    for _ in range(1000):
        (future,) = waiting(loop, deadlines, 10.0)
        deadlines.remove(future, 10.0)
        assert not deadlines._queues
    waiting(loop, deadlines, *[10.0] * 100)
    assert len(loop.timers) == 1
    loop.pass_until(200)
    assert not loop.timers


def test_after_the_end_nobody_is_told() -> None:
    loop, deadlines = Loop(), Deadlines(LATE)
    (future,) = waiting(loop, deadlines, 1.0)
    deadlines.stop()
    deadlines.stop()
    loop.pass_until(200)
    assert future.result is None


def test_without_a_time_nobody_is_told_and_without_time_at_once() -> None:
    loop, deadlines = Loop(), Deadlines(LATE)
    futures: list[Any] = [Future(loop), Future(loop)]
    forever, at_once = futures
    deadlines.add(forever, None, loop)
    deadlines.add(at_once, 0, loop)
    assert at_once.result is LATE
    loop.pass_until(200)
    assert forever.result is None
    for future, timeout in ((forever, None), (at_once, 0)):
        deadlines.remove(future, timeout)
