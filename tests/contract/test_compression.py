"""permessage-deflate, where it is asked for by name; an opening handshake negotiates it, which memory has not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from websockets.frames import Frame, Opcode

from penstock.transport.base import ConnectionClosedError
from support.ends import start
from support.links import Link, end_of
from support.rawpeer import BINARY, CONT, FIN, PING, RSV1, TEXT, RawPeer, Seen

DEFLATE: dict[str, Any] = {"compression": "deflate", "peer": {"compression": "deflate"}}
NOISE = random.Random(1).randbytes(1000).hex()


def deflated(raw: RawPeer, opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A compressed frame as the peer makes it."""
    made = raw.deflate.encode(Frame(Opcode(opcode), payload, fin))
    first = opcode | (FIN if made.fin else 0) | (RSV1 if made.rsv1 else 0)
    return raw.frame(first, bytes(made.data))


def inflated(raw: RawPeer, seen: Seen) -> bytes:
    """The payload of a compressed frame that came."""
    return bytes(raw.deflate.decode(Frame(Opcode(seen.opcode), seen.payload, seen.fin, bool(seen.first & RSV1))).data)


@pytest.mark.parametrize("optimize", [True, False])
async def test_messages_go_both_ways(socket_link: Link, optimize: bool) -> None:
    messages: list[Any] = ["", b"", "é" * 1000, b"\x00" * 70_000, NOISE, *map(str, range(100))]
    async with socket_link(**DEFLATE, optimize=optimize) as (conn, peer):

        async def echo() -> None:
            async for message in peer:
                await peer.send(message)

        echoing = start(echo())
        for message in messages:
            await conn.send(message)
        assert [await conn.recv() for _ in messages] == messages
        await conn.close()
        await echoing


async def test_what_is_sent_is_compressed_and_the_first_reserved_bit_says_so(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        await conn.send("x" * 10_000)
        seen = await raw.next()
        assert seen.first == FIN | RSV1 | TEXT
        assert len(seen.payload) < 100
        assert inflated(raw, seen) == b"x" * 10_000


async def test_messages_sent_together_are_compressed_in_their_order(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        for number in range(100):
            await conn.send(f"{NOISE[number:]}{number}")
        for number in range(100):
            assert inflated(raw, await raw.next()) == f"{NOISE[number:]}{number}".encode()


async def test_what_was_sent_before_helps_to_compress_what_is_sent_after(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        await conn.send(NOISE)
        await conn.send(NOISE)
        first, second = await raw.next(), await raw.next()
    assert len(second.payload) < len(first.payload) / 10


async def test_what_was_received_before_helps_to_inflate_what_comes_after(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        for number in range(100):
            raw.write(deflated(raw, TEXT, f"{NOISE}{number}".encode()))
            raw.send(FIN | PING)
        assert [await conn.recv() for _ in range(100)] == [f"{NOISE}{number}" for number in range(100)]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
async def test_a_compressed_message_may_come_in_fragments(socket_link: Link, opcode: int) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        for _ in range(2):
            raw.write(deflated(raw, opcode, b"a" * 1000, fin=False))
            raw.send(FIN | PING)
            raw.write(deflated(raw, CONT, b"b" * 1000, fin=False))
            raw.write(deflated(raw, CONT, b"", fin=True))
            assert await conn.recv(decode=False) == b"a" * 1000 + b"b" * 1000


async def test_fragments_are_compressed_as_one_message(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        await conn.send(["a" * 1000, "b" * 1000])
        await conn.send("whole")
        frames = [await raw.next() for _ in range(4)]
    assert [seen.first for seen in frames] == [RSV1 | TEXT, CONT, FIN | CONT, FIN | RSV1 | TEXT]
    assert [inflated(raw, seen) for seen in frames] == [b"a" * 1000, b"b" * 1000, b"", b"whole"]


async def test_a_message_need_not_be_compressed(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        raw.send(FIN | TEXT, b"plain")
        raw.write(deflated(raw, TEXT, b"compressed"))
        raw.send(TEXT, b"pl")
        raw.send(FIN | CONT, b"ain")
        assert [await conn.recv() for _ in range(3)] == ["plain", "compressed", "plain"]


async def test_compressed_text_that_is_not_utf_8_closes_with_1007(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        raw.write(deflated(raw, TEXT, b"a\xff"))
        with pytest.raises(ConnectionClosedError, match="1007"):
            await conn.recv()
        assert (await raw.end()).close.code == 1007


async def test_pings_are_not_compressed(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        await conn.ping(b"x" * 100)
        assert (await raw.next())[:2] == (FIN | PING, b"x" * 100)


async def test_a_small_frame_that_inflates_beyond_max_size_closes_with_1009(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True, max_size=10_000) as (conn, raw):
        raw.write(deflated(raw, BINARY, b"x" * 10_000))
        assert len(await conn.recv()) == 10_000
        bomb = deflated(raw, BINARY, b"\x00" * 8_000_000)
        assert len(bomb) < 10_000
        raw.write(bomb)
        error = await end_of(conn)
        assert (await raw.end()).close.code == 1009
    assert "1009 (message too big)" in str(error)
    assert "10000" in str(error)


async def test_fragments_that_inflate_beyond_max_size_close_with_1009(socket_link: Link) -> None:
    async with socket_link.raw(deflate=True, max_size=10_000) as (conn, raw):
        raw.write(deflated(raw, BINARY, b"x" * 6000, fin=False))
        raw.write(deflated(raw, CONT, b"x" * 6000, fin=True))
        assert "1009 (message too big)" in str(await end_of(conn))
        assert (await raw.end()).close.code == 1009


@pytest.mark.parametrize(
    ("first", "payload"),
    [
        (FIN | RSV1 | TEXT, b"\xff\xff\xff\xff"),
        (RSV1 | BINARY, b"this was not compressed"),
        (FIN | RSV1 | PING, b"x"),
        (FIN | RSV1 | CONT, b"x"),
    ],
    ids=["garbage", "fragment", "ping", "continuation"],
)
async def test_what_cannot_be_inflated_closes_with_1002(socket_link: Link, first: int, payload: bytes) -> None:
    async with socket_link.raw(deflate=True) as (conn, raw):
        raw.write(deflated(raw, TEXT, b"good"))
        raw.send(first, payload)
        assert await conn.recv() == "good"
        assert "1002 (protocol error)" in str(await end_of(conn))
        assert (await raw.end()).close.code == 1002


async def test_nothing_is_compressed_unless_asked_for(socket_link: Link) -> None:
    async with socket_link(peer={"compression": "deflate"}) as (conn, peer):
        assert peer.protocol.extensions == []
        assert "Sec-WebSocket-Extensions" not in conn.response.headers
        await conn.send("plain")
        assert await peer.recv() == "plain"


async def test_nothing_is_compressed_when_the_peer_does_not_want_it(socket_link: Link) -> None:
    async with socket_link.raw(compression="deflate") as (conn, raw):
        await conn.send("x" * 1000)
        assert (await raw.next())[:2] == (FIN | TEXT, b"x" * 1000)
        raw.send(FIN | TEXT, b"plain")
        assert await conn.recv() == "plain"
