"""What has arrived can be received at once."""

from __future__ import annotations

import asyncio

import pytest

from penstock.transport.base import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK
from support.ends import cancelled, start, steps
from support.links import Link
from support.rawpeer import BINARY, CLOSE, CONT, FIN, TEXT, RawPeer


async def arrived(raw: RawPeer, number: int) -> list[str]:
    """Send so many messages, which are here when this returns."""
    raw.write(b"".join(raw.frame(FIN | TEXT, str(n).encode()) for n in range(number)))
    await raw.settle()
    return [str(n) for n in range(number)]


async def test_all_that_is_here_comes_at_once(link: Link) -> None:
    async with link.raw() as (conn, raw):
        messages = await arrived(raw, 12)
        assert await conn.recv_many() == messages


async def test_text_and_binary_come_as_they_are(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.write(raw.frame(FIN | TEXT, "é".encode()) + raw.frame(FIN | BINARY, b"\xff") + raw.frame(FIN | TEXT))
        await raw.settle()
        assert await conn.recv_many() == ["é", b"\xff", ""]


@pytest.mark.parametrize("most", [1, 2, 5, 11])
async def test_no_more_come_than_wanted_and_the_rest_stays(link: Link, most: int) -> None:
    async with link.raw() as (conn, raw):
        messages = await arrived(raw, 11)
        parts = []
        while sum(map(len, parts)) < 11:
            parts.append(await conn.recv_many(most))
    assert [message for part in parts for message in part] == messages
    assert {len(part) for part in parts[:-1]} <= {most}
    assert len(parts[0]) == most


async def test_fewer_than_wanted_are_enough(link: Link) -> None:
    async with link.raw() as (conn, raw):
        messages = await arrived(raw, 3)
        assert await conn.recv_many(max=100) == messages


async def test_it_waits_for_the_first_alone(link: Link) -> None:
    async with link.raw() as (conn, raw):
        receiving = start(conn.recv_many(5))
        await steps(3)
        assert not receiving.done()
        raw.send(FIN | TEXT, b"alone")
        assert await receiving == ["alone"]


async def test_nothing_is_lost_or_reordered_in_a_stream(link: Link) -> None:
    async with link() as (conn, peer):

        async def send() -> None:
            for number in range(500):
                await peer.send(str(number))

        sending = start(send())
        received: list[object] = []
        while len(received) < 500:
            received += await conn.recv_many(7)
        await sending
    assert received == [str(number) for number in range(500)]


async def test_a_fragmented_message_comes_whole_and_does_not_keep_others_waiting(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | TEXT, b"1")
        raw.send(TEXT, b"fr")
        raw.send(CONT, b"agme")
        await raw.settle()
        assert await conn.recv_many() == ["1"]
        receiving = start(conn.recv_many())
        await steps(3)
        assert not receiving.done()
        raw.send(FIN | CONT, b"nts")
        assert (await receiving)[0] == "fragments"


async def test_a_message_that_begins_with_fragments_is_a_message_like_others(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(BINARY, b"a")
        raw.send(FIN | CONT, b"b")
        raw.send(FIN | TEXT, b"2")
        raw.send(TEXT, b"3")
        raw.send(FIN | CONT, b"3")
        await raw.settle()
        received: list[object] = []
        while len(received) < 3:
            received += await conn.recv_many()
    assert received == [b"ab", "2", "33"]


@pytest.mark.parametrize("most", [0, -1])
async def test_at_least_one_has_to_be_wanted(link: Link, most: int) -> None:
    async with link() as (conn, peer):
        with pytest.raises(ValueError, match=f"max={most}"):
            await conn.recv_many(most)
        await peer.send("still here")
        assert await conn.recv_many() == ["still here"]


async def test_a_cancelled_call_takes_nothing(link: Link) -> None:
    async with link.raw() as (conn, raw):
        receiving = start(conn.recv_many())
        await steps(3)
        assert await cancelled(receiving)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await conn.recv_many()
        messages = await arrived(raw, 2)
        assert await conn.recv_many() == messages


async def test_only_one_may_receive_at_a_time(link: Link) -> None:
    async with link() as (conn, peer):
        receiving = start(conn.recv_many())
        await steps(3)
        for other in (conn.recv, conn.recv_many):
            with pytest.raises(ConcurrencyError):
                await other()
        await peer.send("for the first")
        assert await receiving == ["for the first"]


async def test_what_arrived_before_a_closure_comes_before_its_exception(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.write(raw.frame(FIN | TEXT, b"1") + raw.frame(FIN | TEXT, b"2") + raw.frame(FIN | CLOSE, b"\x03\xe8"))
        await raw.next()
        assert await conn.recv_many() == ["1", "2"]
        raw.close()
        with pytest.raises(ConnectionClosedOK):
            await conn.recv_many()


async def test_text_that_is_not_utf_8_closes_with_1007_behind_the_good_ones(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.write(raw.frame(FIN | TEXT, b"good") + raw.frame(FIN | TEXT, b"\xff") + raw.frame(FIN | TEXT, b"late"))
        await raw.settle()
        received = await conn.recv_many()
        assert received == ["good"]
        with pytest.raises(ConnectionClosedError, match="1007"):
            await conn.recv_many()
