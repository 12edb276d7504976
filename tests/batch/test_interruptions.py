"""Whoever is cancelled, fails, calls back or gives up: nothing is lost, doubled or left without an answer."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from penstock import (
    BatcherClosed,
    BatcherReentered,
    BatchProcessor,
    Message,
    MessageBatcher,
    MessageDropped,
    Receipt,
    WrongLoop,
)
from support.waiting import until


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, 5)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


class Gate:
    """A deliver that waits until it is let go."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.begun = 0
        self.delivered: list[str | bytes] = []

    async def __call__(self, messages: list[Message]) -> None:
        self.begun += 1
        await self.go.wait()
        self.delivered += [message.data for message in messages]


# Expiry


async def test_a_message_that_expires_is_told_though_no_batch_leaves() -> None:
    told: list[str] = []
    gate = Gate()
    async with MessageBatcher(gate, batch_timeout=60, on_drop=lambda messages, reason: told.append(reason)) as batcher:
        receipt = await batcher.add_message("late", ttl=0.02)
        flushed_by_expiry = await batcher.add_message("later", ttl=0.04)
        for one in (receipt, flushed_by_expiry):
            with pytest.raises(MessageDropped, match="expired"):
                await soon(one)
        assert told == ["expired"] * 2
        assert (batcher.stats().pending, batcher.stats().dropped) == (0, {"expired": 2})
        gate.go.set()
    assert gate.begun == 0


async def test_a_message_that_expires_while_deliver_hangs_is_told_and_makes_room_for_one_who_waits() -> None:
    gate = Gate()
    async with MessageBatcher(gate, batch_size=1, max_pending_messages=1) as batcher:
        await batcher.add_message("0")
        await until(lambda: gate.begun == 1)
        late = await batcher.add_message("late", ttl=0.02)
        flushing = asyncio.create_task(batcher.flush_messages())
        blocked = asyncio.create_task(batcher.add_message("1"))
        with pytest.raises(MessageDropped, match="expired"):
            await soon(late)
        await soon(blocked)
        await turns()
        assert not flushing.done()  # the batch that deliver has was added before
        gate.go.set()
        assert [message.data for message in await soon(flushing)] == ["0"]
    assert gate.delivered == ["0", "1"]


async def test_a_message_that_outlives_an_expired_one_keeps_its_time() -> None:
    gate = Gate()
    gate.go.set()
    async with MessageBatcher(gate, batch_timeout=0.1) as batcher:
        await batcher.add_message("late", ttl=0.02)
        await asyncio.sleep(0.07)
        began = asyncio.get_running_loop().time()
        await soon(await batcher.add_message("on time"))
        assert asyncio.get_running_loop().time() - began > 0.09


async def test_many_messages_that_expire_one_by_one_are_looked_through_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = Gate()
    async with MessageBatcher(gate, batch_size=2000, batch_timeout=60) as batcher:
        looks = 0
        drop_expired = batcher._queue.drop_expired

        def counted(now: float) -> None:
            nonlocal looks
            looks += 1
            drop_expired(now)

        monkeypatch.setattr(batcher._queue, "drop_expired", counted)
        receipts = [await batcher.add_message("x", ttl=0.03 + number / 10_000) for number in range(1000)]
        for receipt in receipts:
            with pytest.raises(MessageDropped):
                await soon(receipt)
        assert looks < 10
        gate.go.set()


async def test_what_has_just_expired_makes_room_at_once() -> None:
    gate = Gate()
    async with MessageBatcher(gate, batch_size=2, max_pending_messages=2, overflow="raise") as batcher:
        for name in ("0", "1"):
            await batcher.add_message(name)
        await until(lambda: gate.begun == 1)
        for name in ("late", "later"):
            await batcher.add_message(name, ttl=0.02)
        await turns()
        time.sleep(0.03)  # noqa: ASYNC251 - so that no timer runs
        await batcher.add_message("2")
        gate.go.set()
    assert gate.delivered == ["0", "1", "2"]


async def test_a_batcher_that_is_closed_waits_for_no_expiry() -> None:
    batcher = MessageBatcher(Gate(), batch_timeout=60)
    await batcher.add_message("a", ttl=3600)
    await batcher.close(timeout=0)
    closed = weakref.ref(batcher)
    del batcher
    gc.collect()
    assert closed() is None


# Calling back from deliver


@pytest.mark.parametrize("name", ["flush_messages", "close"])
async def test_a_deliver_that_waits_for_its_own_end_is_told(name: str) -> None:
    errors: list[Exception] = []

    async def deliver(messages: list[Message]) -> None:
        try:
            await getattr(batcher, name)()
        except BatcherReentered as exc:
            errors.append(exc)

    async with MessageBatcher(deliver) as batcher:
        await soon(await batcher.add_message("a"))
        assert name in str(errors[0])
        assert not batcher._closing


async def test_a_deliver_that_adds_to_a_full_batcher_is_told_instead_of_waiting_for_itself() -> None:
    errors: list[Exception] = []
    added: list[Receipt] = []

    async def deliver(messages: list[Message]) -> None:
        if messages[0].data != "a":
            return
        added.append(await batcher.add_message("b"))
        added.append(await batcher.add_message("c"))
        try:
            await batcher.add_message("d")
        except BatcherReentered as exc:
            errors.append(exc)

    async with MessageBatcher(deliver, batch_size=1, max_pending_messages=2) as batcher:
        await soon(await batcher.add_message("a"))
        assert len(errors) == 1
        assert "add_message" in str(errors[0])
        for receipt in added:
            await soon(receipt)


async def test_a_deliver_may_add_messages_while_there_is_room() -> None:
    delivered: list[Any] = []

    async def deliver(messages: list[Message]) -> None:
        delivered.extend(message.data for message in messages)
        if len(delivered) < 1000:
            for number in range(2):
                await batcher.add_message(f"{len(delivered)}.{number}")

    async with MessageBatcher(deliver, batch_size=2) as batcher:
        await batcher.add_message("a")
        await until(lambda: len(delivered) >= 1000)
    assert len(delivered) == batcher.stats().added == len(set(delivered))


async def test_a_deliver_does_not_queue_up_behind_those_who_wait_for_it() -> None:
    delivered: list[int] = []
    go = asyncio.Event()

    async def deliver(messages: list[Message]) -> None:
        await go.wait()
        delivered.extend(len(message.data) for message in messages)
        if len(delivered) == 1:
            await batcher.add_message(b"x")

    async with MessageBatcher(deliver, batch_size=1, max_pending_bytes=100) as batcher:
        await batcher.add_message(b"a" * 10)
        await turns()
        await batcher.add_message(b"b" * 60)
        blocked = asyncio.create_task(batcher.add_message(b"c" * 50))
        await turns()
        assert not blocked.done()
        go.set()
        await soon(blocked)
    assert delivered == [10, 60, 1, 50]


# Closing


async def test_one_who_is_let_through_as_the_batcher_gives_up_has_added_nothing() -> None:
    gate = Gate()
    batcher = MessageBatcher(gate, batch_size=1, max_pending_messages=1)
    await batcher.add_message("0")
    await until(lambda: gate.begun == 1)
    await batcher.add_message("1")
    blocked = asyncio.create_task(batcher.add_message("2"))
    await turns()
    gate.go.set()
    while not batcher._line.promised:
        await asyncio.sleep(0)
    batcher._sender.abandon()
    with pytest.raises(BatcherClosed):
        await soon(blocked)
    await soon(batcher.close())
    assert batcher.stats().pending == 0


async def test_a_deliver_that_turns_its_cancelling_into_a_failure_is_not_called_again() -> None:
    calls = 0

    async def deliver(messages: list[Message]) -> None:
        nonlocal calls
        calls += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionResetError from None

    batcher = MessageBatcher(deliver, retry_delay=0)
    receipt = await batcher.add_message("a")
    await soon(batcher.close(timeout=0.02))
    await asyncio.sleep(0.02)
    assert calls == 1
    assert isinstance(receipt.exception(), MessageDropped)


async def test_after_a_close_nobody_waits_for_a_deliver_that_will_not_end() -> None:
    go = asyncio.Event()

    async def stubborn(messages: list[Message]) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    batcher = MessageBatcher(stubborn)
    await batcher.add_message("a")
    await soon(batcher.close(timeout=0.02))
    assert await soon(batcher.flush_messages()) == []
    go.set()
    await turns()


async def test_a_close_that_is_cancelled_twice_answers_everybody() -> None:
    go = asyncio.Event()

    async def stubborn(messages: list[Message]) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    batcher = MessageBatcher(stubborn, batch_size=1, max_pending_messages=1)
    receipts = [await batcher.add_message("0")]
    await turns()
    receipts.append(await batcher.add_message("1"))
    blocked = asyncio.create_task(batcher.add_message("2"))
    closing = asyncio.create_task(batcher.close())
    await turns()
    for _ in range(2):
        closing.cancel()
        await turns()
    for receipt in receipts:
        with pytest.raises(MessageDropped, match="closed"):
            await soon(receipt)
    with pytest.raises(BatcherClosed):
        await soon(blocked)
    go.set()
    await turns()


async def test_a_deliver_that_exits_ends_the_batcher_and_leaves_nobody_waiting() -> None:
    class Exit(BaseException):
        pass

    async def deliver(messages: list[Message]) -> None:
        await asyncio.sleep(0)
        raise Exit

    batcher = MessageBatcher(deliver, batch_size=1)
    receipt = await batcher.add_message("a")
    await until(lambda: receipt.done)
    assert isinstance(receipt.exception(), MessageDropped)
    with pytest.raises(BatcherClosed):
        await batcher.add_message("b")
    await soon(batcher.close())


# Cancelling


async def test_those_who_gave_up_waiting_are_forgotten_at_once() -> None:
    gate = Gate()
    async with MessageBatcher(gate, batch_size=1, max_pending_messages=1) as batcher:
        await batcher.add_message("0")
        await until(lambda: gate.begun == 1)
        await batcher.add_message("1")
        first = asyncio.create_task(batcher.add_message("2"))
        others = [asyncio.create_task(batcher.add_message("x")) for _ in range(100)]
        await turns()
        for other in others:
            other.cancel()
        await turns()
        assert batcher.stats().waiting == 1
        gate.go.set()
        await soon(first)
    assert gate.delivered == ["0", "1", "2"]


class Run:
    """A batcher whose users are cancelled at random."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.delivered: list[str] = []
        self.dropped: list[str] = []
        overflow: Any = chance.choice(["block", "raise", "drop_oldest", "drop_newest"])
        processor = BatchProcessor(ordering_enabled=chance.random() < 0.5, dedup_window=chance.choice([0, 1]))
        self.batcher = MessageBatcher(
            self.deliver,
            chance.randrange(1, 5),
            0,
            processor,
            max_pending_messages=chance.randrange(1, 6),
            overflow=overflow,
            max_attempts=2,
            retry_delay=0,
            on_drop=lambda messages, reason: self.dropped.extend(str(message.data) for message in messages),
        )

    async def deliver(self, messages: list[Message]) -> None:
        await turns(self.chance.randrange(4))
        if self.chance.random() < 0.2:
            raise ConnectionResetError
        self.delivered.extend(str(message.data) for message in messages)

    async def add(self) -> dict[str, Receipt]:
        """Add messages, and cancel some callers; what was added."""
        adding: dict[str, asyncio.Task[Receipt]] = {}
        tasks: list[asyncio.Task[Any]] = []
        for number in map(str, range(60)):
            adding[number] = asyncio.create_task(self.batcher.add_message(number, ttl=self.chance.choice([None, 0, 9])))
            tasks.append(adding[number])
            if self.chance.random() < 0.1:
                tasks.append(asyncio.create_task(self.batcher.flush_messages()))
        while not all(task.done() for task in tasks):
            if self.chance.random() < 0.3:
                self.chance.choice(tasks).cancel()
            await asyncio.sleep(0)
        await asyncio.wait(tasks)
        return {name: task.result() for name, task in adding.items() if not task.cancelled() and not task.exception()}

    async def close(self) -> None:
        if self.chance.random() < 0.3:
            closing = asyncio.create_task(self.batcher.close())
            await turns(self.chance.randrange(4))
            closing.cancel()
            await asyncio.wait([closing])
        await self.batcher.close()


@pytest.mark.parametrize("seed", range(25))
async def test_cancelled_anywhere_each_message_ends_once_and_who_added_knows_how(seed: int) -> None:
    run = Run(seed)
    added = await run.add()
    await run.close()
    assert all(receipt.done for receipt in added.values())
    assert sorted(run.delivered + run.dropped, key=int) == sorted(added, key=int)
    assert set(run.delivered) == {name for name, receipt in added.items() if receipt.exception() is None}
    stats = run.batcher.stats()
    assert stats.added == len(added) == stats.delivered + sum(stats.dropped.values())


# Repeats over a window


@pytest.mark.parametrize("overflow", ["block", "raise", "drop_oldest", "drop_newest"])
async def test_a_repeat_needs_no_room(overflow: Any) -> None:
    gate = Gate()
    async with MessageBatcher(
        gate, 1, processor=BatchProcessor(dedup_window=60), max_pending_messages=2, overflow=overflow
    ) as batcher:
        for name in ("a", "b", "c"):
            await batcher.add_message(name)
            await turns()
        repeat = await soon(batcher.add_message("b"))
        assert not repeat.done
        gate.go.set()
        await soon(repeat)
    assert gate.delivered == ["a", "b", "c"]
    assert batcher.stats().dropped == {}


async def test_a_repeat_of_what_failed_with_any_exception_is_sent() -> None:
    @dataclass
    class Refused(Exception):  # not hashable, as all such
        code: int

    delivered: list[Message] = []

    def deliver(messages: list[Message]) -> None:
        if not batcher.stats().failures:
            raise Refused(5)
        delivered.extend(messages)

    async with MessageBatcher(deliver, processor=BatchProcessor(dedup_window=60), max_attempts=1) as batcher:
        first = await batcher.add_message("a")
        await until(lambda: first.done)
        await soon(await batcher.add_message("a"))
    assert [message.data for message in delivered] == ["a"]


# Threads


async def test_a_receipt_is_awaited_where_its_batcher_is() -> None:
    gate = Gate()
    errors: list[BaseException] = []

    async def wait(receipt: Receipt) -> None:
        await receipt

    def elsewhere(run: Callable[[Any], Any], receipt: Receipt) -> None:
        try:
            run(asyncio.wait_for(wait(receipt), 5))
        except WrongLoop as exc:
            errors.append(exc)

    async with MessageBatcher(gate, batch_size=1) as batcher:
        receipt = await batcher.add_message("a")
        thread = threading.Thread(target=elsewhere, args=(asyncio.run, receipt))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert len(errors) == 1
        gate.go.set()
        await soon(receipt)
