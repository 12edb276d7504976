"""A message can be received frame by frame."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.transport.base import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK
from support.ends import cancelled, start, steps
from support.links import Link
from support.rawpeer import BINARY, CONT, FIN, PING, TEXT


async def pieces(conn: Any, decode: bool | None = None) -> list[Any]:
    return [piece async for piece in conn.recv_streaming(decode)]


@pytest.mark.parametrize(
    ("opcode", "decode", "expected"),
    [
        (TEXT, None, ["a", "b", ""]),
        (TEXT, True, ["a", "b", ""]),
        (TEXT, False, [b"a", b"b", b""]),
        (BINARY, None, [b"a", b"b", b""]),
        (BINARY, True, ["a", "b", ""]),
        (BINARY, False, [b"a", b"b", b""]),
    ],
)
async def test_every_fragment_comes_by_itself(
    link: Link, opcode: int, decode: bool | None, expected: list[Any]
) -> None:
    async with link.raw() as (conn, raw):
        raw.send(opcode, b"a")
        raw.send(CONT, b"b")
        raw.send(FIN | CONT)
        received = await pieces(conn, decode)
    assert received == expected
    assert {type(piece) for piece in received} == {type(expected[0])}


@pytest.mark.parametrize(
    ("opcode", "decode", "expected"),
    [
        (TEXT, None, "1€"),
        (TEXT, False, b"1\xe2\x82\xac"),
        (BINARY, None, b"1\xe2\x82\xac"),
        (BINARY, True, "1€"),
    ],
)
async def test_a_message_in_one_frame_is_one_piece(link: Link, opcode: int, decode: bool | None, expected: Any) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | opcode, b"1\xe2\x82\xac")
        raw.send(FIN | opcode, b"next")
        assert await pieces(conn, decode) == [expected]
        assert await conn.recv(decode=False) == b"next"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_character_comes_with_its_last_byte(link: Link, opcode: int) -> None:
    async with link.raw() as (conn, raw):
        for first, payload in (
            (opcode, b"<\xe2"),
            (CONT, b"\x82"),
            (CONT, b"\xac>\xf0\x9f"),
            (FIN | CONT, b"\x98\x80"),
        ):
            raw.send(first, payload)
        assert await pieces(conn, decode=True) == ["<", "", "€>", "😀"]


async def test_fragments_do_not_wait_for_the_end_of_their_message(link: Link) -> None:
    async with link.raw() as (conn, raw):
        stream = conn.recv_streaming()
        raw.send(TEXT, b"first")
        assert await anext(stream) == "first"
        following = start(anext(stream))
        await raw.settle()
        assert not following.done()
        raw.send(CONT, b"second")
        assert await following == "second"
        raw.send(FIN | CONT, b"last")
        assert await anext(stream) == "last"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


async def test_messages_can_be_streamed_one_after_the_other_and_received_between(link: Link) -> None:
    async with link.raw() as (conn, raw):
        for _ in range(3):
            raw.send(TEXT, b"a")
            raw.send(FIN | PING)
            raw.send(FIN | CONT, b"b")
        assert await pieces(conn) == ["a", "b"]
        assert await conn.recv() == "ab"
        assert await pieces(conn) == ["a", "b"]


async def test_cancelling_before_the_first_fragment_takes_nothing(link: Link) -> None:
    async with link.raw() as (conn, raw):
        streaming = start(pieces(conn))
        await steps(3)
        assert await cancelled(streaming)
        raw.send(TEXT, b"for ")
        raw.send(FIN | CONT, b"the next")
        assert await pieces(conn) == ["for ", "the next"]


async def test_a_stream_used_in_part_makes_receiving_impossible_and_closing_not(link: Link) -> None:
    async with link.raw() as (conn, raw):
        stream = conn.recv_streaming()
        raw.send(TEXT, b"first")
        raw.send(FIN | CONT, b"last")
        assert await anext(stream) == "first"
        await stream.aclose()  # type: ignore[attr-defined]
        with pytest.raises(ConcurrencyError):
            await conn.recv()
        with pytest.raises(ConcurrencyError, match="cannot call recv_streaming while another coroutine"):
            await pieces(conn)
        answering = raw.answer_close()
        await conn.close()
        assert (await answering).close.code == 1000


async def test_a_stream_cancelled_half_way_makes_receiving_impossible(link: Link) -> None:
    async with link.raw() as (conn, raw):
        streaming = start(pieces(conn))
        raw.send(BINARY, b"first")
        await raw.settle()
        await steps(3)
        assert await cancelled(streaming)
        with pytest.raises(ConcurrencyError):
            await conn.recv()


@pytest.mark.parametrize("half_way", [False, True])
async def test_only_one_may_receive_while_a_message_is_streamed(link: Link, half_way: bool) -> None:
    async with link.raw() as (conn, raw):
        streaming = start(pieces(conn))
        await steps(3)
        if half_way:
            raw.send(TEXT, b"a")
            await raw.settle()
            await steps(3)
        with pytest.raises(ConcurrencyError):
            await conn.recv()
        with pytest.raises(ConcurrencyError):
            await pieces(conn)
        raw.send(CONT if half_way else TEXT, b"b")
        raw.send(FIN | CONT, b"c")
        assert await streaming == (["a", "b", "c"] if half_way else ["b", "c"])


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_fragment_that_is_not_utf_8_closes_with_1007(link: Link, opcode: int) -> None:
    async with link.raw() as (conn, raw):
        stream = conn.recv_streaming(decode=True)
        raw.send(opcode, b"good")
        raw.send(CONT, b"\xff")
        assert await anext(stream) == "good"
        with pytest.raises(ConnectionClosedError, match="1007"):
            await anext(stream)
        assert (await raw.end()).close.code == 1007


async def test_a_whole_text_that_is_not_utf_8_closes_with_1007_unless_bytes_are_wanted(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | TEXT, b"\xff")
        raw.send(FIN | TEXT, b"\xff")
        assert await pieces(conn, decode=False) == [b"\xff"]
        with pytest.raises(ConnectionClosedError, match="1007"):
            await pieces(conn)
        assert (await raw.end()).close.code == 1007


async def test_text_that_ends_within_a_character_closes_with_1007(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(TEXT, b"\xe2")
        raw.send(FIN | CONT, b"\x82")
        with pytest.raises(ConnectionClosedError, match="1007"):
            await pieces(conn)
        assert (await raw.end()).close.code == 1007


async def test_fragments_are_delivered_before_the_end_of_the_connection_is(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(TEXT, b"a")
        raw.send(CONT, b"b")
        raw.close()
        stream = conn.recv_streaming()
        assert [await anext(stream), await anext(stream)] == ["a", "b"]
        with pytest.raises(ConnectionClosedError):
            await anext(stream)


async def test_a_stream_that_waits_is_told_when_the_connection_closes(link: Link) -> None:
    async with link() as (conn, peer):
        streaming = start(pieces(conn))
        await steps(3)
        await peer.close()
        with pytest.raises(ConnectionClosedOK):
            await streaming


async def test_a_closed_connection_has_nothing_to_stream(link: Link) -> None:
    async with link() as (conn, peer):
        await peer.send("last")
        await peer.close()
        assert await pieces(conn) == ["last"]
        with pytest.raises(ConnectionClosedOK):
            await pieces(conn)


async def test_a_stream_that_times_out_at_its_start_takes_nothing(link: Link) -> None:
    async with link() as (conn, peer):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await pieces(conn)
        await peer.send(["for ", "the next"])
        assert await pieces(conn) == ["for ", "the next", ""]
