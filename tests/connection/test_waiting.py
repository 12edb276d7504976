"""Those who wait, and give it up: nothing is kept of them, however long the wait of others lasts."""

from __future__ import annotations

import asyncio
import gc
from weakref import ref

from penstock.connection.signal import Signal
from penstock.connection.turns import Turns
from support.ends import NARROW, cancelled, ends, start, steps


async def test_a_sender_that_gives_up_behind_a_patient_one_leaves_nothing_behind() -> None:
    turns = Turns(asyncio.get_running_loop())
    patient = turns.join(1, exclusive=False)
    impatient = turns.join(1, exclusive=False)
    impatient.future.cancel()
    left = ref(impatient.future)
    assert not turns.withdraw(impatient)
    del impatient
    assert left() is None
    turns.let_through(lambda _: True)
    assert patient.future.result()
    turns.keep(patient)
    assert not turns


async def test_a_sender_that_gives_up_what_it_was_promised_leaves_nothing_behind() -> None:
    turns = Turns(asyncio.get_running_loop())
    turn = turns.join(7, exclusive=False)
    turns.let_through(lambda _: True)
    assert turns.promised_bytes == 7
    assert turns.withdraw(turn)
    assert not turns
    assert turns.promised_bytes == 0


async def test_a_signal_wakes_those_that_still_wait_and_forgets_the_others() -> None:
    signal = Signal(asyncio.get_running_loop())
    impatient, patient = start(signal.wait()), start(signal.wait())
    await steps(2)
    assert await cancelled(impatient)
    assert signal
    signal.fire()
    assert not signal
    await patient
    alone = start(signal.wait())
    await steps(2)
    assert signal
    assert await cancelled(alone)
    assert not signal


async def test_flushes_that_give_up_leave_nothing_behind() -> None:
    async with ends(options=NARROW) as both:
        await both.block()

        async def give_up() -> int:
            for _ in range(20):
                flushing = start(both.client.flush())
                await steps(3)
                assert await cancelled(flushing)
            # isinstance would ask what weak proxies stand for, which may be gone
            return sum(issubclass(type(one), asyncio.Future) for one in gc.get_objects())

        before = await give_up()
        assert await give_up() == before


async def test_a_flush_that_gives_up_neither_wakes_another_nor_leaves_the_buffer_narrow() -> None:
    async with ends(options=NARROW) as both:
        filler = await both.block()
        patient, impatient = start(both.client.flush()), start(both.client.flush())
        await steps(3)
        assert await cancelled(impatient)
        assert not patient.done()
        assert await cancelled(patient)
        both.go_on()
        assert await both.received(1) == [filler]
        both.stall()
        await both.client.send(b"#" * 500)
        assert not both.client_end.blocked
