"""What has arrived waits in order, and too much of it pauses reading."""

from __future__ import annotations

import asyncio

import pytest

from penstock.transport.inbox import Inbox, Part
from support.ends import cancelled, start, steps, within


class Reading:
    """A socket whose reading can be paused."""

    def __init__(self, inbox: Inbox) -> None:
        self.paused = False
        self.changes = 0
        inbox.connect(lambda: self._set(True), lambda: self._set(False))

    def _set(self, paused: bool) -> None:
        assert self.paused is not paused
        self.paused = paused
        self.changes += 1


def inbox(high: int | None = 4, low: int | None = 1) -> Inbox:
    return Inbox(asyncio.get_running_loop(), high, low)


async def test_a_reader_wakes_when_something_arrives() -> None:
    box = inbox()
    waiting = start(box.wait())
    await steps()
    assert box.busy
    box.put("one")
    await within(waiting)
    assert list(box.items) == ["one"]
    assert not box.busy


async def test_what_is_here_needs_no_waiting() -> None:
    box = inbox()
    box.put(b"")
    await within(box.wait())
    assert list(box.items) == [b""]


async def test_two_arrivals_wake_a_reader_once() -> None:
    box = inbox()
    waiting = start(box.wait())
    await steps()
    box.put("one")
    box.put("two")
    await within(waiting)
    assert list(box.items) == ["one", "two"]


async def test_a_cancelled_reader_takes_nothing() -> None:
    box = inbox()
    waiting = start(box.wait())
    await steps()
    assert await cancelled(waiting)
    assert not box.busy
    box.put("one")
    await within(box.wait())
    assert list(box.items) == ["one"]


async def test_a_reader_cancelled_as_a_message_arrives_leaves_it_to_the_next() -> None:
    box = inbox()
    waiting = start(box.wait())
    await steps()
    box.put("one")
    assert await cancelled(waiting)
    await within(box.wait())
    assert list(box.items) == ["one"]


async def test_reading_pauses_above_the_bound_and_goes_on_when_enough_was_taken() -> None:
    box = inbox(high=4, low=1)
    reading = Reading(box)
    for number in range(4):
        box.put(str(number))
    assert not reading.paused
    box.put("4")
    assert reading.paused
    box.put("5")  # was on its way
    while len(box.items) > 2:
        box.items.popleft()
        box.relax()
    assert reading.paused
    box.items.popleft()
    box.relax()
    assert not reading.paused
    box.relax()
    assert reading.changes == 2


async def test_nothing_is_lost_above_the_bound() -> None:
    box = inbox(high=0, low=0)
    Reading(box)
    for number in range(100):
        box.put(str(number))
    assert list(box.items) == [str(number) for number in range(100)]


async def test_without_a_bound_reading_never_pauses() -> None:
    box = inbox(None, None)
    reading = Reading(box)
    for _ in range(10_000):
        box.put("x")
    assert reading.changes == 0


async def test_a_pause_makes_deaf_while_it_lasts_and_for_what_was_before_its_end() -> None:
    box = inbox(high=0, low=0)
    Reading(box)
    start_time = asyncio.get_running_loop().time()
    assert not box.deaf_since(start_time)
    box.put("one")
    assert box.deaf_since(start_time)
    assert box.deaf_since(float("inf"))
    box.items.clear()
    box.relax()
    assert box.deaf_since(start_time)
    assert not box.deaf_since(box.last_paused + 0.001)


async def test_closing_reads_on_and_drops_what_does_not_fit() -> None:
    box = inbox(high=2, low=0)
    reading = Reading(box)
    for number in range(3):
        box.put(str(number))
    assert reading.paused
    box.close()
    assert not reading.paused
    box.put("3")
    assert not reading.paused
    assert list(box.items) == ["0", "1", "2"]


async def test_closing_keeps_what_fits() -> None:
    box = inbox(high=2, low=0)
    box.close()
    box.put("0")
    box.put("1")
    box.put("2")
    assert list(box.items) == ["0", "1"]


async def test_the_end_wakes_the_reader() -> None:
    box = inbox()
    waiting = start(box.wait())
    await steps()
    box.end()
    with pytest.raises(EOFError, match="nothing more will arrive"):
        await within(waiting)
    assert not box.busy


async def test_what_arrived_before_the_end_can_still_be_taken() -> None:
    box = inbox()
    box.put("last")
    box.end()
    await within(box.wait())
    assert box.items.popleft() == "last"
    with pytest.raises(EOFError):
        await within(box.wait())


async def test_the_end_after_an_arrival_does_not_disturb_the_reader() -> None:
    box = inbox()
    waiting = start(box.wait())
    await steps()
    box.put("last")
    box.end()
    await within(waiting)
    assert list(box.items) == ["last"]


async def test_of_a_message_that_does_not_fit_while_closing_no_part_is_kept() -> None:
    inbox = Inbox(asyncio.get_running_loop(), 2, 0)
    inbox.close()
    for item in ("whole", Part(True, b"AAA", False), Part(True, b"BBB", False), Part(True, b"CCC", True), "late"):
        inbox.put(item)
    assert list(inbox.items) == ["whole"]


async def test_what_was_taken_before_makes_no_room_for_the_rest_of_a_message_that_did_not_fit() -> None:
    inbox = Inbox(asyncio.get_running_loop(), 1, 0)
    inbox.close()
    inbox.put("one")
    inbox.put(Part(True, b"AAA", False))
    assert inbox.items.popleft() == "one"
    inbox.put(Part(True, b"CCC", True))
    assert not inbox.items
