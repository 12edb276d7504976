"""Peers that do not answer are given up; those that cannot be heard are not. The clock is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Any

import pytest

from penstock.transport.keepalive import GRACE, Keepalive


class Timer:
    def __init__(self, callback: Any, arguments: tuple[Any, ...]) -> None:
        self.callback, self.arguments, self.off = callback, arguments, False

    def cancel(self) -> None:
        self.off = True


class Clock:
    """The timers of an event loop, whose time passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers: Iterator[int] = count()

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Any, *arguments: Any) -> Timer:
        timer = Timer(callback, arguments)
        heappush(self._timers, (self.now + delay, next(self._numbers), timer))
        return timer

    @property
    def pending(self) -> int:
        return sum(not timer.off for _, _, timer in self._timers)

    async def pass_by(self, seconds: float, *, held_up: bool = False) -> None:
        """Let time pass; ``held_up`` runs no timer before the end of it."""
        end = self.now + seconds
        if held_up:
            self.now = end
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heappop(self._timers)
            self.now = max(self.now, when)
            if not timer.off:
                timer.callback(*timer.arguments)
            await asyncio.sleep(0)
        self.now = max(self.now, end)


class Peer:
    """A connection with a keepalive."""

    def __init__(self, interval: float = 20, timeout: float | None = 10) -> None:
        self.clock = Clock()
        self.pings: list[float] = []
        self.pong: asyncio.Future[float]
        self.deaf_until = float("-inf")
        self.deaths = 0
        self.keepalive = Keepalive(
            self.clock,  # type: ignore[arg-type]
            interval,
            timeout,
            ping=self._ping,
            deaf_since=lambda when: self.deaf_until >= when,
            dead=self._died,
        )

    def _ping(self) -> asyncio.Future[float]:
        self.pings.append(self.clock.now - 1000)
        self.pong = asyncio.get_running_loop().create_future()
        return self.pong

    def _died(self) -> None:
        self.deaths += 1

    async def answer(self, after: float = 0) -> None:
        await self.clock.pass_by(after)
        self.pong.set_result(self.clock.now - 1000 - self.pings[-1])
        await asyncio.sleep(0)


async def test_the_first_ping_goes_after_the_interval() -> None:
    peer = Peer(interval=20)
    await peer.clock.pass_by(19.9)
    assert peer.pings == []
    await peer.clock.pass_by(0.2)
    assert peer.pings == [20]


async def test_pings_go_at_regular_intervals_however_long_answers_take() -> None:
    peer = Peer(interval=20, timeout=10)
    for answer_takes in (0, 3, 9):
        await peer.clock.pass_by(20 - (peer.clock.now - 1000) % 20)
        await peer.answer(after=answer_takes)
    await peer.clock.pass_by(11)
    assert peer.pings == [20, 40, 60, 80]
    assert peer.deaths == 0


async def test_a_peer_that_does_not_answer_is_given_up_once() -> None:
    peer = Peer(interval=20, timeout=10)
    await peer.clock.pass_by(30 + GRACE / 2)
    assert peer.deaths == 0
    await peer.clock.pass_by(GRACE)
    assert peer.deaths == 1
    await peer.clock.pass_by(1000)
    assert peer.deaths == 1
    assert peer.pings == [20]


async def test_an_answer_in_the_grace_after_the_timeout_is_answer_enough() -> None:
    peer = Peer(interval=20, timeout=10)
    await peer.clock.pass_by(30.01)
    await peer.answer()
    await peer.clock.pass_by(9)
    assert peer.pings == [20]
    await peer.clock.pass_by(1)
    assert peer.pings == [20, 40]
    assert peer.deaths == 0


async def test_a_peer_is_not_given_up_while_reading_is_paused() -> None:
    peer = Peer(interval=20, timeout=10)
    peer.deaf_until = float("inf")
    await peer.clock.pass_by(500)
    assert peer.deaths == 0
    peer.deaf_until = float("-inf")
    await peer.clock.pass_by(11 + 2 * GRACE)
    assert peer.deaths == 1
    assert peer.pings == [20]


async def test_a_peer_that_was_not_heard_for_a_moment_gets_another_timeout() -> None:
    peer = Peer(interval=20, timeout=10)
    await peer.clock.pass_by(25)
    peer.deaf_until = peer.clock.now
    await peer.clock.pass_by(10)
    assert peer.deaths == 0
    await peer.answer()
    await peer.clock.pass_by(9)
    assert peer.deaths == 0


async def test_a_loop_that_was_held_up_declares_nobody_dead() -> None:
    peer = Peer(interval=20, timeout=10)
    await peer.clock.pass_by(21)
    await peer.clock.pass_by(60, held_up=True)
    await peer.clock.pass_by(GRACE)
    assert peer.deaths == 0
    await peer.answer()
    await peer.clock.pass_by(9)
    assert peer.deaths == 0


async def test_without_a_timeout_pings_go_and_nobody_is_given_up() -> None:
    peer = Peer(interval=20, timeout=None)
    await peer.clock.pass_by(101)
    assert peer.pings == [20, 40, 60, 80, 100]
    assert peer.deaths == 0


@pytest.mark.parametrize("seconds", [0, 20, 25, 30.05])
async def test_a_stopped_keepalive_does_nothing_more(seconds: float) -> None:
    peer = Peer(interval=20, timeout=10)
    await peer.clock.pass_by(seconds)
    pings = list(peer.pings)
    peer.keepalive.stop()
    peer.keepalive.stop()
    assert peer.clock.pending == 0
    await peer.clock.pass_by(1000)
    assert peer.pings == pings
    assert peer.deaths == 0


async def test_an_answer_after_the_stop_starts_nothing() -> None:
    peer = Peer(interval=20, timeout=10)
    await peer.clock.pass_by(21)
    peer.keepalive.stop()
    await peer.answer()
    assert peer.clock.pending == 0


async def test_a_connection_lost_while_a_ping_is_out_is_not_declared_dead_besides() -> None:
    peer = Peer(interval=20, timeout=10)
    await peer.clock.pass_by(21)
    peer.pong.set_exception(ConnectionError("lost"))
    peer.keepalive.stop()
    await peer.clock.pass_by(100)
    assert peer.deaths == 0
    assert isinstance(peer.pong.exception(), ConnectionError)


async def test_a_ping_whose_future_was_cancelled_still_has_its_deadline() -> None:
    peer = Peer(interval=20, timeout=10)
    await peer.clock.pass_by(21)
    peer.pong.cancel()
    await peer.clock.pass_by(11)
    assert peer.deaths == 1
