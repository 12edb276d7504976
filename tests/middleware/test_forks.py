"""A child process: the connections are its parent's, and it is told so."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from penstock import Priority
from penstock.errors import WrongLoop
from penstock.middleware.middleware import PerformanceMiddleware
from support.pipes import ledger, piped
from support.waiting import until

Use = Callable[[PerformanceMiddleware, str], Awaitable[Any]]
REFUSED, DONE, ODD = 3, 4, 5


async def borrow(pipe: PerformanceMiddleware, url: str) -> None:
    async with pipe.connection(url):
        pass


async def in_child(use: Callable[[], Awaitable[Any]]) -> int:
    """Run something in a child process, on an event loop of its own; tell how it ended."""
    pid = os.fork()
    if not pid:
        code = ODD
        try:
            asyncio.run(asyncio.wait_for(use(), 5))
            code = DONE
        except WrongLoop:
            code = REFUSED
        finally:
            os._exit(code)
    _, status = await asyncio.get_running_loop().run_in_executor(None, os.waitpid, pid, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("batched", [False, True], ids=["direct", "batched"])
@pytest.mark.parametrize(
    "use",
    [
        lambda pipe, url: pipe.send(url, "child"),
        lambda pipe, url: pipe.send(url, "child", priority=Priority.URGENT),
        lambda pipe, url: pipe.send(f"{url}new", "child"),
        lambda pipe, _: pipe.drain(),
        borrow,
    ],
    ids=["send", "urgent", "new url", "drain", "connection"],
)
async def test_nothing_of_a_childs_goes_over_its_parents_connections(use: Use, batched: bool) -> None:
    sending = {"batch_timeout": 60.0} if batched else {}
    async with ledger() as book, piped(sending=sending) as pipe:
        await pipe.send(book.url, "0")
        if batched:
            await pipe.drain()
            await pipe.send(book.url, "1")
        assert await in_child(lambda: use(pipe, book.url)) == REFUSED
        await pipe.send(book.url, "2")
        await pipe.drain()
        await until(lambda: book.messages[-1:] == ["2"])
        assert book.messages == (["0", "1", "2"] if batched else ["0", "2"])
        assert pipe.stats().sending.breaks == 0


async def test_a_child_that_goes_on_without_an_event_loop_is_told_the_same() -> None:
    async with ledger() as book, piped() as pipe:
        await pipe.send(book.url, "0")
        pid = os.fork()
        if not pid:
            code = ODD
            try:
                pipe.send(book.url, "child").send(None)
            except WrongLoop:
                code = REFUSED
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == REFUSED
        await pipe.send(book.url, "1")
        await until(lambda: book.messages == ["0", "1"])


async def test_a_mode_that_a_child_changes_gives_it_no_connection() -> None:
    async with ledger() as book, piped() as pipe:
        await pipe.send(book.url, "0")

        async def use() -> None:
            pipe.manager.bypass("batch")
            pipe.manager.restore("batch")
            await pipe.send(book.url, "child")

        assert await in_child(use) == REFUSED
        await pipe.send(book.url, "1")
        await until(lambda: book.messages == ["0", "1"])


async def test_closing_in_a_child_ends_at_once_and_leaves_the_parent_alone() -> None:
    async with ledger() as book, piped() as pipe:
        await pipe.send(book.url, "0")
        assert await in_child(pipe.close) == DONE
        await pipe.send(book.url, "1")
        await until(lambda: book.messages == ["0", "1"])
        assert pipe.stats().sending.breaks == 0


async def test_what_the_parent_has_not_used_is_the_childs_own() -> None:
    async with ledger() as book:
        pipe = PerformanceMiddleware()

        async def use() -> None:
            async with pipe:
                await pipe.send(book.url, "child")

        assert await in_child(use) == DONE
        await until(lambda: book.messages == ["child"])
        await pipe.close()
