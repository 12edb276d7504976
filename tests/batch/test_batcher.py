"""What is added is delivered: when, in which order, and what is told about it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock import (
    BatcherClosed,
    BatcherFull,
    BatchProcessor,
    Message,
    MessageBatcher,
    MessageDropped,
    MessageTypeError,
    Priority,
    SerializationError,
    WrongLoop,
)
from support.waiting import until


class Deliveries:
    """Takes batches, holds them back while `gate` is shut, and fails while there are `failures`."""

    def __init__(self) -> None:
        self.batches: list[list[str | bytes]] = []
        self.begun: list[list[str | bytes]] = []
        self.failures: list[BaseException] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, messages: list[Message]) -> None:
        data = [message.data for message in messages]
        self.begun.append(data)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.batches.append(data)
        messages.clear()  # it is the callee's own

    @property
    def data(self) -> list[str | bytes]:
        return [one for batch in self.batches for one in batch]


@pytest.fixture
async def deliveries() -> Deliveries:
    return Deliveries()


async def soon(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, 5)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_case_1_a_full_batch_is_sent_by_itself(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_size=3, batch_timeout=60) as batcher:
        for number in range(7):
            await batcher.add_message(str(number))
        await until(lambda: len(deliveries.batches) == 2)
        assert deliveries.batches == [["0", "1", "2"], ["3", "4", "5"]]
        assert batcher.stats().batches == {"size": 2}
        assert batcher.stats().pending == 1
    assert deliveries.batches[2:] == [["6"]]
    assert batcher.stats().batches == {"size": 2, "close": 1}
    assert batcher.stats().sizes == {1: 1, 4: 2}


async def test_case_2_a_lone_message_leaves_after_the_timeout(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=0.02) as batcher:
        began = time.monotonic()
        await soon(await batcher.add_message("alone"))
        assert 0.015 < time.monotonic() - began < 1
        assert deliveries.batches == [["alone"]]
        assert batcher.stats().batches == {"time": 1}


async def test_messages_leave_by_the_oldest(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=0.05) as batcher:
        first = await batcher.add_message("0")
        for number in range(1, 4):
            await asyncio.sleep(0.01)
            await batcher.add_message(str(number))
        await soon(first)
        assert deliveries.batches == [["0", "1", "2", "3"]]


async def test_without_timeout_messages_of_one_loop_iteration_leave_together(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=0) as batcher:
        for number in range(5):
            await batcher.add_message(str(number))
        await turns()
        assert deliveries.batches == [["0", "1", "2", "3", "4"]]
        assert batcher.stats().batches == {"tick": 1}


async def test_an_endless_timeout_waits_for_a_flush(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=float("inf")) as batcher:
        await batcher.add_message("a")
        await asyncio.sleep(0.01)
        assert deliveries.batches == []
        assert [message.data for message in await soon(batcher.flush_messages())] == ["a"]


async def test_an_urgent_message_does_not_wait(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=60) as batcher:
        await batcher.add_message("first")
        await soon(await batcher.add_message("now", Priority.URGENT))
        assert deliveries.batches == [["first", "now"]]
        assert batcher.stats().batches == {"urgent": 1}


async def test_case_22_a_large_message_goes_at_once_with_those_before_it(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=60, batch_bytes=100) as batcher:
        await batcher.add_message("small")
        await soon(await batcher.add_message(b"x" * 1000))
        assert deliveries.batches == [["small"], [b"x" * 1000]]
        assert batcher.stats().batches == {"bytes": 2}


async def test_case_16_empty_messages_are_delivered_and_empty_batches_are_not(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=0.001) as batcher:
        assert await batcher.flush_messages() == []
        await soon(await batcher.add_message(""))
        await soon(await batcher.add_message(b""))
        late = await batcher.add_message("late", ttl=0)
        with pytest.raises(MessageDropped, match="expired"):
            await soon(late)
        assert await batcher.flush_messages() == []
    assert deliveries.begun == [[""], [b""]]


async def test_case_17_what_no_frame_can_carry_is_refused_and_nothing_added(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries) as batcher:
        with pytest.raises(SerializationError, match="lone surrogate"):
            await batcher.add_message("\ud800")
        with pytest.raises(MessageTypeError, match="int is no message"):
            await batcher.add_message(5)  # type: ignore[arg-type]
        assert batcher.stats().added == 0


async def test_case_18_the_wall_clock_changes_nothing(deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch) -> None:
    hours = iter(range(0, 1_000_000, 3600))
    monkeypatch.setattr(time, "time", lambda: float(next(hours)))
    async with MessageBatcher(deliveries, batch_timeout=0.01) as batcher:
        began = time.monotonic()
        await soon(await batcher.add_message("a", ttl=0.5))
        assert time.monotonic() - began < 0.4
        assert batcher.stats().wait.quantile(1) < 0.4
    assert deliveries.batches == [["a"]]


async def test_any_payload_arrives_as_it_was(deliveries: Deliveries) -> None:
    source = bytearray(b"changes")
    async with MessageBatcher(deliveries) as batcher:
        for message in ("text", "ä€", b"bytes", source, memoryview(b"view"), Message("m", priority=Priority.LOW)):
            await batcher.add_message(message)  # type: ignore[arg-type]
        source[:] = b"CHANGED"
        assert batcher.stats().pending_bytes == 4 + 5 + 5 + 7 + 4 + 1
    assert deliveries.data == ["text", "ä€", b"bytes", b"changes", b"view", "m"]


async def test_deliver_gets_the_messages_themselves() -> None:
    got: list[Message] = []
    message = Message("a", priority=Priority.HIGH, key="k")
    async with MessageBatcher(got.extend) as batcher:
        await batcher.add_message(message)
        await batcher.add_message(message, Priority.LOW, key="l", ttl=60)
        assert [one.data for one in await batcher.flush_messages()] == ["a", "a"]
    assert got[0] is message
    assert (got[1].priority, got[1].key) == (Priority.LOW, "l")
    assert got[1].expires_at is not None


async def test_priority_orders_what_waits(deliveries: Deliveries) -> None:
    processor = BatchProcessor(ordering_enabled=True)
    async with MessageBatcher(deliveries, batch_size=2, processor=processor) as batcher:
        deliveries.gate.clear()
        for name, level in (("n0", 1), ("n1", 1), ("l", 0), ("n2", 1), ("h", 2), ("u", 3)):
            await batcher.add_message(name, Priority(level))
        await turns()
        deliveries.gate.set()
    assert deliveries.batches == [["n0", "n1"], ["u", "h"], ["n2", "l"]]


async def test_repeats_within_a_batch_share_the_fate_of_the_first(deliveries: Deliveries) -> None:
    processor = BatchProcessor(deduplication_enabled=True)
    async with MessageBatcher(deliveries, processor=processor) as batcher:
        receipts = [await batcher.add_message(data) for data in ("a", b"a", "a", "a")]
        assert [message.data for message in await batcher.flush_messages()] == ["a", b"a"]
        assert all(receipt.done for receipt in receipts)
        stats = batcher.stats()
        assert (stats.added, stats.delivered, stats.deduplicated) == (4, 2, 2)


async def test_repeats_within_a_window_are_dropped_across_batches(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, processor=BatchProcessor(dedup_window=0.05)) as batcher:
        first, again = await batcher.add_message("a"), await batcher.add_message("a")
        assert not again.done
        await batcher.flush_messages()
        assert first.done
        assert again.done
        await soon(await batcher.add_message("a"))
        await asyncio.sleep(0.06)
        await batcher.add_message("a")
    assert deliveries.batches == [["a"], ["a"]]
    stats = batcher.stats()
    assert (stats.added, stats.delivered, stats.deduplicated) == (4, 2, 2)


async def test_the_latest_value_of_a_key_wins(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries) as batcher:
        first = await batcher.add_message("price 1", key="price")
        waiting = asyncio.ensure_future(soon(first))
        await batcher.add_message("other")
        last = await batcher.add_message("price 2", key="price")
        await batcher.flush_messages()
        await waiting
        await last
    assert deliveries.batches == [["price 2", "other"]]
    assert batcher.stats().conflated == 1


async def test_one_batch_is_delivered_at_a_time(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_size=2) as batcher:
        deliveries.gate.clear()
        for number in range(6):
            await batcher.add_message(str(number))
        await turns()
        assert deliveries.begun == [["0", "1"]]
        assert (batcher.stats().delivering, batcher.stats().pending) == (2, 4)
        deliveries.gate.set()
    assert deliveries.batches == [["0", "1"], ["2", "3"], ["4", "5"]]


async def test_adding_waits_for_room_first_come_first_served(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_size=2, max_pending_messages=4) as batcher:
        deliveries.gate.clear()
        tasks = [asyncio.create_task(batcher.add_message(str(number))) for number in range(20)]
        await turns(20)
        assert batcher.stats().pending == 4
        assert batcher.stats().waiting == 14
        deliveries.gate.set()
        await soon(asyncio.gather(*tasks))
    assert deliveries.data == [str(number) for number in range(20)]


async def test_room_is_bounded_in_bytes_too(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_size=1, max_pending_bytes=100) as batcher:
        deliveries.gate.clear()
        await batcher.add_message(b"x" * 1000)  # alone
        await turns()
        await batcher.add_message(b"y" * 60)
        blocked = asyncio.create_task(batcher.add_message(b"z" * 60))
        await turns()
        assert not blocked.done()
        deliveries.gate.set()
        await soon(blocked)
    assert [len(data) for data in deliveries.data] == [1000, 60, 60]


async def test_a_full_queue_raises_where_it_was_told_to(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=60, max_pending_messages=2, overflow="raise") as batcher:
        deliveries.gate.clear()
        for number in range(4):
            await batcher.add_message(str(number))
        with pytest.raises(BatcherFull, match="2 messages of 2 bytes"):
            await batcher.add_message("4")
        assert batcher.stats().rejected == 1
        deliveries.gate.set()
    assert deliveries.data == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("overflow", "delivered", "lost"), [("drop_oldest", "0156", "234"), ("drop_newest", "0123", "456")]
)
async def test_a_full_queue_drops_where_it_was_told_to(
    deliveries: Deliveries, overflow: Any, delivered: str, lost: str
) -> None:
    told: list[tuple[str, str]] = []
    async with MessageBatcher(
        deliveries,
        batch_size=2,
        max_pending_messages=2,
        overflow=overflow,
        on_drop=lambda messages, reason: told.extend((str(message.data), reason) for message in messages),
    ) as batcher:
        deliveries.gate.clear()
        receipts = {number: await batcher.add_message(number) for number in "0123456"}
        deliveries.gate.set()
    assert deliveries.data == list(delivered)
    assert told == [(number, "overflow") for number in lost]
    for number, receipt in receipts.items():
        assert (receipt.exception() is None) == (number in delivered)
    stats = batcher.stats()
    assert (stats.added, stats.delivered, stats.dropped) == (7, 4, {"overflow": 3})


async def test_expired_messages_make_room(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_size=2, max_pending_messages=2, overflow="raise") as batcher:
        deliveries.gate.clear()
        await batcher.add_message("0")
        await batcher.add_message("1")
        await turns()
        for _ in range(2):
            await batcher.add_message("late", ttl=0.001)
        await asyncio.sleep(0.005)
        await batcher.add_message("2")
        assert batcher.stats().dropped == {"expired": 2}
        deliveries.gate.set()
    assert deliveries.data == ["0", "1", "2"]


async def test_case_4_whoever_is_cancelled_while_waiting_has_added_nothing(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_size=1, max_pending_messages=1) as batcher:
        deliveries.gate.clear()
        await batcher.add_message("0")
        await turns()
        await batcher.add_message("1")
        tasks = [asyncio.create_task(batcher.add_message(name)) for name in ("a", "b", "c")]
        await turns()
        tasks[0].cancel()
        await turns()
        deliveries.gate.set()
        while not tasks[1].done():  # until it is let through: cancelled in the same moment, it has not added
            if batcher._line.promised:
                tasks[1].cancel()
            await asyncio.sleep(0)
        await soon(tasks[2])
    assert [task.cancelled() for task in tasks] == [True, True, False]
    assert deliveries.data == ["0", "1", "c"]


async def test_case_19_a_flush_does_not_wait_for_company(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_size=2, batch_timeout=60) as batcher:
        deliveries.gate.clear()
        for number in range(5):
            await batcher.add_message(str(number))
        flushing = asyncio.create_task(batcher.flush_messages())
        await turns()
        deliveries.gate.set()
        assert [message.data for message in await soon(flushing)] == list("01234")
        assert batcher.stats().batches == {"size": 2, "manual": 1}


async def test_case_19_a_flush_while_closing_waits_for_what_there_is(deliveries: Deliveries) -> None:
    batcher = MessageBatcher(deliveries, batch_size=2, batch_timeout=60)
    deliveries.gate.clear()
    for number in range(5):
        await batcher.add_message(str(number))
    closing = asyncio.create_task(batcher.close())
    await turns()
    flushing = asyncio.create_task(batcher.flush_messages())
    await turns()
    assert not flushing.done()
    deliveries.gate.set()
    assert [message.data for message in await soon(flushing)] == list("01234")
    await soon(closing)
    assert await batcher.flush_messages() == []


async def test_a_flush_is_for_what_was_added_before(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_timeout=60) as batcher:
        deliveries.gate.clear()
        await batcher.add_message("before")
        flushing = asyncio.create_task(batcher.flush_messages())
        await turns()
        await batcher.add_message("after")
        deliveries.gate.set()
        assert [message.data for message in await soon(flushing)] == ["before"]
        assert batcher.stats().pending == 1


async def test_cancelling_a_flush_loses_nothing(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries) as batcher:
        deliveries.gate.clear()
        receipt = await batcher.add_message("a")
        flushing = asyncio.create_task(batcher.flush_messages())
        await turns()
        flushing.cancel()
        await turns()
        deliveries.gate.set()
        await soon(receipt)
    assert flushing.cancelled()
    assert deliveries.begun == [["a"]]


async def test_case_20_those_who_wait_are_served_before_it_closes(deliveries: Deliveries) -> None:
    batcher = MessageBatcher(deliveries, batch_size=2, max_pending_messages=2)
    deliveries.gate.clear()
    tasks = [asyncio.create_task(batcher.add_message(str(number))) for number in range(9)]
    await turns(20)
    assert batcher.stats().waiting > 0
    closing = asyncio.create_task(batcher.close())
    await turns()
    with pytest.raises(BatcherClosed):
        await batcher.add_message("too late")
    deliveries.gate.set()
    await soon(closing)
    await soon(asyncio.gather(*tasks))
    assert deliveries.data == [str(number) for number in range(9)]
    assert batcher.stats().delivered == 9


async def test_a_close_that_takes_too_long_tells_what_is_lost(deliveries: Deliveries) -> None:
    told: list[tuple[list[Any], str]] = []
    batcher = MessageBatcher(
        deliveries,
        batch_size=2,
        max_pending_messages=2,
        on_drop=lambda messages, reason: told.append(([message.data for message in messages], reason)),
    )
    deliveries.gate.clear()
    receipts = [await batcher.add_message(str(number)) for number in range(4)]
    blocked = asyncio.create_task(batcher.add_message("4"))
    flushing = asyncio.create_task(batcher.flush_messages())
    await turns()
    await soon(batcher.close(timeout=0.01))
    with pytest.raises(BatcherClosed):
        await blocked
    with pytest.raises(BatcherClosed):
        await flushing
    assert told == [(["0", "1"], "closed"), (["2", "3"], "closed")]
    for receipt in receipts:
        with pytest.raises(MessageDropped, match="closed before it was delivered"):
            await receipt
    assert batcher.stats().dropped == {"closed": 4}
    await batcher.close()


async def test_a_deliver_that_will_not_end_does_not_hold_up_closing(deliveries: Deliveries) -> None:
    go = asyncio.Event()

    async def stubborn(messages: list[Message]) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    batcher = MessageBatcher(stubborn)
    receipt = await batcher.add_message("a")
    await soon(batcher.close(timeout=0.02))
    assert isinstance(receipt.exception(), MessageDropped)
    go.set()
    await turns()
    assert batcher.stats().delivered == 0
    assert batcher.stats().dropped == {"closed": 1}


async def test_a_batcher_that_was_never_used_closes(deliveries: Deliveries) -> None:
    batcher = MessageBatcher(deliveries)
    assert batcher.stats().added == 0
    await batcher.close()
    with pytest.raises(BatcherClosed):
        await batcher.add_message("a")


async def test_case_21_another_loop_or_thread_is_refused(deliveries: Deliveries) -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        for use in (lambda: batcher.add_message("b"), batcher.flush_messages, batcher.close):
            try:
                asyncio.run(use())
            except WrongLoop as exc:
                errors.append(exc)

    async with MessageBatcher(deliveries) as batcher:
        await batcher.add_message("a")
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(errors) == 3
    assert deliveries.data == ["a"]


def test_the_end_of_the_loop_ends_the_batcher() -> None:
    told: list[str] = []

    async def never(messages: list[Message]) -> None:
        await asyncio.Event().wait()

    async def main() -> MessageBatcher:
        batcher = MessageBatcher(never, batch_timeout=0, on_drop=lambda messages, reason: told.append(reason))
        await batcher.add_message("a")
        await turns()
        return batcher

    batcher = asyncio.run(main())
    assert told == ["closed"]
    assert batcher.stats().dropped == {"closed": 1}


async def tick(ticks: list[None]) -> None:
    while True:
        ticks.append(None)
        await asyncio.sleep(0)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("overflow", ["block", "raise", "drop_oldest", "drop_newest"])
@pytest.mark.parametrize("processor", [None, BatchProcessor(dedup_window=60)])
async def test_many_adds_leave_others_their_turn(overflow: Any, full: bool, processor: BatchProcessor | None) -> None:
    ticks: list[None] = []
    other = asyncio.create_task(tick(ticks))
    go = asyncio.Event()
    pending = 100 if full and overflow != "block" else 100_000
    async with MessageBatcher(
        lambda messages: go.wait(), 100_000, 60, processor, max_pending_messages=pending, overflow=overflow
    ) as batcher:
        for _ in range(10_000):
            with suppress(BatcherFull):
                await batcher.add_message("x")
        assert len(ticks) > 30
        go.set()
    other.cancel()


async def test_one_who_is_refused_and_tries_again_gets_in(deliveries: Deliveries) -> None:
    async with MessageBatcher(deliveries, batch_size=1, max_pending_messages=1, overflow="raise") as batcher:
        for number in range(10):
            while True:
                with suppress(BatcherFull):
                    await batcher.add_message(str(number))
                    break
    assert deliveries.data == list("0123456789")


async def test_a_backlog_for_a_deliver_that_does_not_wait_leaves_others_their_turn() -> None:
    seen: list[int] = []
    ticks = 0
    async with MessageBatcher(lambda messages: seen.append(ticks), batch_size=1000, batch_timeout=60) as batcher:
        for _ in range(999):
            await batcher.add_message("x")
        batcher._queue.most = 10
        flushing = asyncio.create_task(batcher.flush_messages())
        while not flushing.done():
            ticks += 1
            await asyncio.sleep(0)
        assert len(await flushing) == 999
    assert len(set(seen)) == len(seen) == 100


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch_size", 0),
        ("batch_timeout", -1),
        ("batch_bytes", 0),
        ("max_pending_messages", 0),
        ("max_pending_bytes", "1"),
        ("overflow", "wait"),
        ("max_attempts", 0),
        ("retry_delay", -1),
    ],
)
def test_nonsense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}=.*must be") as refusal:
        MessageBatcher(print, **{field: value})
    assert repr(value) in str(refusal.value)


@pytest.mark.parametrize("deliver", [None, "x", []])
def test_what_cannot_deliver_is_refused_at_once_with_the_remedy(deliver: Any) -> None:
    with pytest.raises(TypeError, match=r"must be a function.*`async def deliver\(messages\): \.\.\.`") as refusal:
        MessageBatcher(deliver)
    assert f"deliver={deliver!r}: " in str(refusal.value)


def test_what_cannot_be_told_of_drops_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="on_drop='log': must be a function"):
        MessageBatcher(print, on_drop="log")  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(Priority), st.booleans()), max_size=50),
    st.integers(1, 6),
    st.integers(1, 6),
    st.booleans(),
)
def test_nothing_is_lost_or_doubled(
    steps: list[tuple[str, Priority, bool]], batch_size: int, pending: int, ordered: bool
) -> None:
    async def main() -> None:
        deliveries = Deliveries()
        tasks = []
        async with MessageBatcher(
            deliveries,
            batch_size,
            batch_timeout=0,
            processor=BatchProcessor(ordering_enabled=ordered),
            max_pending_messages=pending,
        ) as batcher:
            for number, (name, level, pause) in enumerate(steps):
                tasks.append(asyncio.create_task(batcher.add_message(f"{name}{number}", level)))
                if pause:
                    await asyncio.sleep(0)
            await asyncio.gather(*tasks)
        sent = [f"{name}{number}" for number, (name, _, _) in enumerate(steps)]
        assert sorted(map(str, deliveries.data)) == sorted(sent)
        for chosen in Priority:
            expected = [text for text, (_, level, _) in zip(sent, steps, strict=True) if level is chosen]
            assert [text for text in deliveries.data if text in expected] == expected
        if not ordered:
            assert deliveries.data == sent
        assert all(len(batch) <= batch_size for batch in deliveries.batches)

    asyncio.run(main())
