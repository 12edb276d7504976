"""What becomes of messages for which there is no room, and of repeats, as `SendingConfig` says."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from penstock.errors import BatcherFull
from support.pipes import ledger, piped
from support.relay import relaying
from support.waiting import until


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


@pytest.mark.parametrize("reliable", [False, None], ids=["plain", "reliable"])
@pytest.mark.parametrize("overflow", ["block", "raise", "drop_oldest", "drop_newest"])
async def test_what_was_accepted_arrives_in_order_or_is_counted_as_dropped(
    overflow: str, reliable: bool | None
) -> None:
    sending = {"batch_timeout": 0.001, "overflow": overflow, "max_pending_messages": 10}
    async with (
        ledger(reliable=reliable) as book,
        relaying(book.port) as relay,
        piped(sending=sending) as pipe,
    ):
        await pipe.send(relay.url, "first")
        await until(lambda: book.messages == ["first"])
        relay.pause()
        accepted, refused, waits = 0, list[str](), False
        for number in range(150):
            try:
                async with asyncio.timeout(0.2):
                    await pipe.send(relay.url, f"{number} " + "x" * 200_000)
                accepted += 1
            except BatcherFull as exc:
                refused.append(str(exc))
            except TimeoutError:
                waits = True
                break
        assert (waits, bool(refused)) == (overflow == "block", overflow == "raise")
        assert all("max_pending_messages" in error for error in refused)
        relay.go_on()
        await pipe.drain()
        dropped = pipe.stats().sending.dropped.get("overflow", 0)
        assert (dropped > 0) == overflow.startswith("drop")
        await until(lambda: len(book.messages) == 1 + accepted - dropped)
        numbers = [int(message.split()[0]) for message in book.messages[1:]]
        assert numbers == sorted(numbers)
        if overflow == "drop_oldest":
            assert numbers[-1] == 149
        if overflow == "drop_newest":
            assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("deduplicate", ["content", 0.05])
async def test_repeats_of_type_and_content_are_dropped_for_as_long_as_configured(deduplicate: Any) -> None:
    async with ledger() as book, piped(sending={"deduplicate": deduplicate}) as pipe:
        for _ in range(3):
            await pipe.send(book.url, "a")
            await pipe.send(book.url, b"a")
        await pipe.drain()
        await until(lambda: len(book.messages) == 2)
        await asyncio.sleep(0.06)
        await pipe.send(book.url, "a")
        await pipe.drain()
        await until(lambda: len(book.messages) == 3)
        assert book.messages == ["a", b"a", "a"]
        assert pipe.stats().sending.deduplicated == 4
