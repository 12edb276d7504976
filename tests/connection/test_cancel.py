"""Whatever is cancelled, at whichever await: the connection is usable after it, or closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from penstock import BatchConfig
from penstock.transport.base import ConnectionClosed, State
from support.ends import NARROW, Ends, cancelled, ends, start, steps, within

STEPS = range(12)
"""More than any of the calls takes."""


async def pieces() -> AsyncIterator[str]:
    for letter in "abc":
        yield letter
        await asyncio.sleep(0)


async def take_streaming(both: Ends) -> list[Any]:
    return [piece async for piece in both.client.recv_streaming()]


Call = Callable[[Ends], Coroutine[Any, Any, Any]]

CALLS: dict[str, Call] = {
    "send": lambda both: both.client.send("called"),
    "send_large": lambda both: both.client.send("x" * 5000),
    "send_many": lambda both: both.client.send_many([f"called {number}" for number in range(10)]),
    "send_many_of_a_generator": lambda both: both.client.send_many(f"called {number}" for number in range(200)),
    "send_fragments": lambda both: both.client.send(["a", "b", "c"]),
    "send_fragments_slowly": lambda both: both.client.send(pieces()),
    "flush": lambda both: both.client.flush(),
    "ping": lambda both: both.client.ping(),
    "pong": lambda both: both.client.pong(),
    "close": lambda both: both.client.close(),
    "recv": lambda both: both.client.recv(),
    "recv_many": lambda both: both.client.recv_many(),
    "recv_streaming": take_streaming,
    "wait_closed": lambda both: both.client.wait_closed(),
}


async def idle(both: Ends) -> None:
    """Nothing is going on."""


async def busy(both: Ends) -> None:
    for number in range(3):
        await both.client.send(f"before {number}")


async def blocked(both: Ends) -> None:
    await both.block()
    await both.client.send("before 0")


async def full(both: Ends) -> None:
    await both.block()
    for number in range(4):
        await both.client.send(f"before {number}")


async def fragmenting(both: Ends) -> None:
    async def slowly() -> AsyncIterator[str]:
        for number in range(6):
            yield f"fragment {number}"
            await asyncio.sleep(0)

    both.others = [start(both.client.send(slowly()))]  # type: ignore[attr-defined]
    await steps(2)


SITUATIONS = [idle, busy, blocked, full, fragmenting]


async def check_usable(both: Ends) -> list[Any]:
    """Both ends can send and receive, in order; what the server got before that."""
    await within(both.client.send("probe"))
    await within(both.server.send("probe"))
    messages = []
    while not messages or messages[-1] != "probe":
        messages.append(await within(both.server.recv()))
    while await within(both.client.recv()) != "probe":
        pass
    await within(both.client.flush())
    await within(both.client.close())
    assert both.server.close_code == 1000
    return messages[:-1]


@pytest.mark.parametrize("go_on_first", [False, True])
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("name", CALLS)
async def test_a_cancelled_call_leaves_the_connection_usable_or_closed(
    name: str, situation: Callable[[Ends], Coroutine[Any, Any, None]], optimize: bool, go_on_first: bool
) -> None:
    if situation is full and not optimize:
        situation = blocked_plain
    for number in STEPS:
        async with ends(BatchConfig(max_pending_messages=4), NARROW, optimize=optimize) as both:
            both.others = []  # type: ignore[attr-defined]
            await (blocked_plain if situation is blocked and not optimize else situation)(both)
            call = start(CALLS[name](both))
            if go_on_first:
                both.go_on()
            await steps(number)
            call.cancel()
            both.go_on()
            await within(asyncio.wait([call]))
            await check_outcome(both, name, call)


async def blocked_plain(both: Ends) -> None:
    """Without optimizing nothing gathers."""
    await both.block()


async def check_outcome(both: Ends, name: str, call: asyncio.Task[Any]) -> None:
    results = await within(asyncio.gather(*both.others, return_exceptions=True))  # type: ignore[attr-defined]
    if not call.cancelled() and name != "close":
        call.result()
    if both.client.state is not State.OPEN or both.client_end.transport.is_closing():
        assert name in {"close", "send_fragments", "send_fragments_slowly"}
        await within(both.client.wait_closed())
        assert both.client.state is State.CLOSED
        with pytest.raises(ConnectionClosed):
            await within(both.client.send("late"))
        return
    assert results in ([], [None])
    arrived = await check_usable(both)
    if name in {"send", "send_large"}:
        assert (arrived[-1:] in (["called"], ["x" * 5000])) is not call.cancelled()
    elif name.startswith("send_fragments"):
        assert ("abc" in arrived) is not call.cancelled()
    elif name.startswith("send_many"):
        called = [message for message in arrived if isinstance(message, str) and message.startswith("called")]
        assert called == [f"called {number}" for number in range(len(called))]
        assert call.cancelled() or len(called) in {10, 200}


@pytest.mark.parametrize("name", ["recv", "recv_many", "recv_streaming"])
@pytest.mark.parametrize("number", STEPS)
async def test_a_cancelled_reader_loses_no_message(name: str, number: int) -> None:
    async with ends() as both:
        call = start(CALLS[name](both))
        await steps(2)
        await both.server.send_many(["one", "two"])
        await steps(number)
        call.cancel()
        await asyncio.wait([call])
        taken: list[Any] = []
        if not call.cancelled():
            taken = call.result() if isinstance(call.result(), list) else [call.result()]
        while len(taken) < 2:
            taken.append(await within(both.client.recv()))
        assert taken == ["one", "two"]


async def test_cancelling_a_reader_in_the_middle_of_a_message_in_pieces_loses_nothing() -> None:
    async with ends() as both:
        gate = asyncio.Event()

        async def slowly() -> AsyncIterator[str]:
            yield "a"
            await gate.wait()
            yield "b"

        sending = start(both.server.send(slowly()))
        reading = start(both.client.recv())
        await steps(10)
        assert await cancelled(reading)
        gate.set()
        assert await within(both.client.recv()) == "ab"
        await within(sending)


async def test_cancelling_one_of_many_callers_at_random_moments_disturbs_no_other() -> None:
    async with ends(BatchConfig(max_pending_messages=3), NARROW) as both:
        for turn in range(60):
            if turn % 5 == 0:
                both.stall()
            calls = {f"{turn}.{number}": start(both.client.send(f"{turn}.{number}")) for number in range(8)}
            await steps(turn % 4)
            victims = list(calls)[turn % 3 :: 3]
            for victim in victims:
                calls[victim].cancel()
            await steps(turn % 3)
            both.go_on()
            await within(asyncio.wait(calls.values()))
            sent = [message for message, task in calls.items() if not task.cancelled()]
            assert await both.received(len(sent)) == sent
