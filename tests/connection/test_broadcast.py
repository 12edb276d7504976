"""One message to many connections, each in its place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

import penstock
from penstock import BatchConfig, broadcast
from penstock.errors import MessageTypeError, SerializationError
from penstock.transport.base import ConcurrencyError, Options
from support.ends import NARROW, QUIET, Ends, ends, start, steps, within
from support.servers import url_of


@asynccontextmanager
async def several(
    number: int = 3, batch: BatchConfig | None = None, options: Options = QUIET, *, optimize: bool = True
) -> AsyncIterator[list[Ends]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(ends(batch, options, optimize=optimize)) for _ in range(number)]


async def sending_fragments(both: Ends) -> tuple[asyncio.Task[None], asyncio.Event]:
    """A message in pieces that is under way at the client, and what lets it end."""
    gate = asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        yield "a"
        await gate.wait()
        yield "b"

    task = start(both.client.send(pieces()))
    await steps(3)
    return task, gate


@pytest.mark.parametrize("optimize", [True, False])
async def test_clients_and_servers_all_get_the_message(optimize: bool) -> None:
    async with several(optimize=optimize) as pairs:
        broadcast([both.client for both in pairs] + [both.server for both in pairs], "to all")
        for both in pairs:
            assert await within(both.server.recv()) == "to all"
            assert await within(both.client.recv()) == "to all"


async def test_a_lone_broadcast_is_written_at_once() -> None:
    async with several() as pairs:
        broadcast((both.client for both in pairs), "now")
        assert [both.spy.payloads for both in pairs] == [[[b"now"]]] * 3


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("batch", [BatchConfig(), BatchConfig(batch_timeout=0.01), BatchConfig(batch_size=2)])
async def test_it_goes_behind_what_was_accepted_before_and_before_what_comes_after(
    batch: BatchConfig, optimize: bool
) -> None:
    async with several(1, batch, optimize=optimize) as (both,):
        await both.client.send("one")
        await both.client.send(b"two")
        broadcast([both.client], "three")
        broadcast([both.client], b"four")
        await both.client.send("five")
        assert await both.received(5) == ["one", b"two", "three", b"four", "five"]


async def test_it_does_not_wait_for_a_blocked_socket_nor_overtake_what_gathered() -> None:
    async with several(2, options=NARROW) as (slow, fast):
        filler = await slow.block()
        await slow.client.send("gathered")
        for number in range(100):
            broadcast([slow.client, fast.client], str(number))
        await slow.client.send("after")
        assert await fast.received(100) == [str(number) for number in range(100)]
        slow.go_on()
        assert await slow.received(103) == [filler, "gathered", *(str(number) for number in range(100)), "after"]


async def test_it_disturbs_nobody_who_waits_for_a_blocked_socket() -> None:
    async with several(1, BatchConfig(max_pending_messages=1), NARROW) as (both,):
        filler = await both.block()
        await both.client.send("gathered")
        waiting = [start(both.client.send("first")), start(both.client.send("second"))]
        await steps(3)
        broadcast([both.client], "unasked")
        both.go_on()
        await within(asyncio.gather(*waiting))
        messages = await both.received(5)
        assert messages[:2] == [filler, "gathered"]
        assert [message for message in messages[2:] if message != "unasked"] == ["first", "second"]
        assert "unasked" in messages


@pytest.mark.parametrize(
    ("message", "text", "received"),
    [("text", None, "text"), (b"raw", None, b"raw"), ("text", False, b"text"), (bytearray(b"raw"), True, "raw")],
)
async def test_the_kind_is_what_the_type_or_text_says(message: Any, text: bool | None, received: Any) -> None:
    async with several(1) as (both,):
        broadcast([both.client, both.server], message, text=text)
        assert await within(both.server.recv()) == received
        assert await within(both.client.recv()) == received


@pytest.mark.parametrize(
    ("message", "error"), [(5, MessageTypeError), (["a"], MessageTypeError), ("\ud800", SerializationError)]
)
async def test_what_cannot_be_sent_goes_to_nobody(message: Any, error: type[Exception]) -> None:
    async with several() as pairs:
        with pytest.raises(error):
            broadcast([both.client for both in pairs], message)
        assert [both.spy.writes for both in pairs] == [[], [], []]


async def test_no_connections_are_no_trouble() -> None:
    broadcast([], "to nobody", raise_exceptions=True)
    with pytest.raises(MessageTypeError):
        broadcast([], 5)  # type: ignore[arg-type]


@pytest.mark.parametrize("raise_exceptions", [False, True])
async def test_connections_that_are_closed_or_closing_are_passed_over(
    raise_exceptions: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with several(4) as (closed, lost, closing, open_):
        await within(closed.client.close())
        lost.client_end.transport.abort()
        await within(lost.client.wait_closed())
        closing.stall()
        task = start(closing.client.close())
        await steps(3)
        broadcast(
            [both.client for both in (closed, lost, closing, open_)], "to the open", raise_exceptions=raise_exceptions
        )
        closing.go_on()
        await within(task)
        assert await open_.received(1) == ["to the open"]
        assert await closing.rest() == []
        assert not caplog.records


async def test_one_that_sends_fragments_is_skipped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with several(2) as (fragmenting, other):
        task, gate = await sending_fragments(fragmenting)
        with caplog.at_level(logging.WARNING, "penstock"):
            broadcast([fragmenting.client, other.client], "to all")
        gate.set()
        await within(task)
        assert await fragmenting.received(1) == ["ab"]
        assert await other.received(1) == ["to all"]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "sending a fragmented message" in caplog.text
        assert str(fragmenting.client.id) in caplog.text


async def test_one_that_sends_fragments_is_reported_if_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    async with several(2) as (fragmenting, other):
        task, gate = await sending_fragments(fragmenting)
        with pytest.raises(ExceptionGroup, match="skipped broadcast") as group:
            broadcast([fragmenting.client, other.client], "to all", raise_exceptions=True)
        assert [type(error) for error in group.value.exceptions] == [ConcurrencyError]
        assert not caplog.records
        gate.set()
        await within(task)
        assert await other.received(1) == ["to all"]


def break_writes(both: Ends) -> OSError:
    """Let every write at the client fail."""
    trouble = OSError("no buffer space")

    def fail(_: bytes) -> None:
        raise trouble

    both.client_end.write = fail  # type: ignore[method-assign]
    return trouble


async def test_a_write_that_fails_keeps_the_message_from_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    async with several(2) as (broken, other):
        break_writes(broken)
        with caplog.at_level(logging.WARNING, "penstock"):
            broadcast([broken.client, other.client], "to all")
        assert await other.received(1) == ["to all"]
        assert "failed to write message" in caplog.text
        assert "no buffer space" in caplog.text


async def test_a_write_that_fails_is_reported_with_its_cause_if_asked_for() -> None:
    async with several(2) as (broken, other):
        trouble = break_writes(broken)
        with pytest.raises(ExceptionGroup) as group:
            broadcast([broken.client, other.client], "to all", raise_exceptions=True)
        (error,) = group.value.exceptions
        assert isinstance(error, RuntimeError)
        assert error.__cause__ is trouble
        assert await other.received(1) == ["to all"]


@pytest.mark.parametrize("compression", [None, "deflate"])
@pytest.mark.parametrize("transport", ["picows", "websockets"])
async def test_real_connections_get_it_compressed_or_not(transport: Any, compression: Any) -> None:
    here, go = asyncio.Event(), asyncio.Event()

    async def handler(conn: penstock.ServerConnection) -> None:
        if len(conn.server.connections) == 3:
            here.set()
        await go.wait()
        await conn.wait_closed()

    options: dict[str, Any] = {"transport": transport, "compression": compression}
    async with penstock.serve(handler, "127.0.0.1", 0, **options) as server, AsyncExitStack() as stack:
        url = url_of(server)
        clients = [await stack.enter_async_context(penstock.connect(url, **options)) for _ in range(3)]
        await within(here.wait())
        for number in range(20):
            broadcast(server.connections, f"{number}: " + "to all " * 100, raise_exceptions=True)
        for client in clients:
            received = [await within(client.recv()) for _ in range(20)]
            assert received == [f"{number}: " + "to all " * 100 for number in range(20)]
        go.set()


async def test_without_optimizing_it_is_written_at_once_whatever_the_socket_takes() -> None:
    async with several(1, options=NARROW, optimize=False) as (both,):
        filler = await both.block()
        waiting = start(both.client.send("waits"))
        await steps(2)
        broadcast([both.client], "unasked")
        assert both.spy.frames == [filler, b"unasked"]
        both.go_on()
        await within(waiting)
        assert await both.received(3) == [filler, "unasked", "waits"]


@pytest.mark.parametrize("batch", [{"batch_size": 3}, {"batch_bytes": 120}])
async def test_a_batch_that_it_fills_does_not_linger(batch: dict[str, int]) -> None:
    async with several(1, BatchConfig(**batch, batch_timeout=60)) as (both,):
        for _ in range(2):
            broadcast([both.client], b"x" * 40)
        assert both.spy.writes == []
        broadcast([both.client], b"x" * 40)
        assert both.spy.payloads == [[b"x" * 40] * 3]
