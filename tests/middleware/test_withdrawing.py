"""What a batcher that does not work gives back leaves first, whoever gives up meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import MessageBatcher
from penstock.middleware.line import Line
from penstock.middleware.middleware import PerformanceMiddleware
from support.pipes import Ledger, ledger, piped
from support.waiting import until


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


async def fails(*_: Any, **__: Any) -> Any:
    raise RuntimeError("injected")


@asynccontextmanager
async def given_back(
    monkeypatch: pytest.MonkeyPatch, **sending: Any
) -> AsyncIterator[tuple[PerformanceMiddleware, Ledger]]:
    """A middleware whose batcher has given "1" back, and whoever was to send it has given up."""
    async with ledger() as book, piped(sending=sending) as pipe:
        await pipe.send(book.url, "0")
        await pipe.drain()
        await pipe.send(book.url, "here")
        await pipe.drain()
        await until(lambda: book.messages == ["0", "here"])
        with monkeypatch.context() as patch:
            patch.setattr(Line, "_send_on", lambda *_, **__: asyncio.Event().wait())
            patch.setattr(MessageBatcher, "flush_messages", fails)
            await pipe.send(book.url, "1", key="k")
            pipe.manager.bypass("batch")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    await pipe.send(book.url, "never")
        assert [message.data for message in pipe.lines.at[book.url]._withdrawn] == ["1"]
        yield pipe, book


@pytest.mark.parametrize("batch_timeout", [0.0, 60.0], ids=["direct", "batched"])
async def test_nothing_overtakes_it_though_the_batch_is_in_use_again(
    batch_timeout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with given_back(monkeypatch, batch_timeout=batch_timeout) as (pipe, book):
        line = pipe.lines.at[book.url]
        await line.carrier.ready()
        pipe.manager.restore("batch")
        await pipe.send(book.url, "2")
        await pipe.send(book.url, "3")
        await pipe.drain()
        await until(lambda: len(book.messages) >= 5)
        assert book.messages == ["0", "here", "1", "2", "3"]


async def test_its_line_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    async with given_back(monkeypatch, idle_time=0.01) as (pipe, book):
        line = pipe.lines.at[book.url]
        assert line.carrier.connection is None
        await asyncio.sleep(0.1)
        await pipe.drain()
        await until(lambda: book.messages == ["0", "here", "1"])


async def test_what_has_expired_meanwhile_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 60.0}) as pipe:
        await pipe.send(book.url, "old", ttl=0.02)
        await pipe.send(book.url, "good")
        time.sleep(0.04)  # noqa: ASYNC251 - nobody may be told of it before
        monkeypatch.setattr(MessageBatcher, "flush_messages", fails)
        pipe.manager.bypass("batch")
        await pipe.send(book.url, "new")
        await until(lambda: len(book.messages) >= 2)
        assert book.messages == ["good", "new"]
        assert pipe.stats().sending.dropped == {"expired": 1}


async def test_a_batch_that_fails_while_it_is_given_back_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends_badly(*_: Any, **__: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OSError("injected") from None

    async with ledger() as book, piped() as pipe:
        await pipe.send(book.url, "0")
        with monkeypatch.context() as patch:
            patch.setattr(Line, "_send_on", ends_badly)
            await pipe.send(book.url, "1", key="k")
            await asyncio.sleep(0.01)
            patch.setattr(MessageBatcher, "flush_messages", fails)
            pipe.manager.bypass("batch")
            sending = asyncio.ensure_future(pipe.send(book.url, "2"))
            await asyncio.sleep(0)
            patch.undo()
            await sending
        await until(lambda: len(book.messages) >= 3)
        assert book.messages == ["0", "1", "2"]
        assert pipe.stats().sending.dropped == {}
