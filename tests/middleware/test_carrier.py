"""Who is told of messages that may not have arrived, whoever notices first, and once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from penstock import ConnectionPoolConfig, serve
from penstock.config.sections import EnvelopeConfig, LimitsConfig
from penstock.errors import DeliveryUnknown
from penstock.middleware import carrier as module
from penstock.middleware.carrier import Carrier
from penstock.transport.base import ConnectionClosedError, State
from support.pipes import ledger, piped
from support.relay import relaying
from support.servers import port_of
from support.waiting import until

NO_RESUMING = {"envelope": EnvelopeConfig(resume=False)}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock.server")


class FakeLease:
    """A borrowed connection that breaks when a test says so."""

    def __init__(self) -> None:
        self.connection: Any = self
        self.state = State.OPEN
        self.outbox = SimpleNamespace(transport=None)
        self.breaking: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.ends: list[str] = []

    async def recv(self) -> Any:
        arrival = await self.breaking
        self.breaking = asyncio.get_running_loop().create_future()
        return arrival

    def discard(self, reason: str) -> None:
        self.ends.append(reason)

    def release(self) -> None:
        self.ends.append("released")

    async def flush(self) -> None:
        pass


async def carrier_of(*leases: FakeLease, on_message: Any = None) -> Carrier:
    waiting = list(leases)

    async def borrow() -> Any:
        return waiting.pop(0)

    carrier = Carrier("ws://h/", borrow, on_message=on_message, on_undelivered=None, on_gone=lambda: None)
    await carrier.ready()
    return carrier


BROKEN = ConnectionClosedError(None, None)


async def test_a_break_is_told_though_a_sender_saw_a_closed_connection_first() -> None:
    first, second = FakeLease(), FakeLease()
    carrier = await carrier_of(first, second)
    first.state = State.CLOSED
    assert await carrier.ready() is second  # type: ignore[comparison-overlap]
    assert carrier.breaks == 0
    first.breaking.set_exception(BROKEN)
    await until(lambda: carrier.breaks == 1)
    assert carrier.connection is second
    assert first.ends == ["broken"]
    await carrier.close()


async def test_a_break_that_a_sender_was_told_of_counts_once() -> None:
    first = FakeLease()
    carrier = await carrier_of(first)
    await asyncio.sleep(0)
    carrier.gone(BROKEN)
    first.breaking.set_exception(BROKEN)
    await until(lambda: not carrier._leaving)
    assert carrier.breaks == 1


async def test_returning_waits_no_longer_for_on_message_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    let_go = asyncio.Event()

    async def stubborn(*_: Any) -> None:
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()

    lease = FakeLease()
    carrier = await carrier_of(lease, on_message=stubborn)
    lease.breaking.set_result("message")
    await until(lambda: carrier.is_handing_over)
    reader = carrier._reader
    assert reader is not None
    began = time.monotonic()
    await carrier.rest()
    assert 0.04 < time.monotonic() - began < 0.5
    assert lease.ends == ["busy"]
    let_go.set()
    await until(lambda: not carrier.is_handing_over)
    reader.cancel()
    await asyncio.wait([reader])


# With a server


async def takes_one(conn: Any) -> None:
    """Close in order, with messages that have arrived and that nobody has taken."""
    await conn.recv()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("drained", [False, True], ids=["seen", "drained"])
async def test_what_a_server_had_not_taken_when_it_closed_in_order_is_told(drained: bool) -> None:
    told: list[Any] = []
    async with (
        serve(takes_one, "127.0.0.1", 0) as server,
        piped(on_undelivered=lambda _, messages: told.append(list(messages))) as pipe,
    ):
        url = f"ws://127.0.0.1:{port_of(server)}/"
        for number in range(3):
            await pipe.send(url, str(number))
        if drained:
            with pytest.raises(DeliveryUnknown):
                await pipe.drain()
        await until(lambda: bool(told))
        await asyncio.sleep(0.01)
        assert told == [["1", "2"]]
        sending = pipe.stats().sending
        assert (sending.undelivered, sending.breaks) == (2, 0)


async def lose(pipe: Any, relay: Any, book: Any) -> None:
    """Have a message accepted, and its session lost."""
    await pipe.send(relay.url, "0")
    await until(lambda: book.messages == ["0"])
    relay.pause()
    await pipe.send(relay.url, "lost")
    await asyncio.sleep(0.01)
    relay.cut(hard=True)
    relay.go_on()


async def test_on_undelivered_may_be_a_coroutine_function() -> None:
    told: list[Any] = []

    async def on_undelivered(_: str, messages: Any) -> None:
        await asyncio.sleep(0.01)
        told.extend(messages)

    async with (
        ledger() as book,
        relaying(book.port) as relay,
        piped(sections=NO_RESUMING, on_undelivered=on_undelivered) as pipe,
    ):
        await lose(pipe, relay, book)
        await until(lambda: pipe.stats().sending.breaks == 1)
        await pipe.close()
        assert "lost" in told


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_an_on_undelivered_that_fails_is_logged_and_harms_nothing(
    later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def at_once(*_: Any) -> None:
        raise RuntimeError("injected")

    async def in_the_end(*_: Any) -> None:
        raise RuntimeError("injected")

    caplog.set_level(logging.ERROR, "penstock.middleware")
    async with (
        ledger() as book,
        relaying(book.port) as relay,
        piped(sections=NO_RESUMING, on_undelivered=in_the_end if later else at_once) as pipe,
    ):
        await lose(pipe, relay, book)
        await until(lambda: "on_undelivered failed" in caplog.text)
        await pipe.send(relay.url, "after")
        await until(lambda: book.messages[-1:] == ["after"])
        assert pipe.stats().pool.in_use == 1


async def test_an_on_undelivered_that_hangs_keeps_the_middleware_open_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    begun = asyncio.Event()

    async def hang(*_: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with (
        ledger() as book,
        relaying(book.port) as relay,
        piped(sections=NO_RESUMING, on_undelivered=hang) as pipe,
    ):
        await lose(pipe, relay, book)
        await begun.wait()
        async with asyncio.timeout(2):
            await pipe.close(0.1)


async def test_what_is_not_acknowledged_when_time_is_up_is_told(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    async with (
        serve(hears_nothing, "127.0.0.1", 0) as server,
        piped(on_undelivered=lambda _, messages: told.extend(messages)) as pipe,
    ):
        caplog.set_level(logging.ERROR, "penstock.middleware")
        await pipe.send(f"ws://127.0.0.1:{port_of(server)}/", "kept")
        await pipe.close(0.1)
        assert told == ["kept"]
        assert pipe.stats().sending.undelivered == 1
        assert "closed before the server had told that it took the last 1 messages" in caplog.text
        assert "0 messages were not written" not in caplog.text


async def hears_nothing(conn: Any) -> None:
    await conn.wait_closed()


async def test_a_connection_is_not_returned_while_the_server_has_not_taken_what_was_sent() -> None:
    told: list[Any] = []
    async with (
        serve(hears_nothing, "127.0.0.1", 0) as server,
        relaying(port_of(server)) as relay,
        piped(
            sending={"idle_time": 0.01},
            sections=NO_RESUMING,
            on_undelivered=lambda _, messages: told.extend(messages),
        ) as pipe,
    ):
        await pipe.send(relay.url, "kept")
        await asyncio.sleep(0.2)
        assert pipe.stats().pool.in_use == 1
        relay.cut(hard=True)
        await until(lambda: told == ["kept"])


async def test_what_is_kept_until_it_is_acknowledged_counts_against_the_bound() -> None:
    sections = {"limits": LimitsConfig(memory_bytes=500_000), "pool": ConnectionPoolConfig(max_total=10)}
    async with serve(hears_nothing, "127.0.0.1", 0) as server, piped(sections=sections) as pipe:
        url = f"ws://127.0.0.1:{port_of(server)}/"
        accepted = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    await pipe.send(url, "x" * 10_000)
                    accepted += 1
        assert 40 <= accepted <= 50
        assert 400_000 < pipe.stats().memory_bytes <= 510_000
        await pipe.close(0.1)
