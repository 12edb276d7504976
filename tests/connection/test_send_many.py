"""Many messages in one call are as many calls."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import BatchConfig
from penstock.errors import MessageTypeError, SerializationError
from penstock.transport.base import ConnectionClosedOK
from support.ends import NARROW, cancelled, ends, start, steps, within

SHAPES: dict[str, Callable[[list[Any]], Iterable[Any]]] = {
    "list": list,
    "tuple": tuple,
    "deque": deque,
    "iterator": iter,
    "generator": lambda messages: (message for message in messages),
    "dict": dict.fromkeys,
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_messages_may_come_in_any_iterable(shape: str) -> None:
    messages = [str(number) for number in range(300)]
    async with ends() as both:
        await both.client.send_many(SHAPES[shape](messages))
        assert await both.received(300) == messages


async def test_many_messages_leave_in_one_write() -> None:
    async with ends() as both:
        await both.client.send_many([b"x"] * 500)
        await steps(2)
        assert [len(payloads) for payloads in both.spy.payloads] == [500]


async def test_one_message_is_written_at_once() -> None:
    async with ends() as both:
        await both.client.send_many(["lone"])
        assert both.spy.payloads == [[b"lone"]]


@pytest.mark.parametrize("messages", [[], (), iter([])])
async def test_no_messages_are_no_write(messages: Any) -> None:
    async with ends() as both:
        await both.client.send_many(messages)
        await steps(3)
        assert both.spy.writes == []


@pytest.mark.parametrize("message", ["abc", b"abc", bytearray(b"abc"), memoryview(b"abc"), ""])
async def test_one_message_is_not_many(message: Any) -> None:
    async with ends() as both:
        with pytest.raises(MessageTypeError, match="takes an iterable of messages, not one"):
            await both.client.send_many(message)
        assert both.spy.writes == []


@pytest.mark.parametrize("optimize", [True, False])
@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(st.text(max_size=5) | st.binary(max_size=5) | st.binary(max_size=5).map(bytearray), max_size=400),
    whole=st.booleans(),
)
async def test_mixed_kinds_keep_their_order(optimize: bool, messages: list[Any], whole: bool) -> None:
    async with ends(BatchConfig(batch_size=50), optimize=optimize) as both:
        await within(both.client.send_many(messages if whole else iter(messages)))
        assert await both.received(len(messages)) == messages


async def test_messages_are_those_of_the_moment_and_content_is_copied() -> None:
    async with ends() as both:
        array = bytearray(b"one")
        messages: list[Any] = [array, array]
        await both.client.send_many(messages)
        array[:] = b"two"
        messages.clear()
        assert await both.received(2) == [b"one", b"one"]


@pytest.mark.parametrize("shape", ["list", "generator"])
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("position", [0, 1, 5, 127, 128, 129])
@pytest.mark.parametrize(
    ("bad", "error"), [(5, MessageTypeError), ("\ud800", SerializationError), (["a"], MessageTypeError)]
)
async def test_those_before_a_bad_message_are_sent(
    bad: Any, error: type[Exception], position: int, optimize: bool, shape: str
) -> None:
    messages: list[Any] = [str(number) for number in range(200)]
    messages[position] = bad
    async with ends(optimize=optimize) as both:
        with pytest.raises(error):
            await both.client.send_many(SHAPES[shape](messages))
        await both.client.send("after")
        await within(both.client.close())
        assert await both.rest() == [*messages[:position], "after"]


async def test_those_before_a_generator_that_fails_are_sent() -> None:
    def messages() -> Iterator[str]:
        for number in range(150):
            yield str(number)
        raise LookupError("no more")

    async with ends() as both:
        with pytest.raises(LookupError, match="no more"):
            await both.client.send_many(messages())
        await within(both.client.close())
        assert await both.rest() == [str(number) for number in range(150)]


@pytest.mark.parametrize("bad", [5, None, object()])
async def test_what_is_no_iterable_is_a_type_error(bad: Any) -> None:
    async with ends() as both:
        with pytest.raises(TypeError):
            await both.client.send_many(bad)
        await both.client.send("still usable")
        assert await both.received(1) == ["still usable"]


@pytest.mark.parametrize("bounds", [{"batch_size": 7}, {"batch_bytes": 500}, {"max_pending_messages": 3}])
async def test_more_than_a_batch_holds_arrives_all_the_same(bounds: dict[str, int]) -> None:
    messages = [str(number) for number in range(1000)]
    async with ends(BatchConfig(**bounds)) as both:
        sending = start(both.client.send_many(messages))
        assert await both.received(1000) == messages
        await within(sending)


async def test_while_the_socket_is_blocked_it_waits_for_room() -> None:
    messages = [str(number) for number in range(1000)]
    async with ends(BatchConfig(max_pending_messages=10), NARROW) as both:
        filler = await both.block()
        sending = start(both.client.send_many(messages))
        await steps(20)
        assert not sending.done()
        both.go_on()
        assert await both.received(1001) == [filler, *messages]
        await within(sending)
        assert max(map(len, both.spy.payloads)) <= 10


@pytest.mark.parametrize("shape", ["list", "generator"])
async def test_cancelled_it_has_accepted_a_first_part(shape: str) -> None:
    messages = [str(number) for number in range(1000)]
    async with ends(BatchConfig(max_pending_messages=10), NARROW) as both:
        filler = await both.block()
        sending = start(both.client.send_many(SHAPES[shape](messages)))
        await steps(20)
        assert await cancelled(sending)
        both.go_on()
        await both.client.send("after")
        await within(both.client.close())
        arrived = await both.rest()
        assert arrived[0] == filler
        assert arrived[-1] == "after"
        assert arrived[1:-1] == messages[: len(arrived) - 2]
        assert 0 < len(arrived[1:-1]) <= 10


async def test_two_callers_take_turns_without_loss() -> None:
    async with ends(BatchConfig(batch_size=16)) as both:
        numbers = [[f"{name}{number}" for number in range(500)] for name in "ab"]
        sending = [start(both.client.send_many(messages)) for messages in numbers]
        arrived = await both.received(1000)
        await within(asyncio.gather(*sending))
        for name, messages in zip("ab", numbers, strict=True):
            assert [message for message in arrived if message.startswith(name)] == messages


async def test_messages_sent_before_and_after_keep_their_place() -> None:
    async with ends() as both:
        await both.client.send("before")
        await both.client.send_many(["one", b"two"])
        await both.client.send("after")
        assert await both.received(4) == ["before", "one", b"two", "after"]


async def test_without_optimizing_every_message_is_written_by_itself() -> None:
    async with ends(optimize=False) as both:
        await both.client.send_many(["a", "b", b"c"])
        assert both.spy.payloads == [[b"a"], [b"b"], [b"c"]]


async def test_it_lingers_as_sends_do() -> None:
    async with ends(BatchConfig(batch_timeout=0.02)) as both:
        await both.client.send_many(["a", "b"])
        await steps(5)
        assert both.spy.writes == []
        await both.client.send("c")
        assert await both.received(3) == ["a", "b", "c"]
        assert both.spy.payloads == [[b"a", b"b", b"c"]]


async def test_a_long_list_does_not_starve_others() -> None:
    async with ends() as both:
        turns = 0
        done = False

        async def count_turns() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        counting = start(count_turns())
        await both.client.send_many([b"x"] * 50_000)
        done = True
        await counting
        assert turns >= 25


async def test_on_a_closed_connection_it_raises() -> None:
    async with ends() as both:
        await within(both.client.close())
        for messages in (["one"], ["one", "two"], iter(["one", "two"])):
            with pytest.raises(ConnectionClosedOK):
                await within(both.client.send_many(messages))
