"""A deliver that fails: tried again in order, given up in the end, and never in silence."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest

from penstock import DeliveryFailed, Message, MessageBatcher, MessageDropped, Receipt


class Flaky:
    """Fails so many times."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls: list[list[Any]] = []
        self.delivered: list[Any] = []

    def __call__(self, messages: list[Message]) -> None:
        self.calls.append([message.data for message in messages])
        if self.failures:
            self.failures -= 1
            raise ConnectionResetError(f"{self.failures} to go")
        self.delivered += self.calls[-1]


async def wait(receipt: Receipt) -> None:
    await receipt


async def test_a_batch_that_failed_is_tried_again_before_the_next(caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky(3)
    async with MessageBatcher(flaky, batch_size=2, retry_delay=0.001) as batcher:
        for number in range(4):
            await batcher.add_message(str(number))
        assert [message.data for message in await batcher.flush_messages()] == ["0", "1", "2", "3"]
    assert flaky.calls == [["0", "1"]] * 4 + [["2", "3"]]
    assert (batcher.stats().failures, batcher.stats().delivered) == (3, 4)
    assert caplog.messages[0] == "deliver failed on 2 messages, and is called again: ConnectionResetError('2 to go')"


async def test_a_batch_is_given_up_after_the_last_attempt(caplog: pytest.LogCaptureFixture) -> None:
    told: list[tuple[list[Any], str]] = []
    flaky = Flaky(2)
    async with MessageBatcher(
        flaky,
        batch_size=2,
        max_attempts=2,
        retry_delay=0.01,
        random=lambda: 0.9,
        on_drop=lambda messages, reason: told.append(([message.data for message in messages], reason)),
    ) as batcher:
        receipts = [await batcher.add_message(str(number)) for number in range(3)]
        with pytest.raises(ConnectionResetError, match="0 to go"):
            await batcher.flush_messages()
        with pytest.raises(DeliveryFailed, match="failed 2 times") as failure:
            await receipts[0]
        assert isinstance(failure.value.__cause__, ConnectionResetError)
        assert failure.value.attempts == 2
        await receipts[2]
    assert flaky.delivered == ["2"]
    assert told == [(["0", "1"], "failed")]
    assert batcher.stats().dropped == {"failed": 2}
    assert "2 messages are lost" in caplog.text


async def test_a_failure_that_nobody_asks_for_warns_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with MessageBatcher(Flaky(1), max_attempts=1) as batcher:
        waiter = asyncio.create_task(wait(await batcher.add_message("a")))
        await asyncio.sleep(0)
        waiter.cancel()
    await asyncio.wait([waiter])
    del waiter
    gc.collect()
    assert [record.name for record in caplog.records] == ["penstock.batch"]


async def test_many_may_await_a_receipt_and_one_may_give_up() -> None:
    go = asyncio.Event()
    async with MessageBatcher(lambda messages: go.wait()) as batcher:
        receipt = await batcher.add_message("a")
        assert (receipt.done, receipt.exception()) == (False, None)
        tasks = [asyncio.create_task(wait(receipt)) for _ in range(3)]
        await asyncio.sleep(0.02)
        tasks[0].cancel()
        go.set()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, False, False]
        assert (receipt.done, receipt.exception()) == (True, None)
        await receipt


async def test_a_deliver_whose_own_task_was_cancelled_has_failed() -> None:
    calls = 0

    async def deliver(messages: list[Message]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task

    async with MessageBatcher(deliver, retry_delay=0) as batcher:
        await (await batcher.add_message("a"))
    assert (calls, batcher.stats().failures, batcher.stats().delivered) == (2, 1, 1)


async def test_an_on_drop_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def on_drop(messages: list[Message], reason: str) -> None:
        raise LookupError(reason)

    async with MessageBatcher(Flaky(0), on_drop=on_drop) as batcher:
        with pytest.raises(MessageDropped, match="expired"):
            await (await batcher.add_message("a", ttl=0))
    assert "on_drop failed" in caplog.text
    assert "LookupError: expired" in caplog.text


async def test_closing_ends_the_retries(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    batcher = MessageBatcher(Flaky(1000), retry_delay=60, random=lambda: 0.9)
    receipt = await batcher.add_message("a")
    await batcher.close(timeout=0.01)
    with pytest.raises(MessageDropped, match="closed"):
        await receipt


async def test_a_receipt_does_not_hold_its_message() -> None:
    async with MessageBatcher(Flaky(0)) as batcher:
        receipt = await batcher.add_message("a" * 1000)
        await receipt
        assert receipt.message == ""
