"""Messages come out as they went in, whole and in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.transport.base import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK
from support.ends import cancelled, start, steps
from support.links import Link, end_of, rest_of
from support.rawpeer import BINARY, CLOSE, CONT, FIN, PING, PONG, TEXT

EURO = "€".encode()


async def test_text_arrives_as_str_and_binary_as_bytes(link: Link) -> None:
    async with link() as (conn, peer):
        await peer.send("grüße")
        await peer.send(b"\x00\xff")
        text, binary = await conn.recv(), await conn.recv()
    assert (text, binary) == ("grüße", b"\x00\xff")
    assert (type(text), type(binary)) == (str, bytes)


@pytest.mark.parametrize("fragmented", [False, True])
@pytest.mark.parametrize(
    ("opcode", "decode", "expected"),
    [
        (TEXT, None, "1€"),
        (TEXT, True, "1€"),
        (TEXT, False, b"1\xe2\x82\xac"),
        (BINARY, None, b"1\xe2\x82\xac"),
        (BINARY, True, "1€"),
        (BINARY, False, b"1\xe2\x82\xac"),
    ],
)
async def test_decode_says_what_comes_out(
    link: Link, opcode: int, decode: bool | None, expected: Any, fragmented: bool
) -> None:
    async with link.raw() as (conn, raw):
        if fragmented:
            raw.send(opcode, b"1\xe2\x82")
            raw.send(FIN | CONT, b"\xac")
        else:
            raw.send(FIN | opcode, b"1\xe2\x82\xac")
        message = await conn.recv(decode)
    assert message == expected
    assert type(message) is type(expected)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
async def test_messages_of_every_size_arrive(link: Link, size: int) -> None:
    async with link() as (conn, peer):
        await peer.send("x" * size)
        assert await conn.recv() == "x" * size
        await peer.send(b"y" * size)
        assert await conn.recv() == b"y" * size


async def test_a_message_of_eight_megabytes_arrives_when_allowed(link: Link) -> None:
    message = bytes(range(256)) * 32_768
    async with link(max_size=None) as (conn, peer):
        sending = start(peer.send(message))
        assert await conn.recv() == message
        await sending


async def test_messages_arrive_in_order(link: Link) -> None:
    messages: list[str | bytes] = [str(n) if n % 3 else str(n).encode() for n in range(300)]
    async with link() as (conn, peer):

        async def send() -> None:
            for message in messages:
                await peer.send(message)

        sending = start(send())
        assert [await conn.recv() for _ in messages] == messages
        await sending


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_fragments_are_put_together_wherever_characters_are_cut(link: Link, opcode: int) -> None:
    async with link.raw() as (conn, raw):
        raw.send(opcode, b"<" + EURO[:1])
        raw.send(CONT, b"")
        raw.send(CONT, EURO[1:2])
        raw.send(CONT, EURO[2:] + b">")
        raw.send(FIN | CONT, b"")
        raw.send(FIN | TEXT, b"next")
        assert await conn.recv(decode=True) == "<€>"
        assert await conn.recv() == "next"


async def test_a_fragmented_message_without_content_is_empty(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(TEXT)
        raw.send(FIN | CONT)
        raw.send(BINARY)
        raw.send(FIN | CONT)
        assert [await conn.recv(), await conn.recv()] == ["", b""]


async def test_control_frames_may_come_between_fragments(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(TEXT, b"one ")
        raw.send(FIN | PING, b"are you there?")
        raw.send(CONT, b"and ")
        raw.send(FIN | PONG, b"nobody asked")
        raw.send(FIN | CONT, b"two")
        assert await conn.recv() == "one and two"
        assert (await raw.next())[:2] == (FIN | PONG, b"are you there?")


async def test_a_fragment_at_a_time_is_enough(link: Link) -> None:
    async with link.raw() as (conn, raw):
        receiving = start(conn.recv())
        for first in (BINARY, CONT, CONT):
            raw.send(first, b"part ")
            await raw.settle()
            assert not receiving.done()
        raw.send(FIN | CONT, b"end")
        assert await receiving == b"part part part end"


async def test_a_cancelled_recv_takes_nothing(link: Link) -> None:
    async with link() as (conn, peer):
        receiving = start(conn.recv())
        await steps(3)
        assert await cancelled(receiving)
        await peer.send("for the next")
        assert await conn.recv() == "for the next"


async def test_a_recv_that_times_out_takes_nothing(link: Link) -> None:
    async with link() as (conn, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await conn.recv()
        await peer.send("for the next")
        assert await conn.recv() == "for the next"


async def test_a_recv_cancelled_as_its_message_arrives_leaves_it_to_the_next(link: Link) -> None:
    async with link() as (conn, peer):
        for number in range(20):
            receiving = start(conn.recv())
            await steps(2)
            await peer.send(str(number))
            await steps(number % 7)
            gone = await cancelled(receiving)
            assert (await conn.recv() if gone else receiving.result()) == str(number)


async def test_a_recv_cancelled_half_way_leaves_the_whole_message(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(TEXT, b"fr")
        raw.send(CONT, b"ag")
        receiving = start(conn.recv())
        await raw.settle()
        await steps(3)
        assert await cancelled(receiving)
        raw.send(CONT, b"men")
        receiving = start(conn.recv())
        await raw.settle()
        assert await cancelled(receiving)
        raw.send(FIN | CONT, b"ts")
        raw.send(FIN | TEXT, b"after")
        assert [await conn.recv(), await conn.recv()] == ["fragments", "after"]


async def test_only_one_may_receive_at_a_time(link: Link) -> None:
    async with link() as (conn, peer):
        receiving = start(conn.recv())
        await steps(3)
        with pytest.raises(ConcurrencyError, match="cannot call recv while another coroutine"):
            await conn.recv()
        with pytest.raises(ConcurrencyError):
            await anext(conn.recv_streaming())
        await peer.send("for the first")
        assert await receiving == "for the first"


async def test_only_one_may_receive_while_a_message_is_half_here(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(TEXT, b"ha")
        receiving = start(conn.recv())
        await raw.settle()
        await steps(3)
        with pytest.raises(ConcurrencyError):
            await conn.recv()
        raw.send(FIN | CONT, b"lf")
        assert await receiving == "half"


async def test_what_arrived_before_a_closure_can_still_be_received(link: Link) -> None:
    async with link() as (conn, peer):
        for number in range(5):
            await peer.send(str(number))
        await peer.close()
        messages, end = await rest_of(conn)
    assert messages == ["0", "1", "2", "3", "4"]
    assert isinstance(end, ConnectionClosedOK)


async def test_what_arrived_before_the_stream_ended_can_still_be_received(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | TEXT, b"whole")
        raw.send(TEXT, b"fragm")
        raw.send(CONT, b"ents")
        raw.close()
        await conn.wait_closed()
        messages, end = await rest_of(conn)
    assert messages == ["whole"]
    assert isinstance(end, ConnectionClosedError)


async def test_a_message_cut_off_by_the_end_is_not_delivered_later_either(link: Link) -> None:
    async with link.raw() as (conn, raw):
        receiving = start(conn.recv())
        raw.send(TEXT, b"fragm")
        await raw.settle()
        raw.close()
        with pytest.raises(ConnectionClosedError):
            await receiving
        with pytest.raises(ConnectionClosedError):
            await conn.recv()


async def test_a_closed_connection_raises_every_time(link: Link) -> None:
    async with link() as (conn, peer):
        await peer.close(1001, "going")
        for _ in range(3):
            with pytest.raises(ConnectionClosedOK, match="going"):
                await conn.recv()


async def iterate(conn: Any, messages: list[Any]) -> None:
    async for message in conn:
        messages.append(message)  # noqa: PERF401 - those before an exception are kept


async def test_iteration_ends_when_the_connection_closes_in_order(link: Link) -> None:
    async with link() as (conn, peer):
        await peer.send("a")
        await peer.send(b"b")
        closing = start(peer.close())
        assert [message async for message in conn] == ["a", b"b"]
        await closing


@pytest.mark.parametrize("code", [1011, 3000, 4999])
async def test_iteration_raises_when_the_connection_closes_with_an_error(link: Link, code: int) -> None:
    async with link() as (conn, peer):
        await peer.send("a")
        closing = start(peer.close(code, "why"))
        messages: list[Any] = []
        with pytest.raises(ConnectionClosedError) as caught:
            await iterate(conn, messages)
        await closing
    assert messages == ["a"]
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (code, "why")


async def test_iteration_raises_when_the_connection_is_lost(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | TEXT, b"a")
        raw.close()
        messages: list[Any] = []
        with pytest.raises(ConnectionClosedError):
            await iterate(conn, messages)
    assert messages == ["a"]


async def test_text_that_is_not_utf_8_closes_with_1007_when_it_is_received(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | TEXT, b"good")
        raw.send(FIN | TEXT, b"a\xff")
        assert await conn.recv() == "good"
        with pytest.raises(ConnectionClosedError, match=r"1007.*invalid start byte at position 1") as caught:
            await conn.recv()
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)
        close = (await raw.end()).close
    assert (close.code, close.reason) == (1007, "invalid start byte at position 1")


@pytest.mark.parametrize("fragmented", [False, True])
async def test_binary_that_is_not_utf_8_closes_with_1007_when_text_is_wanted(link: Link, fragmented: bool) -> None:
    async with link.raw() as (conn, raw):
        if fragmented:
            raw.send(BINARY, b"\xe2\x82")
            raw.send(FIN | CONT, b"!")
        else:
            raw.send(FIN | BINARY, b"\xe2\x82!")
        with pytest.raises(ConnectionClosedError, match="1007"):
            await conn.recv(decode=True)
        assert (await raw.end()).close.code == 1007


async def test_text_that_is_not_utf_8_can_be_received_as_bytes(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | TEXT, b"a\xff")
        raw.send(TEXT, b"\xc3")
        raw.send(FIN | CONT, b"\x28")
        assert await conn.recv(decode=False) == b"a\xff"
        assert await conn.recv(decode=False) == b"\xc3\x28"
        raw.send(FIN | TEXT, b"still open")
        assert await conn.recv() == "still open"


@pytest.mark.parametrize("frames", [4096, 4097])
async def test_a_message_has_at_most_4096_fragments(link: Link, frames: int) -> None:
    async with link.raw() as (conn, raw):
        raw.write(raw.frame(TEXT, b"x") + raw.frame(CONT, b"x") * (frames - 2) + raw.frame(FIN | CONT, b"x"))
        if frames == 4096:
            assert await conn.recv() == "x" * frames
        else:
            assert "1009 (message too big) too many fragments" in str(await end_of(conn))
            assert (await raw.end()).close.code == 1009


async def test_messages_behind_the_peers_close_frame_are_ignored(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.write(
            raw.frame(FIN | TEXT, b"before") + raw.frame(FIN | CLOSE, b"\x03\xe8") + raw.frame(FIN | TEXT, b"after")
        )
        messages, end = await rest_of(conn)
    assert messages == ["before"]
    assert isinstance(end, ConnectionClosedOK)
