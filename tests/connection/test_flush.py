"""``flush`` returns when what was accepted is out, and says so when it cannot be."""

from __future__ import annotations

import asyncio

import pytest

from penstock import BatchConfig
from penstock.errors import WrongLoop
from penstock.transport.base import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from support.ends import NARROW, cancelled, ends, start, steps, within


async def test_with_nothing_to_write_it_returns() -> None:
    async with ends() as both:
        await within(both.client.flush())
        assert both.spy.writes == []


async def test_what_was_gathered_is_written_without_waiting_for_the_end_of_the_iteration() -> None:
    async with ends() as both:
        for message in ("one", "two", "three"):
            await both.client.send(message)
        await within(both.client.flush())
        assert both.spy.payloads == [[b"one"], [b"two", b"three"]]
        assert both.client.transport.get_write_buffer_size() == 0


async def test_a_lingering_batch_goes_at_once() -> None:
    async with ends(BatchConfig(batch_timeout=60)) as both:
        await both.client.send("one")
        await both.client.send("two")
        await within(both.client.flush())
        assert both.spy.payloads == [[b"one", b"two"]]
        await both.client.send("three")
        await within(both.client.flush())
        assert both.spy.frames == [b"one", b"two", b"three"]


@pytest.mark.parametrize("optimize", [True, False])
async def test_it_waits_until_the_socket_has_taken_everything(optimize: bool) -> None:
    async with ends(optimize=optimize) as both:
        both.stall()
        await both.client.send("small")
        flushing = start(both.client.flush())
        await steps(5)
        assert not flushing.done()
        assert both.spy.frames == [b"small"]
        both.go_on()
        await within(flushing)
        assert both.client.transport.get_write_buffer_size() == 0


async def test_while_the_socket_is_blocked_it_waits_for_what_has_gathered() -> None:
    async with ends(options=NARROW) as both:
        filler = await both.block()
        await both.client.send("gathered")
        flushing = start(both.client.flush())
        await steps(5)
        assert not flushing.done()
        both.go_on()
        await within(flushing)
        assert both.spy.frames == [filler, b"gathered"]
        assert both.client.transport.get_write_buffer_size() == 0


@pytest.mark.parametrize("blocked", [True, False])
async def test_messages_accepted_later_do_not_hold_it_up(blocked: bool) -> None:
    async with ends(options=NARROW) as both:
        done = False

        async def go_on_sending() -> None:
            while not done:
                await both.client.send(b"x" * 800)
                await asyncio.sleep(0)

        if blocked:
            await both.block()
        await both.client.send("flushed")
        flushing = start(both.client.flush())
        sending = [start(go_on_sending()) for _ in range(3)]
        await steps(5)
        both.go_on()
        await within(flushing)
        assert b"flushed" in both.spy.frames
        done = True
        await within(asyncio.gather(*sending))


async def test_several_may_flush_at_once() -> None:
    async with ends(options=NARROW) as both:
        await both.block()
        flushing = []
        for number in range(5):
            await both.client.send(str(number))
            flushing.append(start(both.client.flush()))
        await steps(5)
        both.go_on()
        await within(asyncio.gather(*flushing))
        assert both.spy.frames[1:] == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("blocked", [True, False])
async def test_a_cancelled_flush_leaves_everything_as_it_was(blocked: bool) -> None:
    async with ends(options=NARROW) as both:
        expected: list[object] = []
        if blocked:
            expected.append(await both.block())
        else:
            both.stall()
        await both.client.send("one")
        flushing = start(both.client.flush())
        await steps(5)
        assert await cancelled(flushing)
        both.go_on()
        await steps(5)
        await both.client.send("two")
        await both.client.send("three")
        assert await both.received(3 + blocked) == [*expected, "one", "two", "three"]
        both.stall()
        await both.client.send(b"x" * 800)
        assert not both.client_end.blocked  # the limits of the write buffer are what they were


async def test_flushing_while_fragments_are_sent_harms_neither() -> None:
    async with ends() as both:
        more = asyncio.Event()

        async def pieces():
            yield "a"
            await more.wait()
            yield "b"

        sending = start(both.client.send(pieces()))
        await steps(3)
        await within(both.client.flush())
        assert both.spy.frames == [b"a"]
        more.set()
        await within(sending)
        await within(both.client.flush())
        assert await both.received(1) == ["ab"]


async def test_on_a_closed_connection_it_raises() -> None:
    async with ends() as both:
        await within(both.client.close())
        with pytest.raises(ConnectionClosedOK):
            await within(both.client.flush())


@pytest.mark.parametrize("message", [None, "accepted"])
async def test_on_a_closing_connection_it_raises_when_that_is_closed(message: str | None) -> None:
    async with ends() as both:
        both.stall()
        if message is not None:
            await both.client.send(message)
        closing = start(both.client.close())
        await steps(3)
        flushing = start(both.client.flush())
        await steps(3)
        both.go_on()
        await within(closing)
        with pytest.raises(ConnectionClosed):
            await within(flushing)


@pytest.mark.parametrize("blocked", [True, False])
async def test_it_is_told_when_the_connection_is_lost_meanwhile(blocked: bool) -> None:
    async with ends(options=NARROW) as both:
        if blocked:
            await both.block()
        both.stall()
        await both.client.send("never")
        flushing = start(both.client.flush())
        await steps(5)
        assert not flushing.done()
        both.client_end.transport.abort()
        with pytest.raises(ConnectionClosedError):
            await within(flushing)


async def test_another_loop_is_told() -> None:
    def elsewhere() -> None:
        with pytest.raises(WrongLoop):
            asyncio.run(both.client.flush())

    async with ends(BatchConfig(batch_timeout=60)) as both:
        await both.client.send("mine")
        await asyncio.to_thread(elsewhere)
        assert both.spy.writes == []
