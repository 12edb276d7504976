"""Messages go out as what they are, in the order in which they were accepted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.transport.base import ConnectionClosedError, ConnectionClosedOK, State
from support.ends import start, steps
from support.links import Link
from support.rawpeer import BINARY, CLOSE, FIN, TEXT


@pytest.mark.parametrize(
    ("message", "text", "first", "payload"),
    [
        ("é", None, TEXT, b"\xc3\xa9"),
        ("é", True, TEXT, b"\xc3\xa9"),
        ("é", False, BINARY, b"\xc3\xa9"),
        (b"\xff", None, BINARY, b"\xff"),
        (b"ok", True, TEXT, b"ok"),
        (b"ok", False, BINARY, b"ok"),
        (bytearray(b"ok"), None, BINARY, b"ok"),
        (bytearray(b"ok"), True, TEXT, b"ok"),
        (memoryview(b"_ok_")[1:3], None, BINARY, b"ok"),
        (memoryview(b"_ok_")[1:3], True, TEXT, b"ok"),
        ("", None, TEXT, b""),
        (b"", None, BINARY, b""),
    ],
)
async def test_the_frame_has_the_kind_that_the_type_or_text_says(
    link: Link, message: Any, text: bool | None, first: int, payload: bytes
) -> None:
    async with link.raw() as (conn, raw):
        await conn.send(message, text=text)
        assert (await raw.next())[:2] == (FIN | first, payload)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
async def test_messages_of_every_size_arrive(link: Link, size: int) -> None:
    async with link() as (conn, peer):
        for message in ("x" * size, b"y" * size):
            await conn.send(message)
            assert await peer.recv() == message


async def test_a_message_of_eight_megabytes_arrives(link: Link) -> None:
    message = bytes(range(256)) * 32_768
    async with link() as (conn, peer):
        sending = start(conn.send(message))
        assert await peer.recv() == message
        await sending


@pytest.mark.parametrize("optimize", [True, False])
async def test_messages_arrive_in_order_whoever_sends(link: Link, optimize: bool) -> None:
    async with link(optimize=optimize) as (conn, peer):

        async def send(name: str) -> None:
            for number in range(100):
                await conn.send(f"{name}{number}")

        sending = [start(send(name)) for name in "abc"]
        received = [await peer.recv() for _ in range(300)]
        await asyncio.gather(*sending)
    for name in "abc":
        assert [message for message in received if message[0] == name] == [f"{name}{n}" for n in range(100)]


async def test_a_buffer_that_changes_after_send_was_copied(link: Link) -> None:
    buffer = bytearray(b"0000")
    async with link() as (conn, peer):
        for number in range(50):
            buffer[:] = b"%04d" % number
            await conn.send(buffer if number % 2 else memoryview(buffer))
        assert [await peer.recv() for _ in range(50)] == [b"%04d" % number for number in range(50)]


async def test_a_client_masks_every_frame_with_a_key_of_its_own_and_a_server_none(link: Link) -> None:
    async with link.raw() as (conn, raw):
        for number in range(100):
            await conn.send(f"{number}")
        frames = [await raw.next() for _ in range(100)]
    assert [seen.payload for seen in frames] == [b"%d" % number for number in range(100)]
    masks = {seen.mask for seen in frames}
    if link.is_client:
        assert None not in masks
        assert len(masks) >= 99  # two of a hundred 32-bit keys may be the same, once in a million runs
    else:
        assert masks == {None}


@pytest.mark.parametrize("bad", [None, 1, 1.5, object(), {"a": "b"}], ids=lambda bad: type(bad).__name__)
async def test_what_is_no_message_is_refused_and_harms_nothing(link: Link, bad: Any) -> None:
    async with link() as (conn, peer):
        with pytest.raises(TypeError):
            await conn.send(bad)
        await conn.send("fine")
        assert await peer.recv() == "fine"


async def test_text_with_a_lone_surrogate_is_refused_and_harms_nothing(link: Link) -> None:
    async with link() as (conn, peer):
        with pytest.raises(ValueError, match="surrogate"):
            await conn.send("\ud800")
        await conn.send("fine")
        assert await peer.recv() == "fine"


async def test_many_messages_are_sent_as_if_one_by_one(link: Link) -> None:
    async with link() as (conn, peer):
        await conn.send_many(["a", b"b", bytearray(b"c"), memoryview(b"d"), ""])
        await conn.send_many(str(number) for number in range(300))
        received = [await peer.recv() for _ in range(305)]
    assert received == ["a", b"b", b"c", b"d", "", *map(str, range(300))]


async def test_flush_returns_when_everything_is_written(link: Link) -> None:
    async with link(peer={"max_queue": None}) as (conn, peer):
        await conn.send_many(["x" * 1000] * 500)
        await conn.flush()
        assert conn.transport.get_write_buffer_size() == 0
        assert [await peer.recv() for _ in range(500)] == ["x" * 1000] * 500


@pytest.mark.parametrize("how", ["send", "send_many", "flush", "iterable"])
async def test_nothing_can_be_sent_when_the_peer_has_closed(link: Link, how: str) -> None:
    calls: dict[str, Any] = {
        "send": lambda conn: conn.send("late"),
        "send_many": lambda conn: conn.send_many(["late"]),
        "flush": lambda conn: conn.flush(),
        "iterable": lambda conn: conn.send(["la", "te"]),
    }
    async with link() as (conn, peer):
        await peer.close(1001, "going")
        with pytest.raises(ConnectionClosedOK, match="going"):
            await calls[how](conn)


async def test_nothing_can_be_sent_after_close(link: Link) -> None:
    async with link() as (conn, peer):
        await conn.close()
        with pytest.raises(ConnectionClosedOK):
            await conn.send("late")
        with pytest.raises(ConnectionClosedOK):
            await peer.recv()


async def test_nothing_can_be_sent_while_closing(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close())
        assert (await raw.next()).opcode == CLOSE
        sending = start(conn.send("late"))
        await steps(5)
        assert not sending.done()
        assert conn.state is State.CLOSING
        raw.send(FIN | CLOSE, b"\x03\xe8")
        raw.close()
        with pytest.raises(ConnectionClosedOK):
            await sending
        await closing
        assert await raw.rest() == []


async def test_sending_on_a_lost_connection_raises(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.abort()
        await conn.wait_closed()
        with pytest.raises(ConnectionClosedError):
            await conn.send("late")


async def test_messages_sent_as_the_connection_breaks_end_in_an_exception(link: Link) -> None:
    async with link.raw() as (conn, raw):

        async def send() -> None:
            while True:
                await conn.send("x")
                await asyncio.sleep(0)

        raw.abort()
        with pytest.raises(ConnectionClosedError):
            await send()
    assert conn.state is State.CLOSED


async def test_no_event_loop_has_to_warn_of_writes_to_a_socket_that_is_gone(
    socket_link: Link, caplog: pytest.LogCaptureFixture
) -> None:
    async with socket_link(optimize=False) as (conn, _):
        conn.transport.abort()
        for _ in range(20):
            await conn.send("in vain")  # the connection is told of its end by the next iteration of the event loop
        await conn.wait_closed()
    assert not caplog.records


async def test_both_ends_may_send_at_once(link: Link) -> None:
    async with link() as (conn, peer):

        async def send(end: Any, name: str) -> None:
            for number in range(200):
                await end.send(f"{name}{number}")

        async def receive(end: Any) -> list[Any]:
            return [await end.recv() for _ in range(200)]

        _, _, ours, theirs = await asyncio.gather(send(conn, "c"), send(peer, "p"), receive(conn), receive(peer))
    assert ours == [f"p{number}" for number in range(200)]
    assert theirs == [f"c{number}" for number in range(200)]
