"""One message in many frames: nothing comes in between, and half a message is never taken for a whole one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from websockets.frames import Opcode

from penstock import BatchConfig
from penstock.errors import MessageTypeError, SerializationError
from penstock.transport.base import ConnectionClosed, ConnectionClosedError, Options, State
from support.ends import NARROW, Ends, cancelled, ends, start, steps, within
from support.wire import parse


async def slowly(*pieces: Any, gate: asyncio.Event | None = None, error: Exception | None = None) -> AsyncIterator[Any]:
    """The first piece at once, the others when the gate opens."""
    for number, piece in enumerate(pieces):
        if number and gate is not None:
            await gate.wait()
        yield piece
    if error is not None:
        raise error


def at_once(*pieces: Any, error: Exception | None = None) -> Iterator[Any]:
    yield from pieces
    if error is not None:
        raise error


async def closed_by(both: Ends, code: int) -> None:
    """Both ends close with ``code``."""
    with pytest.raises(ConnectionClosedError):
        await within(both.server.recv())
    await within(both.client.wait_closed())
    assert both.server.close_code == code
    with pytest.raises(ConnectionClosed):
        await within(both.client.send("after"))


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("of", [list, tuple, iter, at_once, slowly])
@pytest.mark.parametrize("pieces", [["a", "b", "c"], [b"a", b"b"], ["only"], ["", ""], [b""], [bytearray(b"x"), b"y"]])
async def test_the_peer_gets_one_message(pieces: list[Any], of: Any, optimize: bool) -> None:
    async with ends(optimize=optimize) as both:
        await within(both.client.send(of(*pieces) if of in (at_once, slowly) else of(pieces)))
        whole = "".join(pieces) if isinstance(pieces[0], str) else b"".join(pieces)
        assert await both.received(1) == [whole]
        await both.client.send("next")
        assert await both.received(1) == ["next"]


async def test_each_piece_is_a_frame_and_an_empty_one_ends_the_message() -> None:
    async with ends() as both:
        await both.client.send(["a", "bc"])
        frames = [frame for data in both.spy.writes for frame in parse(data, masked=True)]
        assert [(frame.opcode, frame.fin, bytes(frame.data)) for frame in frames] == [
            (Opcode.TEXT, False, b"a"),
            (Opcode.CONT, False, b"bc"),
            (Opcode.CONT, True, b""),
        ]


@pytest.mark.parametrize(("pieces", "text", "whole"), [(["a", "b"], False, b"ab"), ([b"a", b"b"], True, "ab")])
async def test_the_kind_may_be_said(pieces: list[Any], text: bool, whole: Any) -> None:
    async with ends() as both:
        await both.client.send(pieces, text=text)
        assert await both.received(1) == [whole]


@pytest.mark.parametrize("nothing", [[], (), iter([]), slowly()])
async def test_no_pieces_are_no_message(nothing: Any) -> None:
    async with ends() as both:
        await within(both.client.send(nothing))
        assert both.spy.writes == []
        await both.client.send("next")
        assert await both.received(1) == ["next"]


async def test_the_peer_may_take_piece_by_piece() -> None:
    async with ends() as both:
        gate = asyncio.Event()
        sending = start(both.client.send(slowly("a", "b", gate=gate)))
        stream = both.server.recv_streaming()
        assert await within(anext(stream)) == "a"
        assert not sending.done()
        gate.set()
        assert [piece async for piece in stream] == ["b", ""]
        await within(sending)


async def test_other_messages_wait_until_the_last_piece_is_sent() -> None:
    async with ends() as both:
        gate = asyncio.Event()
        await both.client.send("before")
        await both.client.send("gathered")
        sending = start(both.client.send(slowly("a", "b", "c", gate=gate)))
        await steps(3)
        others = [
            start(both.client.send("after")),
            start(both.client.send_many(["many", "more"])),
            start(both.client.send(["frag", "ments"])),
            start(both.client.send("last")),
        ]
        await steps(5)
        assert not any(task.done() for task in others)
        assert both.spy.frames == [b"before", b"gathered", b"a"]
        gate.set()
        await within(asyncio.gather(sending, *others))
        messages = await both.received(8)
        assert messages[:3] == ["before", "gathered", "abc"]
        assert sorted(messages[3:]) == sorted(["after", "many", "more", "fragments", "last"])
        assert messages.index("many") < messages.index("more")


async def test_many_messages_in_pieces_do_not_mix() -> None:
    async with ends() as both:
        letters = "abcdefgh"
        await within(asyncio.gather(*(both.client.send(slowly(*letter * 5)) for letter in letters)))
        assert sorted(await both.received(8)) == [letter * 5 for letter in letters]


async def test_a_ping_may_come_between_two_pieces() -> None:
    async with ends() as both:
        gate = asyncio.Event()
        sending = start(both.client.send(slowly("a", "b", gate=gate)))
        await steps(3)
        assert await within(await within(both.client.ping())) >= 0
        gate.set()
        await within(sending)
        assert await both.received(1) == ["ab"]


async def test_cancelling_one_that_waits_for_its_turn_sends_nothing_of_it() -> None:
    async with ends() as both:
        gate = asyncio.Event()
        first = start(both.client.send(slowly("a", "b", gate=gate)))
        await steps(3)
        second = start(both.client.send(["c", "d"]))
        third = start(both.client.send("e"))
        await steps(3)
        assert await cancelled(second)
        gate.set()
        await within(asyncio.gather(first, third))
        assert await both.received(2) == ["ab", "e"]


async def test_cancelling_before_the_first_piece_sends_nothing() -> None:
    never = asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        await never.wait()
        yield "unreachable"

    async with ends() as both:
        sending = start(both.client.send(pieces()))
        await steps(3)
        assert await cancelled(sending)
        await both.client.send("usable")
        assert await both.received(1) == ["usable"]


async def test_cancelling_after_the_first_piece_closes_with_1011() -> None:
    async with ends() as both:
        sending = start(both.client.send(slowly("a", "b", gate=asyncio.Event())))
        await steps(3)
        assert await cancelled(sending)
        await closed_by(both, 1011)


@pytest.mark.parametrize("of", [at_once, slowly])
async def test_an_iterable_that_fails_in_the_middle_closes_with_1011(of: Any) -> None:
    async with ends() as both:
        with pytest.raises(LookupError, match="lost the rest"):
            await within(both.client.send(of("a", "b", error=LookupError("lost the rest"))))
        await closed_by(both, 1011)


@pytest.mark.parametrize("of", [at_once, slowly])
async def test_an_iterable_that_fails_at_its_start_harms_nothing(of: Any) -> None:
    async with ends() as both:
        with pytest.raises(LookupError):
            await within(both.client.send(of(error=LookupError("nothing here"))))
        await both.client.send("usable")
        assert await both.received(1) == ["usable"]


@pytest.mark.parametrize(
    ("pieces", "error", "says"),
    [
        (["a", b"b"], MessageTypeError, "str and then bytes"),
        ([b"a", "b"], MessageTypeError, "bytes and then str"),
        ([b"a", 5], MessageTypeError, "int is no message"),
        (["a", None], MessageTypeError, "str and then NoneType"),
        (["a", "\udc00"], SerializationError, "lone surrogate"),
    ],
)
async def test_a_bad_piece_in_the_middle_closes_with_1011(pieces: list[Any], error: type[Exception], says: str) -> None:
    async with ends() as both:
        with pytest.raises(error, match=says):
            await within(both.client.send(pieces))
        await closed_by(both, 1011)


async def test_who_waits_behind_a_message_that_fails_is_told() -> None:
    async with ends() as both:
        gate = asyncio.Event()
        sending = start(both.client.send(slowly("a", "b", gate=gate, error=LookupError("lost"))))
        await steps(3)
        waiting = [start(both.client.send("x")), start(both.client.send(["y", "z"]))]
        await steps(3)
        gate.set()
        with pytest.raises(LookupError):
            await within(sending)
        for task in waiting:
            with pytest.raises(ConnectionClosedError):
                await within(task)


async def test_what_was_accepted_before_arrives_though_the_message_in_pieces_fails() -> None:
    async with ends(options=NARROW) as both:
        filler = await both.block()
        await both.client.send("gathered")
        sending = start(both.client.send(at_once("a", error=LookupError("lost"))))
        await steps(3)
        both.go_on()
        with pytest.raises(LookupError):
            await within(sending)
        assert await both.received(2) == [filler, "gathered"]
        await closed_by(both, 1011)


async def test_pieces_wait_while_the_socket_is_blocked() -> None:
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield bytes(500)

    async with ends(options=NARROW) as both:
        both.stall()
        sending = start(both.client.send(pieces()))
        await steps(200)
        assert not sending.done()
        assert taken <= 5
        both.go_on()
        assert await both.received(1) == [bytes(50_000)]
        await within(sending)


async def test_cancelling_while_blocked_in_the_middle_closes_with_1011() -> None:
    async with ends(options=NARROW) as both:
        both.stall()
        sending = start(both.client.send([bytes(800)] * 10))
        await steps(20)
        assert await cancelled(sending)
        both.go_on()
        await closed_by(both, 1011)


async def test_the_connection_may_be_lost_in_the_middle() -> None:
    async with ends(options=NARROW) as both:
        both.stall()
        sending = start(both.client.send([bytes(800)] * 10))
        await steps(20)
        both.client_end.transport.abort()
        with pytest.raises(ConnectionClosedError):
            await within(sending)


async def test_closing_in_the_middle_closes_with_1011() -> None:
    async with ends() as both:
        gate = asyncio.Event()
        sending = start(both.client.send(slowly("a", "b", gate=gate)))
        await steps(3)
        await within(both.client.close())
        assert both.server.close_code == 1011
        gate.set()
        with pytest.raises(ConnectionClosedError):
            await within(sending)


async def test_many_pieces_do_not_starve_others() -> None:
    async with ends(options=Options(ping_interval=None, max_queue=None, write_limit=1 << 30)) as both:
        turns, done = 0, False

        async def count_turns() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        counting = start(count_turns())
        both.stall()
        await within(both.client.send(b"x" for _ in range(10_000)))
        done = True
        await counting
        assert turns >= 100


async def test_pieces_do_not_linger_and_nor_does_what_was_gathered_before() -> None:
    async with ends(BatchConfig(batch_timeout=60)) as both:
        await both.client.send("before")
        await within(both.client.send(["a", "b"]))
        assert await both.received(2) == ["before", "ab"]


async def test_cancelled_before_any_fragment_was_sent_it_has_not_sent_and_the_connection_is_usable() -> None:
    async with ends(options=NARROW) as both:
        filler = await both.block()
        sending = start(both.client.send(["a", "b"]))
        await steps(5)
        assert await cancelled(sending)
        assert both.client.state is State.OPEN
        both.go_on()
        await within(both.client.send("whole"))
        assert await both.received(2) == [filler, "whole"]
