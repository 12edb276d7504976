"""Callers that give up, and connections that end, at the worst moment: the order stays, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest

from penstock import MessageBatcher, Priority
from penstock.manager.switch import Stage
from penstock.middleware.line import Line
from support.pipes import ledger, piped
from support.relay import relaying
from support.waiting import until


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


async def gives_up(waiting: Any, turns: int = 3) -> None:
    """Begin, and cancel a few turns of the event loop later."""
    task = asyncio.ensure_future(waiting)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_whoever_gives_up_while_a_batcher_is_emptied_leaves_the_order_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 60.0}) as pipe:
        for number in range(50):
            await pipe.send(book.url, str(number))
        may_go = asyncio.Event()
        flush = MessageBatcher.flush_messages

        async def late(self: MessageBatcher) -> Any:
            await may_go.wait()
            return await flush(self)

        monkeypatch.setattr(MessageBatcher, "flush_messages", late)
        pipe.manager.bypass("batch")
        await gives_up(pipe.send(book.url, "never"))
        may_go.set()
        await pipe.send(book.url, "50")
        await until(lambda: len(book.messages) >= 51)
        assert book.messages == [str(number) for number in range(51)]
        assert pipe.stats().sending.delivered == 50


async def test_while_a_line_is_drained_nothing_goes_past_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped() as pipe:
        await pipe.send(book.url, "0")
        gate = asyncio.Event()
        flush = MessageBatcher.flush_messages

        async def late(self: MessageBatcher) -> Any:
            await gate.wait()
            return await flush(self)

        monkeypatch.setattr(MessageBatcher, "flush_messages", late)
        await pipe.send(book.url, "1", key="k")
        draining = asyncio.ensure_future(pipe.drain())
        await asyncio.sleep(0.01)
        pipe.manager.bypass("batch")
        pipe.manager.restore("batch")
        later = asyncio.ensure_future(pipe.send(book.url, "2"))
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.gather(draining, later)
        await until(lambda: len(book.messages) == 3)
        assert book.messages == ["0", "1", "2"]


async def test_a_batch_that_was_given_up_takes_none_of_the_next_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 0.01}, fallback={"failures": 100}) as pipe:
        await pipe.send(book.url, "first")
        await until(lambda: book.messages == ["first"])
        send_on = Line._send_on

        async def second_fails(self: Line, message: Any, *, flush: bool) -> None:
            if message == "b":
                raise OSError("injected")
            await send_on(self, message, flush=flush)

        monkeypatch.setattr(Line, "_send_on", second_fails)
        monkeypatch.setattr("penstock.batch.sender.backoff", lambda *_, **__: iter([0.0] * 10))
        for name in "abc":
            await pipe.send(book.url, name)
        await until(lambda: sum(pipe.stats().sending.dropped.values()) > 0)
        assert pipe.stats().sending.dropped == {"failed": 2}
        for name in "def":
            await pipe.send(book.url, name)
        await until(lambda: book.messages[-1] == "f")
        assert book.messages == ["first", "a", "d", "e", "f"]


async def test_what_expired_does_not_leave_when_a_broken_batcher_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 60.0}, fallback={"stage_timeout": 0.2}) as pipe:
        await pipe.send(book.url, "old", ttl=0.05)
        await pipe.send(book.url, "good")

        async def hang(self: MessageBatcher) -> Any:
            await asyncio.Event().wait()

        monkeypatch.setattr(MessageBatcher, "flush_messages", hang)
        pipe.manager.bypass("batch")
        await pipe.send(book.url, "new")
        await until(lambda: len(book.messages) >= 2)
        assert book.messages == ["good", "new"]
        assert pipe.stats().sending.dropped == {"expired": 1}


async def test_flipping_all_modes_during_traffic_changes_neither_order_nor_count() -> None:
    async with (
        ledger() as book,
        piped(sending={"batch_timeout": 0.002, "idle_time": 0.02}, fallback={"sample_every": 7}) as pipe,
    ):
        done = False

        async def flip() -> None:
            on = True
            while not done:
                for stage in Stage:
                    (pipe.manager.restore if on else pipe.manager.bypass)(stage)
                on = not on
                await asyncio.sleep(0.003)

        flipping = asyncio.ensure_future(flip())
        for number in range(4000):
            await pipe.send(book.url, str(number), key=f"{number}" if number % 50 == 0 else None)
            if number % 40 == 0:
                await asyncio.sleep(0.001)
        done = True
        await flipping
        await pipe.drain()
        await until(lambda: len(book.messages) >= 4000)
        assert book.messages == [str(number) for number in range(4000)]


async def test_a_caller_that_gives_up_while_a_connection_opens_leaves_nothing_behind() -> None:
    async with ledger() as book, relaying(book.port) as relay, piped() as pipe:
        relay.pause()
        await gives_up(pipe.send(relay.url, "never"), turns=20)
        await gives_up(pipe.send(relay.url, "never", priority=Priority.URGENT), turns=20)
        relay.go_on()
        await pipe.send(relay.url, "now")
        await until(lambda: book.messages[-1:] == ["now"])
        assert book.messages.count("now") == 1
        assert pipe.stats().pool.in_use == 1


async def test_draining_ends_though_others_go_on_sending() -> None:
    async with ledger() as book, piped() as pipe:
        sent = 0

        async def feed() -> None:
            nonlocal sent
            while True:
                await pipe.send(book.url, str(sent))
                sent += 1
                await asyncio.sleep(0)

        feeding = asyncio.ensure_future(feed())
        await until(lambda: sent > 10)
        for _ in range(5):
            async with asyncio.timeout(0.9):
                await pipe.drain()
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await pipe.drain()
        await until(lambda: len(book.messages) >= sent)
        assert book.messages == [str(number) for number in range(len(book.messages))]


# What the server sends


async def test_what_arrived_before_the_end_still_gets_to_on_message() -> None:
    got: list[Any] = []

    async def slow(_: str, message: Any) -> None:
        got.append(message)
        await asyncio.sleep(0.01)

    async def handler(conn: Any) -> None:
        if await conn.recv() != "go":
            return
        for number in range(5):
            await conn.send(str(number))

    from penstock import serve
    from support.servers import port_of

    async with serve(handler, "127.0.0.1", 0) as server, piped(on_message=slow) as pipe:
        url = f"ws://127.0.0.1:{port_of(server)}/"
        await pipe.send(url, "go")
        await until(lambda: pipe._lines[url].carrier.connection.state.name != "OPEN")  # type: ignore[union-attr]
        with contextlib.suppress(Exception):
            await pipe.send(url, "more")
        await until(lambda: len(got) >= 5)
        assert got[:5] == [str(number) for number in range(5)]


async def test_an_on_message_that_is_cancelled_from_within_is_called_again() -> None:
    got: list[Any] = []

    async def on_message(_: str, message: Any) -> None:
        got.append(message)
        raise asyncio.CancelledError

    async with ledger() as book, piped(on_message=on_message) as pipe:
        await pipe.send(book.url, "echo")
        await pipe.send(book.url, "echo")
        await until(lambda: len(got) == 2)


async def test_an_on_message_that_takes_long_keeps_its_connection() -> None:
    done: list[Any] = []

    async def on_message(_: str, message: Any) -> None:
        await asyncio.sleep(0.3)
        done.append(message)

    async with ledger() as book, piped(on_message=on_message, sending={"idle_time": 0.02}) as pipe:
        await pipe.send(book.url, "echo")
        await until(lambda: done == ["echo"])
        await until(lambda: pipe.stats().pool.in_use == 0)


async def test_a_lost_session_is_told_though_a_sender_noticed_first() -> None:
    told: list[Any] = []
    from penstock.config.sections import EnvelopeConfig

    async with (
        ledger() as book,
        relaying(book.port) as relay,
        piped(
            sections={"envelope": EnvelopeConfig(resume=False)},
            on_undelivered=lambda _, messages: told.extend(messages),
        ) as pipe,
    ):
        await pipe.send(relay.url, "0")
        await until(lambda: book.messages == ["0"])
        relay.pause()
        await pipe.send(relay.url, "lost")
        connection = pipe._lines[relay.url].carrier.connection
        assert connection is not None
        relay.cut(hard=True)
        relay.go_on()
        while connection.state.name == "OPEN":
            await asyncio.sleep(0)
            with contextlib.suppress(Exception):
                await asyncio.wait_for(pipe.send(relay.url, "more"), 0.5)
        await until(lambda: "lost" in told)
        assert told.count("lost") == 1
        assert pipe.stats().sending.undelivered == len(told)


# Messages that cannot be sent


async def test_a_message_that_a_connection_refuses_holds_up_none_of_its_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from penstock.errors import SerializationError

    send_on = Line._send_on

    async def picky(self: Line, message: Any, *, flush: bool) -> None:
        if message == "bad":
            raise SerializationError("too large for the peer", "send less")
        await send_on(self, message, flush=flush)

    async with ledger() as book, piped(sending={"batch_timeout": 0.01}) as pipe:
        monkeypatch.setattr(Line, "_send_on", picky)
        for message in ("one", "bad", "two"):
            await pipe.send(book.url, message)
        await until(lambda: book.messages == ["one", "two"])
        assert pipe.stats().sending.dropped == {"failed": 1}


@pytest.mark.parametrize("off", [False, True], ids=["gathered", "plain"])
async def test_a_bytearray_may_change_once_it_was_accepted(off: bool) -> None:
    async with ledger() as book, piped(sending={"batch_timeout": 0.02}) as pipe:
        if off:
            pipe.manager.bypass("batch")
        for kind in (bytearray, lambda data: memoryview(bytearray(data))):
            data = kind(b"\xff123")
            await pipe.send(book.url, data)  # type: ignore[arg-type]
            data[0:1] = b"X"
        await until(lambda: len(book.messages) == 2)
        assert book.messages == [b"\xff123"] * 2


async def test_a_send_that_is_cancelled_on_the_plain_way_was_not_sent() -> None:
    async with ledger(reliable=False) as book, relaying(book.port) as relay, piped() as pipe:
        pipe.manager.bypass("batch")
        await pipe.send(relay.url, "first")
        await until(lambda: book.messages == ["first"])
        relay.pause()
        sent = 1
        for number in range(200):
            try:
                async with asyncio.timeout(0.05):
                    await pipe.send(relay.url, f"{number} " + "x" * 500_000)
                sent += 1
            except TimeoutError:
                break
        relay.go_on()
        await pipe.send(relay.url, "last")
        await until(lambda: book.messages[-1] == "last")
        assert len(book.messages) == sent + 1
