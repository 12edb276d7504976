"""What a link has written, and what it can be sure not to have, where the socket takes only some of it."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import CallLost, SerializationError
from penstock.protocols.calls import Frame
from penstock.protocols.dialects import DEVTOOLS
from penstock.protocols.idjson import IdJson
from penstock.protocols.jsonrpc import JsonRpc
from penstock.rpc.jsonrpc import Rpc
from penstock.rpc.link import MOST, Link
from penstock.rpc.pacing import Pace
from penstock.transport.base import ConnectionClosed, ConnectionClosedError, State
from support.ends import cancelled, start, steps, within

pytestmark = pytest.mark.timeout(30)


class Socket:
    """A connection that has room for so many texts at a time, and is lost when a test says so."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[str] = []
        self.sends = 0
        """Texts that were not offered together with others."""
        self.refuses: dict[str, Exception] = {}
        """What to raise for texts with a word."""
        self.state = State.OPEN
        self._more = asyncio.Event()
        self._lost = asyncio.Event()
        self._answers: asyncio.Queue[str] = asyncio.Queue()

    def offer(self, texts: Sequence[str]) -> int:
        for taken, text in enumerate(texts):
            if not self.room or self._error(text) is not None:
                return taken
            self._take(text)
        return len(texts)

    async def send(self, text: str) -> None:
        self.sends += 1
        while not self.room and self.state is State.OPEN:
            self._more.clear()
            await self._more.wait()
        if self.state is not State.OPEN:
            raise ConnectionClosedError(None, None)
        error = self._error(text)
        if error is not None:
            raise error
        self._take(text)

    def _error(self, text: str) -> Exception | None:
        return next((error for word, error in self.refuses.items() if word in text), None)

    def _take(self, text: str) -> None:
        self.room -= 1
        self.sent.append(text)

    def drain(self, room: int) -> None:
        self.room += room
        self._more.set()

    def lose(self) -> None:
        self.state = State.CLOSED
        self._lost.set()
        self._more.set()

    def answer(self, text: str) -> None:
        call = json.loads(text)
        self._answers.put_nowait(json.dumps({"id": call["id"], "result": call["params"]}))

    async def recv_many(self, max: int | None = None) -> Sequence[str]:  # noqa: A002
        waiting = asyncio.ensure_future(self._answers.get())
        lost = asyncio.ensure_future(self._lost.wait())
        try:
            await asyncio.wait([waiting, lost], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return [waiting.result()]
            raise ConnectionClosedError(None, None)
        finally:
            waiting.cancel()
            lost.cancel()

    def fail(self, code: int, reason: str) -> None:
        raise AssertionError(reason)


class Sockets:
    """Where links come from: one connection after the other."""

    most, rest = 1, None

    def __init__(self, *sockets: Socket) -> None:
        self.pace = Pace(lambda: iter(()))
        self._ahead = list(sockets)

    async def open(self, owner: Any) -> Link[Any]:
        return Link(self._ahead.pop(0), owner.speak(None), owner)

    def delay_after(self, exc: Exception) -> float:
        raise exc

    def is_fit(self, link: Link[Any]) -> bool:
        return link.wire.state is State.OPEN  # type: ignore[attr-defined]

    async def end(self, link: Link[Any]) -> None:
        await link.stop()


@asynccontextmanager
async def client(*sockets: Socket, **options: Any) -> AsyncIterator[Rpc]:
    async with Rpc(Sockets(*sockets), "ws://a", **options) as rpc:
        await rpc.open()
        yield rpc


def numbers(socket: Socket) -> list[int]:
    return [json.loads(text)["params"][0] for text in socket.sent]


async def test_calls_of_one_tick_are_handed_over_in_order_and_together() -> None:
    socket = Socket(1000)
    async with client(socket) as rpc:
        calls = [start(rpc.call("a", [number])) for number in range(2 * MOST + 3)]
        await steps(8)
        assert numbers(socket) == list(range(2 * MOST + 3))
        assert socket.sends == 0
        for text in socket.sent:
            socket.answer(text)
        assert await within(asyncio.gather(*calls)) == [[number] for number in range(2 * MOST + 3)]


@pytest.mark.parametrize("room", range(6))
async def test_what_had_no_room_when_the_connection_was_lost_is_sent_on_the_next_and_nothing_twice(room: int) -> None:
    first, second = Socket(room), Socket(100)
    async with client(first, second) as rpc:
        calls = [start(rpc.call("a", [number])) for number in range(5)]
        await steps(6)
        assert numbers(first) == list(range(min(room, 5)))
        first.lose()
        while len(first.sent) + len(second.sent) < 5:
            await steps()
        for text in second.sent:
            second.answer(text)
        results = await within(asyncio.gather(*calls, return_exceptions=True))
        assert numbers(second) == list(range(room, 5))
        assert results[room:] == [[number] for number in range(room, 5)]
        assert all(isinstance(lost, CallLost) and lost.written for lost in results[:room])


async def test_what_is_cancelled_while_a_tick_s_calls_wait_for_room_is_never_sent() -> None:
    socket = Socket(2)
    async with client(socket) as rpc:
        calls = [start(rpc.call("a", [number])) for number in range(8)]
        await steps(6)
        assert numbers(socket) == [0, 1]
        for number in (0, 3, 4, 7):  # the first is written
            assert await cancelled(calls[number])
        socket.drain(100)
        await steps(6)
        assert numbers(socket) == [0, 1, 2, 5, 6]
        for text in socket.sent:
            socket.answer(text)
        assert await within(asyncio.gather(*(calls[number] for number in (1, 2, 5, 6)))) == [[1], [2], [5], [6]]
        assert rpc.stats().in_flight == 0
        assert rpc.stats().late == 1


async def test_what_is_cancelled_among_those_that_came_meanwhile_is_not_handed_over_either() -> None:
    socket = Socket(1)
    async with client(socket) as rpc:
        calls = [start(rpc.call("a", [number])) for number in range(2)]
        await steps(6)
        calls += [start(rpc.call("a", [number])) for number in range(2, 6)]
        notified = start(rpc.notify("a", [6]))
        await steps(3)
        for number in (2, 4):
            assert await cancelled(calls[number])
        socket.drain(100)
        await within(notified)
        assert numbers(socket) == [0, 1, 3, 5, 6]
        assert rpc.stats().in_flight == 4
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_the_call_that_waits_for_room_is_cancelled_too_late() -> None:
    socket = Socket(1)
    async with client(socket) as rpc:
        calls = [start(rpc.call("a", [number])) for number in range(3)]
        await steps(6)
        assert await cancelled(calls[1])  # it is being sent: whatever becomes of it, the others go on
        socket.drain(100)
        await steps(6)
        assert numbers(socket)[0::2] == [0, 2]
        for text in socket.sent:
            socket.answer(text)
        assert await within(asyncio.gather(calls[0], calls[2])) == [[0], [2]]


@pytest.mark.parametrize("bad", [0, 2, 4])
async def test_one_that_cannot_be_sent_fails_alone_among_those_of_its_tick(bad: int) -> None:
    socket = Socket(100)
    socket.refuses[f"[{bad}]"] = SerializationError("too long for the peer", "send less")
    async with client(socket) as rpc:
        calls = [start(rpc.call("a", [number])) for number in range(5)]
        await steps(6)
        others = [number for number in range(5) if number != bad]
        assert numbers(socket) == others
        for text in socket.sent:
            socket.answer(text)
        results = await within(asyncio.gather(*calls, return_exceptions=True))
        assert [results[number] for number in others] == [[number] for number in others]
        assert isinstance(results[bad], SerializationError)
        assert rpc.stats().in_flight == 0


async def test_a_notification_keeps_its_place_and_is_told_when_it_is_accepted() -> None:
    socket = Socket(2)
    async with client(socket) as rpc:
        before = [start(rpc.call("a", [number])) for number in range(2)]
        notified = start(rpc.notify("a", [2]))
        await steps(6)
        after = start(rpc.call("a", [3]))
        await steps(6)
        assert not notified.done()
        assert numbers(socket) == [0, 1]
        socket.drain(100)
        await within(notified)
        await steps(4)
        assert numbers(socket) == [0, 1, 2, 3]
        for call in (*before, after):
            assert await cancelled(call)


async def test_a_notification_that_cannot_be_sent_and_nobody_waits_for_any_more_is_no_error_of_the_event_loop() -> None:
    socket = Socket(0)
    socket.refuses["big"] = SerializationError("too long for the peer", "send less")
    errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
    async with client(socket) as rpc:
        notified = start(rpc.notify("big"))
        await steps(6)
        assert await cancelled(notified)
        socket.drain(100)
        await steps(6)
    socket.refuses.clear()  # the error knows who has it
    del notified
    gc.collect()
    assert errors == []


async def test_a_notification_that_was_never_accepted_is_lost_unwritten() -> None:
    socket = Socket(1)
    async with client(socket) as rpc:
        call = start(rpc.call("a", [0]))
        notified = start(rpc.notify("a", [1]))
        await steps(6)
        socket.lose()
        with pytest.raises(CallLost) as told:
            await within(notified)
        assert not told.value.written
        with pytest.raises(CallLost) as lost:
            await within(call)
        assert lost.value.written


class Keeper:
    """Owns a link, and keeps what was lost with it."""

    def __init__(self) -> None:
        self.gone: list[tuple[Any, bool]] = []

    def due(self, link: Link[JsonRpc]) -> Sequence[Frame]:
        return link.rpc.due(lambda: 0.5)

    def take(self, link: Link[JsonRpc], message: Any) -> None:
        raise AssertionError

    def unsent(self, link: Link[JsonRpc], call: Any, exc: Exception) -> None:
        raise AssertionError

    def lost(self, link: Link[JsonRpc], exc: ConnectionClosed | None) -> None:
        self.gone.extend((one.call, one.written) for one in link.rpc.lost())


async def test_what_is_cancelled_before_the_writer_has_its_turn_is_not_sent_though_a_notification_took_it_along() -> (
    None
):
    socket = Socket(100)
    link = Link(socket, JsonRpc(), Keeper())
    await steps(2)  # the writer waits
    calls = [link.rpc.add("a", [number], now=0) for number in range(4)]
    done = link.put('{"method":"a","params":[4]}')
    for number in (0, 2):
        link.rpc.forget(calls[number], now=0)
    await within(done)
    assert numbers(socket) == [1, 3, 4]
    assert link.rpc.stats().forgotten == 0
    await link.stop()


async def test_what_is_cancelled_is_not_sent_though_its_tombstone_was_dropped() -> None:
    socket = Socket(100)
    link = Link(socket, JsonRpc(max_forgotten=1), Keeper())
    await steps(2)  # the writer waits
    calls = [link.rpc.add("a", [number], now=0) for number in range(4)]
    done = link.put('{"method":"a","params":[4]}')
    for call in calls[:3]:
        link.rpc.forget(call, now=0)
    await within(done)
    assert numbers(socket) == [3, 4]
    await link.stop()


def test_a_message_whose_tombstone_was_dropped_is_known_to_be_forgotten_in_other_protocols_too() -> None:
    rpc = IdJson(DEVTOOLS, max_forgotten=1)
    asks = [rpc.add({"method": "a"}) for _ in range(3)]
    rpc.due()
    for ask in asks[:2]:
        rpc.forget(ask)
    assert [ask.is_forgotten for ask in asks] == [True, True, False]


async def test_a_writer_whose_connection_is_closed_leaves_what_it_has_to_the_reader() -> None:
    socket, keeper = Socket(1), Keeper()
    link = Link(socket, JsonRpc(), keeper)
    calls = [link.rpc.add("a", [number], now=0) for number in range(3)]
    link.wake()
    await steps(4)
    socket.lose()
    await steps(6)
    assert link.is_lost
    assert keeper.gone == list(zip(calls, [True, False, False], strict=True))
    await link.stop()
