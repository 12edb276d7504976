"""Whatever the network does: what is delivered is a first part of what was sent, and both ends learn of the end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from websockets import ConnectionClosed, InvalidHandshake

import penstock
from support.chaos import WHAT, Chaos, Plan, chaos
from support.servers import TRANSPORTS, port_of

pytestmark = pytest.mark.timeout(60)

END = "the end"
SEEDS = range(200)
DEADLINE = 8.0
SHORT = {"ping_interval": 0.1, "ping_timeout": 0.1}
"""For where nothing but a ping can tell; a slow network alone would be declared dead by it."""


def traffic(seed: int) -> list[str | bytes]:
    """Messages of all sizes and both kinds, no two alike."""
    chance = random.Random(seed)
    sizes = [chance.choice((0, 1, 20, 125, 126, 500)) for _ in range(60)] + [20_000, 70_000]
    chance.shuffle(sizes)
    texts = [f"{number}:{'é' * (size // 2)}" for number, size in enumerate(sizes)]
    return [text.encode() if chance.random() < 0.5 else text for text in texts]


class End:
    """One end's run: what it sent and received, and how it ended."""

    def __init__(self, messages: list[str | bytes]) -> None:
        self.messages = messages
        self.received: list[Any] = []
        self.complete = False

    async def run(self, conn: Any) -> None:
        sender = asyncio.create_task(self._send(conn))
        try:
            while (message := await conn.recv()) != END:
                self.received.append(message)
            await sender
            self.complete = True
        except ConnectionClosed:
            pass
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, conn: Any) -> None:
        for number, message in enumerate(self.messages):
            await conn.send(message)
            if number % 10 == 0:
                await asyncio.sleep(0)
        await conn.send(END)


async def meet(proxy: Chaos, here: End, **options: Any) -> None:
    try:
        async with penstock.connect(proxy.url, **options) as conn:
            await here.run(conn)
    except (InvalidHandshake, OSError):
        assert proxy.struck


async def suffer(plan: Plan, client: Any, server: Any) -> None:
    """One connection under one plan; both ends are done within the deadline."""
    here, there = End(traffic(plan.seed)), End(traffic(plan.seed + 1000))
    options: dict[str, Any] = {"open_timeout": 2, "close_timeout": 0.5, **(SHORT if plan.what == "swallow" else {})}
    async with asyncio.timeout(DEADLINE):
        async with (
            penstock.serve(there.run, "127.0.0.1", 0, transport=server, reliable=False, **options) as listening,
            chaos(port_of(listening), plan) as proxy,
        ):
            await meet(proxy, here, transport=client, **options)
            await asyncio.gather(*(conn.wait_closed() for conn in listening.connections))
    assert there.received == here.messages[: len(there.received)], plan
    assert here.received == there.messages[: len(here.received)], plan
    if plan.what == "nothing":
        assert here.complete, plan
        assert there.complete, plan


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("server", TRANSPORTS)
@pytest.mark.parametrize("client", TRANSPORTS)
async def test_what_arrives_is_a_first_part_of_what_was_sent(client: Any, server: Any, what: str) -> None:
    number = TRANSPORTS.index(client) * 2 + TRANSPORTS.index(server)
    plans = [Plan.of(seed, 100_000) for seed in SEEDS if seed // len(WHAT) % 4 == number]
    plans = [plan for plan in plans if plan.what == what]
    assert len(plans) == 10
    async with asyncio.TaskGroup() as group:
        for plan in plans:
            group.create_task(suffer(plan, client, server))


def test_all_plans_are_different() -> None:
    plans = [Plan.of(seed, 100_000) for seed in SEEDS]
    assert len({(plan.what, plan.after) for plan in plans}) > 190
    assert {plan.what for plan in plans} == set(WHAT)
