"""While the socket takes nothing: messages gather within bounds, and senders queue in the order they came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import BatchConfig, Connection
from penstock.transport.base import ConnectionClosedError
from support.ends import NARROW, Ends, cancelled, ends, start, steps, within

FEW = BatchConfig(max_pending_messages=4)


async def send_until_it_waits(connection: Connection, payload: bytes, limit: int = 10_000) -> asyncio.Task[None]:
    """Send as many as are accepted; the send that waits."""
    for _ in range(limit):
        task = start(connection.send(payload))
        await steps(4)
        if not task.done():
            return task
        task.result()
    raise AssertionError("nothing ever waited")


@asynccontextmanager
async def queue(
    *names: str, batch: BatchConfig = FEW
) -> AsyncIterator[tuple[Ends, list[asyncio.Task[None]], list[Any]]]:
    """Senders that wait, and the messages that were accepted before."""
    async with ends(batch, NARROW) as both:
        before = [await both.block(), *(str(number) for number in range(4))]
        for message in before[1:]:
            await within(both.client.send(message))
        waiting = []
        for name in names:
            waiting.append(start(both.client.send(name)))
            await steps()
        assert not any(task.done() for task in waiting)
        yield both, waiting, before


async def test_messages_gather_while_the_socket_is_blocked_and_leave_in_one_write() -> None:
    async with ends(options=NARROW) as both:
        filler = await both.block()
        for number in range(100):
            await both.client.send(str(number))
        await steps(5)
        assert len(both.spy.writes) == 1
        both.go_on()
        assert await both.received(101) == [filler, *map(str, range(100))]
        assert len(both.spy.writes) == 2


@pytest.mark.parametrize("optional", [{}, {"batch_size": 3}, {"batch_bytes": 200}, {"max_pending_bytes": 10_000_000}])
async def test_no_more_messages_gather_than_allowed(optional: dict[str, int]) -> None:
    async with ends(BatchConfig(max_pending_messages=10, **optional), NARROW) as both:
        filler = await both.block()
        waiting = await send_until_it_waits(both.client, b"")
        both.go_on()
        await within(waiting)
        assert await both.received(12) == [filler, *[b""] * 11]
        assert len(both.spy.payloads[1]) == 10


@pytest.mark.parametrize("size", [10, 100, 1000, 4000])
async def test_no_more_bytes_gather_than_allowed(size: int) -> None:
    bound = 10_000
    async with ends(BatchConfig(max_pending_bytes=bound), NARROW) as both:
        await both.block()
        waiting = await send_until_it_waits(both.client, bytes(size))
        both.go_on()
        await within(waiting)
        await steps(5)
        together = len(both.spy.payloads[1])
        assert together * size <= bound < (together + 1) * size


async def test_a_message_beyond_all_bounds_is_taken_when_nothing_else_waits() -> None:
    async with ends(BatchConfig(max_pending_bytes=100, batch_bytes=100), NARROW) as both:
        filler = await both.block()
        await within(both.client.send(b"x" * 5000))
        waiting = start(both.client.send(b"y"))
        await steps(5)
        assert not waiting.done()
        both.go_on()
        await within(waiting)
        assert await both.received(3) == [filler, b"x" * 5000, b"y"]


async def test_a_message_beyond_all_bounds_goes_when_the_socket_is_free() -> None:
    async with ends(BatchConfig(max_pending_bytes=100, batch_bytes=100)) as both:
        for _ in range(3):
            await within(both.client.send(b"x" * 5000))
        await within(both.client.send(b""))
        assert await both.received(4) == [b"x" * 5000] * 3 + [b""]


async def test_a_crowd_of_waiting_senders_is_let_in_within_the_bounds() -> None:
    async with ends(BatchConfig(max_pending_messages=10), NARROW) as both:
        filler = await both.block()
        crowd = [start(both.client.send(b"%d" % number)) for number in range(200)]
        await steps(3)
        # The peer takes a little now and then: the socket blocks again after each write.
        most = 0
        while len(both.spy.frames) < 201:
            both.go_on()
            await steps(2)
            both.stall()
            await steps(3)
            most = max(most, *map(len, both.spy.payloads))
        both.go_on()
        await within(asyncio.gather(*crowd))
        assert await both.received(201) == [filler, *(b"%d" % number for number in range(200))]
        assert most <= 10


async def test_a_crowd_does_not_gather_beyond_the_bounds_when_the_socket_blocks_again() -> None:
    async with ends(BatchConfig(max_pending_messages=10, batch_size=10), NARROW) as both:
        await both.block()
        big = [start(both.client.send(bytes(2000))) for _ in range(5)]
        crowd = [start(both.client.send(b"")) for _ in range(100)]
        await steps(3)
        both.go_on()
        while len(both.spy.writes) < 2:
            await steps()
        both.stall()
        await steps(5)
        assert both.client_end.blocked
        accepted = sum(task.done() for task in big + crowd)
        assert accepted - (len(both.spy.frames) - 1) <= 10
        both.go_on()
        await within(asyncio.gather(*big, *crowd))


async def test_waiting_senders_are_served_first_come_first_served() -> None:
    names = [f"waiting {number}" for number in range(20)]
    async with queue(*names) as (both, waiting, before):
        both.go_on()
        await within(asyncio.gather(*waiting))
        assert await both.received(25) == [*before, *names]


async def test_a_new_sender_does_not_overtake_one_that_waits() -> None:
    async with queue("a", "b") as (both, waiting, before):
        both.go_on()
        while not waiting[0].done():
            late = start(both.client.send("late"))
            await steps()
            if late.done():
                assert waiting[0].done()
            else:
                assert await cancelled(late)
        await within(waiting[1])
        await within(both.client.send("last"))
        messages = await both.received(len(both.spy.frames))
        assert messages[: len(before)] == before
        assert messages.index("a") < messages.index("b")
        assert "late" not in messages[: messages.index("b")]


async def test_a_small_message_does_not_overtake_a_large_one_that_waits() -> None:
    async with ends(BatchConfig(max_pending_bytes=1000), NARROW) as both:
        filler = await both.block()
        await within(both.client.send(b"x" * 101))
        large = start(both.client.send(b"L" * 900))
        await steps()
        small = start(both.client.send(b"s"))
        await steps(5)
        assert not large.done()
        assert not small.done()
        both.go_on()
        await within(asyncio.gather(large, small))
        assert await both.received(4) == [filler, b"x" * 101, b"L" * 900, b"s"]


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_cancelled_send_was_not_sent_and_the_others_keep_their_order(which: int) -> None:
    names = ["a", "b", "c"]
    async with queue(*names) as (both, waiting, before):
        assert await cancelled(waiting.pop(which))
        del names[which]
        both.go_on()
        await within(asyncio.gather(*waiting))
        await both.client.send("end")
        assert await both.received(8) == [*before, *names, "end"]


async def test_a_send_cancelled_as_its_turn_comes_gives_it_to_the_next() -> None:
    async with queue("a", "b") as (both, waiting, before):
        both.go_on()
        while not waiting[0].done():
            if both.client.outbox._turns.promised:  # let through, but not awake yet
                waiting[0].cancel()
            await asyncio.sleep(0)
        assert waiting[0].cancelled()
        await within(waiting[1])
        await both.client.send("end")
        assert await both.received(7) == [*before, "b", "end"]


async def test_a_small_message_is_taken_when_the_large_one_before_it_is_cancelled() -> None:
    async with ends(BatchConfig(max_pending_bytes=1000), NARROW) as both:
        filler = await both.block()
        await within(both.client.send(b"x" * 101))
        large = start(both.client.send(b"L" * 900))
        await steps()
        small = start(both.client.send(b"s"))
        await steps()
        assert await cancelled(large)
        await within(small)
        both.go_on()
        assert await both.received(3) == [filler, b"x" * 101, b"s"]


async def test_all_waiting_senders_may_be_cancelled() -> None:
    async with queue("a", "b", "c") as (both, waiting, before):
        for task in waiting:
            assert await cancelled(task)
        both.go_on()
        await steps(5)
        await both.client.send("end")
        assert await both.received(6) == [*before, "end"]


async def test_a_waiting_sender_is_told_when_the_connection_is_lost() -> None:
    async with queue("a", "b") as (both, waiting, _):
        both.client_end.transport.abort()
        for task in waiting:
            with pytest.raises(ConnectionClosedError):
                await within(task)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("batch", [{"batch_size": 2}, {"batch_bytes": 300}, {"max_pending_messages": 2}])
async def test_all_who_wait_are_served_however_small_a_batch_is(batch: dict[str, int], optimize: bool) -> None:
    async with ends(BatchConfig(**batch, batch_timeout=0 if optimize else 60), NARROW, optimize=optimize) as both:
        filler = await both.block()
        crowd = [start(both.client.send(f"{number:0100}")) for number in range(50)]
        await steps(3)
        both.go_on()
        await within(asyncio.gather(*crowd))
        assert await both.received(51) == [filler, *(f"{number:0100}" for number in range(50))]


async def test_a_crowd_does_not_wait_for_a_lingering_batch_to_be_due() -> None:
    async with ends(BatchConfig(batch_size=2, batch_timeout=60), NARROW) as both:
        crowd = [start(both.client.send(f"{number:0100}")) for number in range(50)]
        await within(asyncio.gather(*crowd))
        assert await both.received(50) == [f"{number:0100}" for number in range(50)]


async def test_a_bounded_wait_raises_timeout_and_sends_nothing() -> None:
    async with queue() as (both, _, before):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await both.client.send("never")
        both.go_on()
        await steps(4)
        await both.client.send("end")
        assert await both.received(6) == [*before, "end"]


async def test_a_lingering_batch_waits_on_while_the_socket_is_blocked() -> None:
    async with ends(BatchConfig(batch_timeout=0.01), NARROW) as both:
        both.stall()
        await both.client.send(b"#" * 2000)
        await asyncio.sleep(0.03)
        await both.client.send("gathered")
        await asyncio.sleep(0.03)
        assert len(both.spy.writes) == 1
        both.go_on()
        assert await both.received(2) == [b"#" * 2000, "gathered"]


PLANS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 1500), st.booleans()),
        st.tuples(st.just("send_many"), st.integers(0, 300), st.integers(0, 20)),
        st.tuples(st.just("fragments"), st.integers(0, 300), st.integers(0, 4)),
        st.tuples(st.just("flush"), st.just(0), st.just(0)),
        st.tuples(st.just("stall"), st.just(0), st.just(0)),
        st.tuples(st.just("go_on"), st.just(0), st.just(0)),
        st.tuples(st.just("turn"), st.integers(1, 4), st.just(0)),
    ),
    max_size=25,
)
CONFIGS = st.builds(
    BatchConfig,
    batch_size=st.sampled_from([1, 3, 1024]),
    batch_bytes=st.sampled_from([1, 500, 131_072]),
    batch_timeout=st.sampled_from([0.0, 0.001]),
    max_pending_messages=st.sampled_from([1, 5, 16_384]),
    max_pending_bytes=st.sampled_from([1, 1000, 1 << 20]),
)


class Plan:
    """Carries out steps at one end, and knows what has to arrive at the other."""

    def __init__(self, both: Ends) -> None:
        self.both = both
        self.expected: list[Any] = []
        self.tasks: list[asyncio.Task[None]] = []
        self._number = 0

    def _message(self, size: int, *, text: bool) -> Any:
        self._number += 1
        message = f"{self._number}:{'x' * size}"
        return message if text else message.encode()

    async def _start(self, coroutine: Any) -> None:
        # One turn, so that calls are made in the order of the plan.
        self.tasks.append(start(coroutine))
        await steps()

    async def carry_out(self, kind: str, size: int, more: int) -> None:
        client = self.both.client
        if kind == "send":
            self.expected.append(self._message(size, text=bool(more)))
            await self._start(client.send(self.expected[-1]))
        elif kind == "send_many":
            messages = [self._message(size, text=number % 3 > 0) for number in range(more)]
            self.expected += messages
            # The next call must not come between the first of these and the last.
            await self._start(client.send_many(messages))
            self.both.go_on()
            await within(self.tasks[-1])
        elif kind == "fragments":
            pieces = [self._message(size, text=True) for _ in range(more)]
            self.expected += ["".join(pieces)] if pieces else []
            await self._start(client.send(iter(pieces)))
        elif kind == "flush":
            await self._start(client.flush())
        elif kind == "turn":
            await steps(size)
        else:
            getattr(self.both, kind)()


@settings(max_examples=150, deadline=None)
@given(plan=PLANS, config=CONFIGS, optimize=st.booleans())
async def test_whatever_is_done_in_between_all_messages_arrive_in_order(
    plan: list[tuple[str, int, int]], config: BatchConfig, optimize: bool
) -> None:
    async with ends(config, NARROW, optimize=optimize) as both:
        work = Plan(both)
        for step in plan:
            await work.carry_out(*step)
        both.go_on()
        await within(asyncio.gather(*work.tasks))
        await within(both.client.close())
        assert await both.rest() == work.expected
        assert both.server.close_code == 1000


@settings(max_examples=100, deadline=None)
@given(plan=PLANS, config=CONFIGS, victims=st.sets(st.integers(0, 24)))
async def test_cancelled_sends_are_sent_whole_or_not_at_all(
    plan: list[tuple[str, int, int]], config: BatchConfig, victims: set[int]
) -> None:
    async with ends(config, NARROW) as both:
        sends = {}
        for number, (kind, size, more) in enumerate(plan):
            if kind in {"stall", "go_on"}:
                getattr(both, kind)()
            elif kind == "turn":
                await steps(size)
            elif kind == "send":
                message = f"{number}:{'x' * size}"
                sends[message] = start(both.client.send(message if more else bytearray(message, "ascii")))
                await steps(number % 2)
                if number in victims:
                    sends[message].cancel()
        both.go_on()
        await within(asyncio.gather(*sends.values(), return_exceptions=True))
        await within(both.client.close())
        arrived = [message if isinstance(message, str) else message.decode() for message in await both.rest()]
        assert arrived == [message for message, task in sends.items() if not task.cancelled()]
