"""A batch that waits for company leaves in time, whatever made an earlier one leave sooner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from penstock import BatchConfig
from support.ends import Ends, ends, within

LINGER = BatchConfig(batch_timeout=0.02)


async def ping(both: Ends) -> Any:
    return await (await both.client.ping())


async def pong(both: Ends) -> Any:
    await both.client.pong()


async def flush(both: Ends) -> Any:
    await both.client.flush()


async def be_pinged(both: Ends) -> Any:
    await (await both.server.ping())


async def fill(both: Ends) -> Any:
    await both.client.send_many(["x"] * LINGER.batch_size)


@pytest.mark.parametrize("hurry", [ping, pong, flush, be_pinged, fill])
async def test_what_is_sent_after_an_early_batch_leaves_by_itself(hurry: Callable[[Ends], Awaitable[Any]]) -> None:
    async with ends(LINGER) as both:
        for round_ in range(3):
            await both.client.send(f"early {round_}")
            await within(hurry(both))
            for number in range(5):
                await both.client.send(f"{round_} {number}")
            received = []
            while not received or received[-1] != f"{round_} 4":
                received.append(await within(both.server.recv(), 2))
            assert received[0] == f"early {round_}"
            assert [text for text in received if text != "x"][1:] == [f"{round_} {number}" for number in range(5)]
