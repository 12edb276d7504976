"""`PerformanceMiddleware.send`: in order, within bounds, whatever becomes of connections."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from penstock import ConnectionPoolConfig, Priority
from penstock.config.sections import LimitsConfig
from penstock.errors import ConnectionFailed, LimitReached, MessageTypeError, MiddlewareClosed, WrongLoop
from penstock.middleware.middleware import PerformanceMiddleware
from support.pipes import ledger, piped
from support.relay import relaying
from support.waiting import until

RELIABLE = pytest.mark.parametrize("reliable", [False, None], ids=["plain", "reliable"])


@RELIABLE
async def test_messages_arrive_in_order_over_one_connection(reliable: bool | None) -> None:
    async with ledger(reliable=reliable) as book, piped() as pipe:
        for number in range(5000):
            await pipe.send(book.url, str(number))
        await pipe.drain(book.url)
        await until(lambda: len(book.messages) == 5000)
        assert book.messages == [str(number) for number in range(5000)]
        assert len(book.connections) == 1


async def test_many_tasks_to_many_servers_each_in_order() -> None:
    async with ledger() as one, ledger() as two, piped() as pipe:

        async def feed(url: str, name: str) -> None:
            for number in range(500):
                await pipe.send(url, f"{name} {number}")
                if number % 50 == 0:
                    await asyncio.sleep(0)

        await asyncio.gather(*(feed(book.url, name) for book in (one, two) for name in "abc"))
        await pipe.drain()
        await until(lambda: len(one.messages) == len(two.messages) == 1500)
        for book in (one, two):
            for name in "abc":
                assert [m for m in book.messages if m[0] == name] == [f"{name} {number}" for number in range(500)]


async def test_urgent_messages_overtake_those_that_wait() -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 60.0, "batch_size": 1000}) as pipe:
        await pipe.send(book.url, "low", priority=Priority.LOW)
        await pipe.send(book.url, "normal")
        await pipe.send(book.url, "urgent", priority=Priority.URGENT)
        await until(lambda: len(book.messages) >= 1)
        assert book.messages[0] == "urgent"
        await pipe.drain(book.url)
        await until(lambda: book.messages == ["urgent", "normal", "low"])


async def test_the_latest_value_of_a_key_replaces_those_that_wait() -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 60.0}) as pipe:
        for price in range(100):
            await pipe.send(book.url, f"price {price}", key="price")
        await pipe.drain(book.url)
        await until(lambda: bool(book.messages))
        assert book.messages == ["price 99"]


async def test_plain_messages_do_not_overtake_those_in_the_batcher() -> None:
    async with ledger() as book, piped() as pipe:
        await pipe.send(book.url, "0")
        await pipe.send(book.url, "1", key="k")
        for number in range(2, 100):
            await pipe.send(book.url, str(number))
        await pipe.drain(book.url)
        await until(lambda: len(book.messages) == 100)
        assert book.messages == [str(number) for number in range(100)]


async def test_an_expired_message_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 0.05}) as pipe:
        await pipe.send(book.url, "old", ttl=0.001)
        await pipe.send(book.url, "good")
        await until(lambda: bool(book.messages))
        assert book.messages == ["good"]
        assert pipe.stats().sending.dropped == {"expired": 1}
    assert "1 messages to" in caplog.text


async def test_repeats_are_dropped_where_that_is_configured() -> None:
    async with ledger() as book, piped(sending={"deduplicate": 60.0}) as pipe:
        for _ in range(3):
            await pipe.send(book.url, "same")
        await pipe.send(book.url, "other")
        await pipe.drain(book.url)
        await until(lambda: len(book.messages) == 2)
        assert book.messages == ["same", "other"]


async def test_after_a_break_the_next_message_takes_another_connection(caplog: pytest.LogCaptureFixture) -> None:
    async with ledger(reliable=False) as book, relaying(book.port) as relay, piped() as pipe:
        url = f"ws://127.0.0.1:{relay.port}/"
        await pipe.send(url, "before")
        await until(lambda: book.messages == ["before"])
        with caplog.at_level(logging.WARNING, "penstock.middleware"):
            relay.cut()
            await until(lambda: pipe.stats().sending.breaks == 1)
        await pipe.send(url, "after")
        await until(lambda: book.messages == ["before", "after"])
    assert "broke" in caplog.text


async def test_a_server_that_cannot_be_reached_is_told_to_the_caller() -> None:
    async with ledger() as book:
        url = book.url
    async with piped(sections={"pool": ConnectionPoolConfig(acquire_timeout=0.5)}) as pipe:
        with pytest.raises((ConnectionFailed, TimeoutError)):
            await pipe.send(url, "nobody")


async def test_what_the_server_sends_goes_to_on_message() -> None:
    got: list[tuple[str, Any]] = []
    async with ledger() as book, piped(on_message=lambda url, message: got.append((url, message))) as pipe:
        await pipe.send(book.url, "echo")
        await until(lambda: bool(got))
        assert got == [(book.url, "echo")]


async def test_what_nobody_wants_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with ledger() as book, piped() as pipe:
        for _ in range(5):
            await pipe.send(book.url, "echo")
        await until(lambda: pipe.stats().sending.unread == 5)
    assert caplog.text.count("there is no on_message for them") == 1


async def test_an_on_message_that_fails_is_logged_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def on_message(url: str, message: Any) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("boom")

    async with ledger() as book, piped(on_message=on_message) as pipe:
        await pipe.send(book.url, "echo")
        await pipe.send(book.url, "echo")
        await until(lambda: calls == 2)
    assert "on_message failed" in caplog.text


async def test_a_connection_that_nothing_is_sent_over_goes_back_to_the_pool() -> None:
    async with ledger() as book, piped(sending={"idle_time": 0.05}) as pipe:
        await pipe.send(book.url, "1")
        assert pipe.stats().pool.in_use == 1
        await until(lambda: pipe.stats().pool.in_use == 0)
        await pipe.send(book.url, "2")
        await until(lambda: book.messages == ["1", "2"])
        assert len(book.connections) == 1 or pipe.stats().pool.idle >= 1


async def test_a_url_that_nobody_uses_is_forgotten() -> None:
    async with ledger() as book, piped(sending={"idle_time": 0.02}) as pipe:
        await pipe.send(book.url, "1")
        await until(lambda: pipe.stats().sending.urls == 0 and not pipe.stats().modes)
        await pipe.send(book.url, "2")
        await until(lambda: book.messages == ["1", "2"])


async def test_cancelling_a_send_that_waits_sends_nothing() -> None:
    async with ledger() as book, relaying(book.port) as relay, piped() as pipe:
        url = f"ws://127.0.0.1:{relay.port}/"
        await pipe.send(url, "first")
        await until(lambda: book.messages == ["first"])
        relay.pause()
        big = "x" * 200_000
        tasks = [asyncio.ensure_future(pipe.send(url, f"{number} {big}")) for number in range(200)]
        await asyncio.sleep(0.2)
        waiting = [task for task in tasks if not task.done()]
        assert waiting
        for task in waiting:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        relay.go_on()
        sent = [task for task in tasks if not task.cancelled()]
        await pipe.send(url, "last")
        await until(lambda: book.messages[-1] == "last")
        assert len(book.messages) == 1 + len(sent) + 1


async def test_beyond_the_overall_limit_callers_are_refused() -> None:
    limits = LimitsConfig(max_pending_bytes=1_000_000, on_limit="raise")
    async with ledger() as book, relaying(book.port) as relay, piped(sections={"limits": limits}) as pipe:
        url = f"ws://127.0.0.1:{relay.port}/"
        await pipe.send(url, "first")
        await until(lambda: book.messages == ["first"])
        relay.pause()

        async def fill() -> None:
            for _ in range(1000):
                await pipe.send(url, "x" * 50_000)

        with pytest.raises(LimitReached, match="max_pending_bytes=1000000"):
            await asyncio.wait_for(fill(), 5)
        assert pipe.stats().sending.pending_bytes <= 1_100_000
        relay.go_on()


async def test_what_is_no_message_is_refused() -> None:
    async with ledger() as book, piped() as pipe:
        for _ in range(2):
            with pytest.raises(MessageTypeError):
                await pipe.send(book.url, 42)  # type: ignore[arg-type]
            await pipe.send(book.url, "fine")
        await until(lambda: book.messages == ["fine", "fine"])


async def test_a_closed_middleware_takes_nothing_and_has_written_everything() -> None:
    async with ledger() as book:
        async with piped() as pipe:
            for number in range(1000):
                await pipe.send(book.url, str(number))
        await until(lambda: len(book.messages) == 1000)
        with pytest.raises(MiddlewareClosed):
            await pipe.send(book.url, "late")
        with pytest.raises(MiddlewareClosed):
            pipe.connection(book.url)
        await pipe.close()


def test_another_event_loop_is_refused() -> None:
    async def use(pipe: PerformanceMiddleware) -> None:
        pipe.connection("ws://127.0.0.1:1/")

    pipe = PerformanceMiddleware()

    async def first() -> None:
        await use(pipe)
        await pipe.close()

    asyncio.run(first())

    async def second() -> None:
        with pytest.raises((WrongLoop, MiddlewareClosed)):
            await use(pipe)

    asyncio.run(second())
