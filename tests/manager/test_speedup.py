"""Which operations are measured, and what that says."""

from __future__ import annotations

from penstock.manager.speedup import LEAST, Sampler, Speedup


def turns(sampler: Sampler, operations: int, now: float = 0.0) -> list[bool | None]:
    """What operations do, one after the other."""
    done: list[bool | None] = []
    for _ in range(operations):
        sampler.left -= 1
        done.append(sampler.turn(now) if sampler.left == 0 else None)
    return done


def test_one_of_so_many_takes_the_plain_way_and_the_next_is_timed() -> None:
    assert turns(Sampler(5), 6) == [None, None, None, None, True, False]


def test_no_second_sample_within_a_second() -> None:
    sampler = Sampler(5)
    assert turns(sampler, 1000, now=0.5).count(True) == 1
    assert turns(sampler, 1000, now=1.6).count(True) == 1


def test_zero_is_never() -> None:
    assert turns(Sampler(0), 1000) == [None] * 1000


def test_the_ratio_compares_medians() -> None:
    speedup = Speedup()
    for _ in range(LEAST):
        speedup.record(0.004, plain=True)
        speedup.record(0.001, plain=False)
    speedup.record(100.0, plain=False)  # one that had to wait says little
    assert speedup.ratio == 4.0


def test_nothing_is_said_before_there_are_enough_of_both() -> None:
    speedup = Speedup()
    for _ in range(1000):
        speedup.record(1.0, plain=False)
    for _ in range(LEAST - 1):
        speedup.record(1.0, plain=True)
    assert speedup.ratio is None
    speedup.record(1.0, plain=True)
    assert speedup.ratio == 1.0
    speedup.forget()
    assert speedup.ratio is None
