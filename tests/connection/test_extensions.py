"""An extension that was asked for sees every message once, in the order in which they are sent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock import BatchConfig, broadcast
from penstock.wire.frames import FIN
from support.ends import NARROW, Ends, ends, start, steps, within


def number_messages(both: Ends) -> None:
    """An extension that depends on the order, as compression with context does."""
    count = 0

    def encode(first: int, payload: bytes) -> tuple[int, bytes]:
        nonlocal count
        count += 1
        return first, b"%d:%s" % (count, payload)

    both.client_end.encode = encode


each_way = pytest.mark.parametrize(
    ("batch", "optimize"),
    [
        (BatchConfig(), True),
        (BatchConfig(batch_timeout=0.01), True),
        (BatchConfig(batch_size=2), True),
        (BatchConfig(), False),
    ],
)


@each_way
async def test_messages_are_encoded_in_the_order_in_which_they_are_sent(batch: BatchConfig, optimize: bool) -> None:
    async with ends(batch, optimize=optimize) as both:
        number_messages(both)
        await both.client.send("a")
        await both.client.send(b"b")
        await both.client.send_many(["c", "d", b"e"])
        broadcast([both.client], "f")
        await both.client.send("g")
        await within(both.client.close())
        assert await both.rest() == ["1:a", b"2:b", "3:c", "4:d", b"5:e", "6:f", "7:g"]


@each_way
async def test_it_sees_every_piece_of_a_message_in_pieces(batch: BatchConfig, optimize: bool) -> None:
    async with ends(batch, optimize=optimize) as both:
        number_messages(both)
        await both.client.send("before")
        await within(both.client.send(["a", "b"]))
        assert await both.received(2) == ["1:before", "2:a3:b4:"]


@each_way
async def test_a_message_that_waits_is_encoded_when_it_is_taken(batch: BatchConfig, optimize: bool) -> None:
    batch = BatchConfig(batch_size=batch.batch_size, batch_timeout=batch.batch_timeout, max_pending_messages=1)
    async with ends(batch, NARROW, optimize=optimize) as both:
        number_messages(both)
        filler = await both.block()
        sending: list[asyncio.Task[Any]] = []
        for letter in "abcd":
            sending.append(start(both.client.send(letter)))
            await steps()
        sending[2].cancel()
        both.go_on()
        await within(asyncio.wait(sending))
        assert await both.received(4) == [b"1:" + filler, "2:a", "3:b", "4:d"]


async def test_what_it_says_about_the_first_byte_is_sent() -> None:
    async with ends() as both:
        both.client_end.encode = lambda first, payload: (first ^ 3, payload)  # text for binary, binary for text
        await both.client.send("a")
        await both.client.send(b"b")
        assert both.spy.writes[0][0] == FIN | 2
        assert await both.received(2) == [b"a", "b"]
