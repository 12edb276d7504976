"""Closing and tidying: they end, whatever hangs, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from typing import Any

import pytest

from penstock import MessageBatcher
from penstock.config.sections import MetricsConfig
from penstock.errors import MiddlewareClosed, PoolClosed, WrongLoop
from penstock.manager.switch import Mode, Stage
from penstock.middleware.line import Line
from penstock.middleware.middleware import PerformanceMiddleware
from support.pipes import ledger, piped
from support.relay import relaying
from support.waiting import until


async def fill(pipe: Any, url: str) -> None:
    """Send until nothing more is taken."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            while True:
                await pipe.send(url, "x" * 100_000)


async def borrowed(pipe: Any, url: str) -> Any:
    return await pipe.connection(url)


async def test_closing_ends_in_time_though_the_server_reads_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with ledger(reliable=False) as book, relaying(book.port) as relay, piped() as pipe:
        await pipe.send(relay.url, "first")
        pipe.manager.bypass("pool")
        conn = await pipe.connection(relay.url)
        relay.pause()
        await fill(pipe, relay.url)
        returned = await pipe.connection(book.url)
        returned.release()
        async with asyncio.timeout(2):
            await pipe.close(0.3)
        conn.release()
    assert "were not written within 0.3 s" in caplog.text
    assert " 0 messages were not written" not in caplog.text


async def test_what_waits_in_a_batcher_when_time_is_up_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def hang(self: MessageBatcher) -> Any:
        await asyncio.Event().wait()

    async with ledger() as book, piped(sending={"batch_timeout": 60.0}) as pipe:
        for number in range(3):
            await pipe.send(book.url, str(number))
        monkeypatch.setattr(MessageBatcher, "flush_messages", hang)
        await pipe.close(0.1)
        assert pipe.stats().sending.dropped == {"closed": 3}


async def test_closing_twice_at_once_waits_twice() -> None:
    async with ledger() as book, piped() as pipe:
        for number in range(100):
            await pipe.send(book.url, str(number))
        first = asyncio.ensure_future(pipe.close())
        await asyncio.sleep(0)
        await pipe.close()
        assert pipe.stats().pool.in_use == 0
        assert pipe.stats().pool.idle == 0
        assert first.done() or pipe.metrics is not None
        await first
        await until(lambda: len(book.messages) == 100)


async def test_a_client_that_cannot_be_closed_does_not_keep_the_rest_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RuntimeError("injected")

    async with ledger() as book, piped() as pipe:
        await pipe.send(book.url, "x")
        monkeypatch.setattr(pipe.rpc(book.url), "close", fail)
        await pipe.close()
        assert pipe.stats().pool.in_use == pipe.stats().pool.idle == 0
        with pytest.raises(MiddlewareClosed):
            await pipe.send(book.url, "late")


async def test_on_message_may_close_the_middleware() -> None:
    closed = asyncio.Event()

    async with ledger() as book:

        async def on_message(*_: Any) -> None:
            try:
                await pipe.close(1.0)
            finally:
                closed.set()

        async with piped(on_message=on_message) as pipe:
            await pipe.send(book.url, "echo")
            await asyncio.wait_for(closed.wait(), 3)


async def test_an_on_message_that_does_not_end_does_not_keep_the_middleware_open() -> None:
    let_go = asyncio.Event()
    begun = asyncio.Event()

    async def on_message(*_: Any) -> None:
        begun.set()
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    async with ledger() as book, piped(on_message=on_message) as pipe:
        await pipe.send(book.url, "echo")
        await begun.wait()
        async with asyncio.timeout(5):
            await pipe.close(0.3)
        let_go.set()


async def test_tidying_goes_on_after_a_line_that_fails_or_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: Line) -> None:
        raise OSError("injected")

    async def hang(self: Line) -> None:
        await asyncio.Event().wait()

    async with ledger() as book, piped(sending={"idle_time": 0.02}, fallback={"probe_after": 0.1}) as pipe:
        for broken in (fail, hang):
            with monkeypatch.context() as patch:
                patch.setattr(Line, "rest", broken)
                await pipe.send(book.url, "x")
                await asyncio.sleep(0.1)
            pipe.manager.bypass("cache", book.url, seconds=0.05)
            await until(lambda: pipe.manager.mode(book.url)[Stage.CACHE] is not Mode.BYPASSED)
    assert "injected" in caplog.text


async def test_an_idle_time_of_zero_does_not_keep_the_processor_busy() -> None:
    async with ledger() as book, piped(sending={"idle_time": 0.0}) as pipe:
        await pipe.send(book.url, "x")
        ticks = 0
        tick = pipe.manager.tick

        def counting() -> None:
            nonlocal ticks
            ticks += 1
            tick()

        pipe.manager.tick = counting  # type: ignore[method-assign]
        await asyncio.sleep(0.1)
        assert ticks < 20


async def test_probes_are_due_though_connections_may_rest_for_long() -> None:
    async with ledger() as book, piped(sending={"idle_time": 3600.0}, fallback={"probe_after": 0.1}) as pipe:
        pipe.manager.bypass("cache", book.url, seconds=0.05)
        await until(lambda: pipe.manager.mode(book.url)[Stage.CACHE] is Mode.PROBING, seconds=3)


async def test_nothing_is_left_of_urls_that_are_not_used_any_more() -> None:
    async with ledger() as book, piped(sending={"idle_time": 0.02}) as pipe:
        for number in range(200):
            url = f"{book.url}{number}"
            if number % 2:
                await pipe.send(url, "x")
            else:
                async with pipe.connection(url) as conn:
                    await conn.send("x")
            if number % 20 == 0:
                await pipe.pool.drain()
        await until(lambda: not (pipe._lines or pipe._lending._ways or pipe.stats().modes))


async def test_a_stage_of_a_client_is_still_switched_after_its_line_is_forgotten() -> None:
    async with ledger() as book, piped(sending={"idle_time": 0.02}) as pipe:
        pipe.rpc(book.url)
        await pipe.send(book.url, "x")
        before = pipe.manager.switch(Stage.CACHE, book.url)
        await until(lambda: pipe.stats().sending.urls == 0)
        pipe.manager.bypass("cache", book.url)
        assert pipe.manager.switch(Stage.CACHE, book.url) is before
        assert not before.is_on


async def test_credentials_are_never_logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG, "penstock")
    async with ledger(reliable=False) as book, relaying(book.port) as relay, piped() as pipe:
        url = f"ws://user:sesame@127.0.0.1:{relay.port}/"
        await pipe.send(url, "echo")
        await until(lambda: pipe.stats().sending.unread == 1)
        relay.cut()
        await until(lambda: pipe.stats().sending.breaks == 1)
        pipe.manager.bypass("batch", url)
        pipe.manager.bypass("pool", url)
        relay.is_refusing = True
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
            await pipe.send(url, "x")
        assert "sesame" not in str(caught.value)
    assert "sesame" not in caplog.text


async def test_an_on_message_that_does_not_end_costs_the_connection_and_no_more() -> None:
    let_go, begun = asyncio.Event(), asyncio.Event()

    async def on_message(*_: Any) -> None:
        begun.set()
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    async with ledger() as book, piped(on_message=on_message) as pipe:
        await pipe.send(book.url, "echo")
        await begun.wait()
        async with asyncio.timeout(4):
            await pipe.drain()
        assert pipe.stats().pool.in_use == 0
        let_go.set()


# Whoever closes, and gives up


@pytest.mark.parametrize("turns", [*range(12), 15, 20, 30])
async def test_a_close_that_is_cancelled_at_any_moment_has_closed_everything(turns: int) -> None:
    async with ledger() as book, piped(sections={"metrics": MetricsConfig(control=True)}) as pipe:
        for number in range(20):
            await pipe.send(book.url, str(number))
        closing = asyncio.ensure_future(pipe.close())
        for _ in range(turns + 1):
            await asyncio.sleep(0)
        closing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await closing
        async with asyncio.timeout(1):
            await pipe.close()
        stats = pipe.stats()
        assert stats.pool.in_use == stats.pool.idle == stats.pool.closing == 0
        with pytest.raises(MiddlewareClosed):
            await pipe.send(book.url, "late")


async def test_cancelling_a_close_that_waits_for_a_borrower_ends_it_at_once() -> None:
    async with ledger() as book, piped() as pipe:
        conn = await pipe.connection(book.url)
        closing = asyncio.ensure_future(pipe.close(60))
        await asyncio.sleep(0.05)
        assert not closing.done()
        closing.cancel()
        async with asyncio.timeout(1):
            with contextlib.suppress(asyncio.CancelledError):
                await closing
            await pipe.close()
        assert closing.cancelled()
        assert not conn.is_connected


async def test_a_plain_connection_that_is_returned_after_the_end_is_no_failure_of_the_pool() -> None:
    async with ledger() as book, piped() as pipe:
        pipe.manager.bypass("pool")
        conn, lost = await pipe.connection(book.url), await pipe.connection(book.url)
        await pipe.close()
        conn.release()
        lost.discard("broken")
        assert pipe.manager.failures[Stage.POOL] == 0


@pytest.mark.parametrize("through", ["send", "connection"])
async def test_whoever_waits_for_a_plain_connection_is_told_of_the_end(through: str) -> None:
    async with ledger() as book, relaying(book.port) as relay, piped() as pipe:
        relay.pause()
        pipe.manager.bypass("pool")

        async def use() -> None:
            if through == "send":
                await pipe.send(relay.url, "x")
            else:
                await pipe.connection(relay.url)

        using = asyncio.ensure_future(use())
        await until(lambda: relay.accepted == 1)
        await pipe.close(0.1)
        async with asyncio.timeout(1):
            with pytest.raises(PoolClosed):
                await using
        assert pipe.stats().plain_connections == 0
        relay.go_on()


@pytest.mark.parametrize("turns", range(0, 40, 3))
async def test_no_plain_connection_is_opened_after_the_end(turns: int) -> None:
    async with ledger() as book, piped() as pipe:
        pipe.manager.bypass("pool")
        using = asyncio.ensure_future(borrowed(pipe, book.url))
        for _ in range(turns):
            await asyncio.sleep(0)
        await pipe.close(0.1)
        async with asyncio.timeout(1):
            await asyncio.wait([using])
        if using.exception() is None:
            assert not using.result().is_connected
        assert pipe.stats().plain_connections == 0
        assert not pipe._lending._held


async def test_a_plain_connection_that_is_never_returned_is_closed_and_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ledger() as book, piped() as pipe:
        pipe.manager.bypass("pool")
        await pipe.connection(book.url)
        gc.collect()
        await until(lambda: not pipe._lending._held)
        assert pipe.stats().plain_connections == 0
        assert "was never returned" in caplog.text


# The wrong place


@pytest.mark.parametrize("batched", [False, True], ids=["direct", "batched"])
async def test_another_thread_can_neither_send_nor_close(batched: bool) -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 60.0} if batched else {}) as pipe:
        await pipe.send(book.url, "0")

        async def elsewhere() -> None:
            for use in (pipe.send(book.url, "x"), pipe.send(book.url, "x", key="k"), pipe.drain(), pipe.close(0.1)):
                with pytest.raises(WrongLoop):
                    await use

        await asyncio.to_thread(asyncio.run, elsewhere())
        await pipe.send(book.url, "1")
        await pipe.drain()
        await until(lambda: book.messages == ["0", "1"])


def test_when_its_event_loop_has_ended_there_is_nothing_to_close() -> None:
    pipe = PerformanceMiddleware()

    async def use() -> None:
        async with ledger() as book:
            await pipe.send(book.url, "x")
            await pipe.drain()

    asyncio.run(use())
    asyncio.run(asyncio.wait_for(pipe.close(), 1))
