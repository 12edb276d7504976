"""An iterable is sent as the fragments of one message, and nothing comes between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from penstock.transport.base import ConnectionClosedError
from support.ends import cancelled, start, steps
from support.links import Link
from support.rawpeer import BINARY, CLOSE, CONT, FIN, PING, TEXT


async def one_by_one(*items: Any, gate: asyncio.Event | None = None) -> AsyncIterator[Any]:
    """The first item at once, the others when the gate opens."""
    for number, item in enumerate(items):
        if gate is not None and number:
            await gate.wait()
        yield item


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("items", "text", "first"),
    [
        (("a", "é", ""), None, TEXT),
        (("a", "é", ""), False, BINARY),
        ((b"a", bytearray("é".encode()), memoryview(b"")), None, BINARY),
        ((b"a", bytearray("é".encode()), memoryview(b"")), True, TEXT),
    ],
)
async def test_each_item_is_a_fragment_and_an_empty_one_ends_the_message(
    link: Link, items: tuple[Any, ...], text: bool | None, first: int, asynchronous: bool
) -> None:
    async with link.raw() as (conn, raw):
        await conn.send(one_by_one(*items) if asynchronous else list(items), text=text)
        frames = [(await raw.next())[:2] for _ in range(4)]
    assert frames == [(first, b"a"), (CONT, "é".encode()), (CONT, b""), (FIN | CONT, b"")]


@pytest.mark.parametrize("items", [("a",), (b"a",)])
async def test_a_single_fragment_is_a_message(link: Link, items: tuple[Any, ...]) -> None:
    async with link() as (conn, peer):
        await conn.send(iter(items))
        assert await peer.recv() == items[0]


@pytest.mark.parametrize("empty", [list, lambda: iter(()), one_by_one], ids=["list", "iterator", "async"])
async def test_nothing_is_sent_for_nothing(link: Link, empty: Any) -> None:
    async with link() as (conn, peer):
        await conn.send(empty())
        await conn.send("after")
        assert await peer.recv() == "after"


async def test_messages_and_fragmented_messages_keep_their_order(link: Link) -> None:
    async with link() as (conn, peer):
        for number in range(20):
            await conn.send(f"{number}")
            await conn.send([f"<{number}", ">"])
            await conn.send(one_by_one(b"[", b"%d]" % number))
        received = [await peer.recv() for _ in range(60)]
    assert received == [message for n in range(20) for message in (f"{n}", f"<{n}>", b"[%d]" % n)]


async def test_other_messages_wait_until_the_fragments_are_through(link: Link) -> None:
    gate = asyncio.Event()
    async with link() as (conn, peer):
        sending = start(conn.send(one_by_one("a", "b", gate=gate)))
        await steps(3)
        others = [start(conn.send("c")), start(conn.send(["d", "e"])), start(conn.send_many(["f", "g"]))]
        await steps(5)
        assert not any(task.done() for task in others)
        gate.set()
        await asyncio.gather(sending, *others)
        assert [await peer.recv() for _ in range(5)] == ["ab", "c", "de", "f", "g"]


async def test_pings_may_come_between_fragments(link: Link) -> None:
    gate = asyncio.Event()
    async with link.raw() as (conn, raw):
        sending = start(conn.send(one_by_one("a", "b", gate=gate)))
        await steps(3)
        await conn.ping(b"now")
        gate.set()
        await sending
        frames = [(await raw.next())[:2] for _ in range(4)]
    assert frames == [(TEXT, b"a"), (FIN | PING, b"now"), (CONT, b"b"), (FIN | CONT, b"")]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("items", [("a", b"b"), (b"a", "b"), ("a", 1)], ids=["text-bytes", "bytes-text", "number"])
async def test_fragments_of_different_kinds_close_the_connection(
    link: Link, items: tuple[Any, ...], asynchronous: bool
) -> None:
    async with link.raw() as (conn, raw):
        with pytest.raises(TypeError):
            await conn.send(one_by_one(*items) if asynchronous else items)
        frames = await raw.rest()
        with pytest.raises(ConnectionClosedError, match="1011"):
            await conn.recv()
    assert [seen.opcode for seen in frames][1:] == [CLOSE]
    assert (frames[-1].close.code, frames[-1].close.reason) == (1011, "error in fragmented message")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_no_message_comes_of_a_first_fragment_of_no_kind(link: Link, asynchronous: bool) -> None:
    async with link.raw() as (conn, raw):
        with pytest.raises(TypeError):
            await conn.send(one_by_one(1, "a") if asynchronous else [1, "a"])
        closing = start(conn.close())
        frames = await raw.rest()
        await closing
    assert [seen.opcode for seen in frames] == [CLOSE]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_exception_of_the_iterable_travels_on_and_closes_the_connection(
    link: Link, asynchronous: bool
) -> None:
    def failing() -> Iterator[str]:
        yield "a"
        raise KeyError("my own")

    async def failing_later() -> AsyncIterator[str]:
        for item in failing():
            yield item

    async with link() as (conn, peer):
        with pytest.raises(KeyError, match="my own"):
            await conn.send(failing_later() if asynchronous else failing())
        with pytest.raises(ConnectionClosedError, match=r"1011.*error in fragmented message"):
            await peer.recv()
        with pytest.raises(ConnectionClosedError):
            await conn.send("late")


async def test_an_exception_before_the_first_fragment_harms_nothing(link: Link) -> None:
    def failing() -> Iterator[str]:
        raise KeyError("my own")
        yield "a"

    async with link() as (conn, peer):
        with pytest.raises(KeyError, match="my own"):
            await conn.send(failing())
        await conn.send("fine")
        assert await peer.recv() == "fine"


async def test_cancelling_half_way_closes_the_connection(link: Link) -> None:
    async with link.raw() as (conn, raw):
        sending = start(conn.send(one_by_one("a", "never", gate=asyncio.Event())))
        assert (await raw.next())[:2] == (TEXT, b"a")
        waiting = start(conn.send("never either"))
        await steps(3)
        assert await cancelled(sending)
        assert (await raw.end()).close.code == 1011
        with pytest.raises(ConnectionClosedError):
            await waiting


async def test_cancelling_before_the_first_fragment_harms_nothing(link: Link) -> None:
    async def never() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield "never"

    async with link() as (conn, peer):
        sending = start(conn.send(never()))
        await steps(3)
        await conn.send("meanwhile")
        assert await peer.recv() == "meanwhile"
        assert await cancelled(sending)
        await conn.send("after")
        assert await peer.recv() == "after"


async def test_closing_half_way_closes_with_1011(link: Link) -> None:
    gate = asyncio.Event()
    async with link() as (conn, peer):
        sending = start(conn.send(one_by_one("a", "b", gate=gate)))
        await steps(3)
        receiving = start(peer.recv())
        await conn.close()
        with pytest.raises(ConnectionClosedError, match=r"1011.*close during fragmented message"):
            await receiving
        gate.set()
        with pytest.raises(ConnectionClosedError):
            await sending


async def test_a_peer_that_closes_half_way_is_told_to_the_sender(link: Link) -> None:
    gate = asyncio.Event()
    async with link() as (conn, peer):
        sending = start(conn.send(one_by_one(*"abc", gate=gate)))
        await steps(3)
        await peer.close(1011, "enough")
        gate.set()
        with pytest.raises(ConnectionClosedError):
            await sending
