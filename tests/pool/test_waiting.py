"""Who waits, and until when."""

from __future__ import annotations

import asyncio

import pytest

from penstock.pool.waiting import SWEEP_LEAST, Caller, Deadlines


def caller(deadline: float) -> Caller[int]:
    return Caller("key", 0, asyncio.get_running_loop().create_future(), 0.0, deadline)


class NotMadeOfItsArguments(Exception):
    def __init__(self, *, fact: str) -> None:
        super().__init__()
        self.fact = fact


@pytest.mark.parametrize("same", [False, True])
async def test_no_more_callers_are_kept_than_wait_and_some(same: bool) -> None:
    loop = asyncio.get_running_loop()
    deadlines: Deadlines[int] = Deadlines(loop, lambda caller: None)
    stuck = caller(loop.time() + 1000)
    deadlines.add(stuck, 1000)
    for number in range(10 * SWEEP_LEAST):
        timeout = 1000 if same else 1000 + number
        quick = caller(loop.time() + timeout)
        deadlines.add(quick, timeout)
        quick.future.cancel()
        assert sum(map(len, deadlines._queues.values())) <= SWEEP_LEAST + 2
    assert any(stuck in queue for queue in deadlines._queues.values())
    deadlines.stop()


async def test_whoever_waits_is_minded_however_many_come() -> None:
    loop = asyncio.get_running_loop()
    expired: list[Caller[int]] = []
    deadlines: Deadlines[int] = Deadlines(loop, expired.append)
    callers = [caller(loop.time() + 0.01 + number % 7 / 1000) for number in range(3 * SWEEP_LEAST)]
    for number, one in enumerate(callers):
        deadlines.add(one, 0.01 + number % 7 / 1000)
    await asyncio.sleep(0.05)
    assert len(expired) == len(callers)
    assert not deadlines._queues or not any(deadlines._queues.values())


@pytest.mark.parametrize("cause", [OSError(2, "gone"), NotMadeOfItsArguments(fact="x")])
async def test_a_refusal_keeps_its_facts_and_its_cause(cause: Exception) -> None:
    cause.__cause__ = KeyError("why")
    told = caller(0)
    assert told.refuse(cause)
    assert not told.refuse(cause)
    with pytest.raises(type(cause)) as caught:
        await told.future
    assert caught.value.args == cause.args
    assert caught.value.__cause__ is cause.__cause__
    assert vars(caught.value) == vars(cause)


def test_a_deadline_that_has_passed_already_rings_with_uvloop_too() -> None:
    async def wait() -> None:
        loop = asyncio.get_running_loop()
        expired: list[Caller[int]] = []
        deadlines: Deadlines[int] = Deadlines(loop, expired.append)
        late, later = caller(loop.time() - 1), caller(loop.time() - 0.5)
        deadlines.add(late, 1e-9)
        deadlines.add(later, 2e-9)
        while len(expired) < 2:
            await asyncio.sleep(0)
        assert set(expired) == {late, later}
        deadlines.stop()

    uvloop = pytest.importorskip("uvloop", reason="the platform has no uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(wait(), 5))
