"""Closing and tidying: they end, whatever hangs, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from penstock import MessageBatcher
from penstock.errors import MiddlewareClosed
from penstock.manager.switch import Mode, Stage
from penstock.middleware.line import Line
from support.pipes import ledger, piped
from support.relay import relaying
from support.waiting import until


async def fill(pipe: Any, url: str) -> None:
    """Send until nothing more is taken."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            while True:
                await pipe.send(url, "x" * 100_000)


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
        await until(lambda: not pipe._lines and not pipe._lending._ways)
        assert pipe.stats().modes == {}


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
