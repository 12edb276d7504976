"""Closing loses nothing that was accepted or waited for, and comes to an end."""

from __future__ import annotations

import asyncio

import pytest

from penstock import BatchConfig
from penstock.transport.base import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Options,
    ProtocolError,
    State,
)
from support.ends import NARROW, cancelled, ends, start, steps, within

HASTY = Options(ping_interval=None, max_queue=None, close_timeout=0.25, write_limit=1000)


def elapsed_since(began: float) -> float:
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("batch", [BatchConfig(), BatchConfig(batch_timeout=60)])
async def test_what_was_accepted_is_written_first(batch: BatchConfig) -> None:
    async with ends(batch) as both:
        for number in range(100):
            await both.client.send(str(number))
        await within(both.client.close())
        assert await both.rest() == [str(number) for number in range(100)]
        assert both.client.state is both.server.state is State.CLOSED


@pytest.mark.parametrize("optimize", [True, False])
async def test_a_blocked_send_and_all_behind_it_are_served_first(optimize: bool) -> None:
    async with ends(BatchConfig(max_pending_messages=2), NARROW, optimize=optimize) as both:
        filler = await both.block()
        sending = []
        for number in range(20):
            sending.append(start(both.client.send(str(number))))
            await steps()
        assert not sending[-1].done()
        closing = start(both.client.close())
        await steps(5)
        assert not closing.done()
        both.go_on()
        await within(closing)
        await within(asyncio.gather(*sending))
        assert await both.rest() == [filler, *map(str, range(20))]
        assert both.server.close_code == 1000


async def test_a_message_in_pieces_that_waits_is_served_first() -> None:
    async with ends(BatchConfig(max_pending_messages=1), NARROW) as both:
        filler = await both.block()
        await both.client.send("gathered")
        sending = [start(both.client.send("waits")), start(both.client.send(["a", "b"]))]
        await steps(3)
        closing = start(both.client.close())
        await steps(3)
        both.go_on()
        await within(asyncio.gather(closing, *sending))
        assert await both.rest() == [filler, "gathered", "waits", "ab"]
        assert both.server.close_code == 1000


async def test_many_messages_under_way_are_taken_as_far_as_close_lets_them() -> None:
    async with ends(BatchConfig(max_pending_messages=5), NARROW) as both:
        filler = await both.block()
        messages = [str(number) for number in range(50)]
        sending = start(both.client.send_many(messages))
        await steps(5)
        closing = start(both.client.close())
        await steps(3)
        both.go_on()
        await within(closing)
        with pytest.raises(ConnectionClosed):
            await within(sending)
        arrived = await both.rest()
        assert arrived == [filler, *messages[: len(arrived) - 1]]
        assert len(arrived) > 5


async def test_new_senders_are_refused_from_then_on() -> None:
    async with ends(options=NARROW) as both:
        filler = await both.block()
        closing = start(both.client.close())
        await steps(3)
        late = [start(both.client.send("late")), start(both.client.send_many(["la", "te"]))]
        await steps(3)
        both.go_on()
        await within(closing)
        for task in late:
            with pytest.raises(ConnectionClosedOK):
                await within(task)
        assert await both.rest() == [filler]


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (3000, ""), (4999, "x" * 123)])
async def test_the_peer_learns_code_and_reason(code: int, reason: str) -> None:
    async with ends() as both:
        await within(both.client.close(code, reason))
        await within(both.server.wait_closed())
        assert (both.server.close_code, both.server.close_reason) == (code, reason)
        assert (both.client.close_code, both.client.close_reason) == (code, reason)


@pytest.mark.parametrize(
    ("code", "reason"), [(0, ""), (999, ""), (1005, ""), (1006, ""), (5000, ""), (1000, "x" * 124)]
)
async def test_what_cannot_be_sent_is_refused_and_harms_nothing(code: int, reason: str) -> None:
    async with ends() as both:
        with pytest.raises(ProtocolError):
            await both.client.close(code, reason)
        await both.client.send("usable")
        assert await both.received(1) == ["usable"]


async def test_closing_again_changes_nothing() -> None:
    async with ends() as both:
        await within(both.client.close(4000, "first"))
        await within(both.client.close(4001, "second"))
        await within(both.server.close(4002, "third"))
        assert both.server.close_code == both.client.close_code == 4000


async def test_several_may_close_at_once() -> None:
    async with ends(options=NARROW) as both:
        await both.block()
        await both.client.send("gathered")
        closing = [start(both.client.close(4000 + number)) for number in range(3)]
        await steps(5)
        assert not any(task.done() for task in closing)
        both.go_on()
        await within(asyncio.gather(*closing))
        assert both.server.close_code == 4000


async def test_both_ends_may_close_at_once() -> None:
    async with ends() as both:
        await both.client.send("from the client")
        await both.server.send("from the server")
        await within(asyncio.gather(both.client.close(), both.server.close()))
        assert await both.rest() == ["from the client"]
        assert await within(both.client.recv()) == "from the server"


async def test_what_arrived_can_still_be_received() -> None:
    async with ends() as both:
        await both.server.send_many([str(number) for number in range(10)])
        await within(both.server.flush())
        await within(both.client.close())
        assert [message async for message in both.client] == [str(number) for number in range(10)]


async def test_messages_that_nobody_receives_do_not_keep_it_open() -> None:
    async with ends(options=Options(max_queue=2, ping_interval=None)) as both:
        await both.server.send_many([b"x" * 1000] * 1000)
        await steps(10)
        began = asyncio.get_running_loop().time()
        await within(both.client.close())
        assert elapsed_since(began) < 2


async def test_what_the_peer_had_accepted_goes_before_its_answer() -> None:
    async with ends(BatchConfig(batch_timeout=60)) as both:
        await both.server.send_many(["lingering", "too"])
        await within(both.client.close())
        assert [message async for message in both.client] == ["lingering", "too"]


async def test_against_a_peer_that_takes_nothing_it_ends_in_time() -> None:
    async with ends(BatchConfig(max_pending_messages=3), HASTY) as both:
        await both.block()
        sending = []
        for number in range(10):
            sending.append(start(both.client.send(str(number))))
            await steps()
        began = asyncio.get_running_loop().time()
        await within(both.client.close())
        assert elapsed_since(began) < 0.5
        for task in sending[3:]:
            with pytest.raises(ConnectionClosedError, match="no close frame") as closed:
                await within(task)
            assert isinstance(closed.value.__cause__, TimeoutError)


async def test_against_a_peer_that_does_not_answer_it_ends_in_time() -> None:
    async with ends(options=HASTY) as both:
        both.stall()
        began = asyncio.get_running_loop().time()
        await within(both.client.close())
        assert 0.24 < elapsed_since(began) < 0.5
        assert both.client.close_code == 1006


async def test_against_a_peer_that_takes_the_messages_but_not_the_end_it_ends_in_twice_the_time() -> None:
    async with ends(options=HASTY) as both:
        filler = await both.block()
        began = asyncio.get_running_loop().time()
        closing = start(both.client.close())
        await asyncio.sleep(0.15)
        both.go_on()
        assert await both.received(1) == [filler]
        both.stall()
        await within(closing)
        assert elapsed_since(began) < 0.5


async def test_without_a_timeout_it_waits_as_long_as_it_takes() -> None:
    patient = Options(ping_interval=None, max_queue=None, close_timeout=None, write_limit=1000)
    async with ends(options=patient) as both:
        filler = await both.block()
        closing = start(both.client.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        both.go_on()
        await within(closing)
        assert await both.rest() == [filler]


async def test_cancelled_while_messages_are_being_written_it_drops_the_connection() -> None:
    async with ends(options=NARROW) as both:
        await both.block()
        closing = start(both.client.close())
        await steps(3)
        assert await cancelled(closing)
        await within(both.client.wait_closed())
        assert both.client.close_code == 1006


async def test_cancelled_later_it_goes_on_by_itself() -> None:
    async with ends() as both:
        both.stall()
        closing = start(both.client.close(4000))
        await steps(5)
        assert await cancelled(closing)
        both.go_on()
        await within(both.client.wait_closed())
        assert both.server.close_code == both.client.close_code == 4000


async def test_leaving_the_block_closes_in_order() -> None:
    async with ends() as both:
        async with both.client as connection:
            assert connection is both.client
            await connection.send("inside")
        assert await both.rest() == ["inside"]
        assert both.server.close_code == 1000


async def test_leaving_the_block_with_an_error_closes_with_1011() -> None:
    async with ends() as both:

        async def fail_inside() -> None:
            async with both.client as connection:
                await connection.send("inside")
                raise LookupError

        with pytest.raises(LookupError):
            await within(fail_inside())
        assert await both.rest() == ["inside"]
        assert both.server.close_code == 1011


async def test_a_connection_knows_what_it_is() -> None:
    async with ends() as both:
        assert both.client.state is State.OPEN
        assert both.client.close_code is both.client.close_reason is None
        assert both.client.id != both.server.id
        assert repr(both.client) == f"<Connection OPEN {both.client.id}>"
        assert both.client.local_address == both.server.remote_address == "memory"
        assert both.client.request is both.client.response is both.client.subprotocol is None
        assert both.client.latency == 0
        assert both.client.logger is both.client_end.logger
        await within(both.client.close())
        assert repr(both.client) == f"<Connection CLOSED {both.client.id}>"


async def test_a_connection_lost_while_messages_are_being_written_ends_closing() -> None:
    async with ends(BatchConfig(max_pending_messages=1), NARROW) as both:
        await both.block()
        sending = [start(both.client.send("gathered")), start(both.client.send("waits"))]
        await steps(3)
        closing = start(both.client.close())
        await steps(3)
        sending[1].cancel()  # in the very step in which the connection is lost
        both.client_end.transport.abort()
        await within(closing)
        await within(asyncio.wait(sending))
        assert both.client.close_code == 1006


@pytest.mark.parametrize("message", ["whole", ["in", "pieces"]])
async def test_a_sender_that_is_let_through_as_the_connection_fails_is_told(message: str | list[str]) -> None:
    async with ends(BatchConfig(max_pending_messages=1), NARROW) as both:
        filler = await both.block()
        await both.client.send("gathered")
        sending = start(both.client.send(message))
        await steps(3)
        both.go_on()
        while not both.client.outbox._turns.promised:
            await steps()
        both.client_end.fail(1008, "in the moment between")
        with pytest.raises(ConnectionClosedError):
            await within(sending)
        assert await both.rest() == [filler, "gathered"]
        assert both.server.close_code == 1008
