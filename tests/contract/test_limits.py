"""Neither a large message nor a slow reader takes all memory."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from penstock.transport.base import ConnectionClosedError, ConnectionClosedOK, State
from support.ends import cancelled, start
from support.links import Link, end_of, rest_of, squeeze
from support.rawpeer import BINARY, CONT, FIN, PING, PONG, TEXT, RawPeer

MESSAGES = [bytes([number]) * 100_000 for number in range(100)]


async def standstill(end: Any) -> int:
    """Wait until what this end has written moves no more: how many bytes are left.

    A kernel that acknowledges late makes pauses of 40 ms.
    """
    left, still = -1, 0
    while still < 6:
        await asyncio.sleep(0.01)
        size = end.transport.get_write_buffer_size()
        still = still + 1 if size == left else 0
        left = size
    return left


def flood(raw: RawPeer) -> None:
    raw.write(b"".join(raw.frame(FIN | BINARY, message) for message in MESSAGES))


@pytest.mark.parametrize("size", [0, 125, 126, 70_000])
async def test_a_message_of_max_size_arrives(link: Link, size: int) -> None:
    async with link.raw(max_size=size) as (conn, raw):
        raw.send(FIN | BINARY, b"x" * size)
        assert await conn.recv() == b"x" * size
        if size:
            raw.send(BINARY, b"x" * (size - 1))
            raw.send(CONT, b"x")
            raw.send(FIN | CONT)
            assert await conn.recv() == b"x" * size


@pytest.mark.parametrize("size", [0, 125, 70_000])
async def test_a_message_beyond_max_size_closes_with_1009_and_says_both_sizes(link: Link, size: int) -> None:
    async with link.raw(max_size=size) as (conn, raw):
        raw.send(FIN | BINARY, b"x" * (size + 1))
        messages, error = await rest_of(conn)
        close = (await raw.end()).close
    assert messages == []
    assert isinstance(error, ConnectionClosedError)
    assert "sent 1009 (message too big)" in str(error)
    assert close.code == 1009
    for told in (str(error), close.reason):
        assert {str(size), str(size + 1)} <= set(re.findall(r"\d+", told))


async def test_messages_before_the_one_that_is_too_big_are_delivered(link: Link) -> None:
    async with link.raw(max_size=10) as (conn, raw):
        raw.write(raw.frame(FIN | TEXT, b"good") + raw.frame(FIN | TEXT, b"x" * 11) + raw.frame(FIN | TEXT, b"late"))
        messages, error = await rest_of(conn)
        assert (await raw.end()).close.code == 1009
    assert messages == ["good"]
    assert isinstance(error, ConnectionClosedError)


async def test_a_size_is_refused_before_its_bytes_come(link: Link) -> None:
    async with link.raw(max_size=1000) as (conn, raw):
        raw.write(raw.frame(FIN | BINARY, b"x" * 1_000_000)[:20])
        assert "1000000" in str(await end_of(conn))
        assert (await raw.end()).close.code == 1009


async def test_fragments_count_together(link: Link) -> None:
    async with link.raw(max_size=10) as (conn, raw):
        raw.send(BINARY, b"x" * 6)
        raw.send(FIN | PING, b"y")
        raw.send(CONT, b"x" * 3)
        raw.send(CONT, b"x" * 2)
        error = await end_of(conn)
        assert (await raw.end()).close.code == 1009
    assert "2 bytes" in str(error)
    assert "9 bytes" in str(error)
    assert "limit of 10 bytes" in str(error)


@pytest.mark.parametrize(
    ("limits", "fragments", "fits"),
    [
        ((10, None), (6, 4), True),
        ((10, None), (6, 5), False),
        ((10, None), (11,), False),
        ((None, 6), (6, 6, 6, 6), True),
        ((None, 6), (6, 7), False),
        ((None, 6), (7,), False),
        ((10, 6), (6, 4), True),
        ((10, 6), (6, 5), False),
        ((10, 6), (3, 7), False),
        ((None, None), (2**20, 2**20), True),
    ],
)
async def test_a_message_and_its_fragments_have_limits_of_their_own(
    link: Link, limits: tuple[int | None, int | None], fragments: tuple[int, ...], fits: bool
) -> None:
    async with link.raw(max_size=limits) as (conn, raw):
        for number, size in enumerate(fragments):
            first = CONT if number else BINARY
            raw.send(first | (FIN if number == len(fragments) - 1 else 0), b"x" * size)
        if fits:
            assert len(await conn.recv()) == sum(fragments)
        else:
            assert "1009" in str(await end_of(conn))
            assert (await raw.end()).close.code == 1009


async def test_the_default_limit_is_a_mebibyte(link: Link) -> None:
    async with link() as (conn, peer):
        sending = start(peer.send(b"x" * 2**20))
        assert len(await conn.recv()) == 2**20
        await sending
        sending = start(peer.send(b"x" * (2**20 + 1)))
        assert "1009" in str(await end_of(conn))
        assert "1009" in str(await end_of(peer))
        await asyncio.wait([sending])
        assert sending.exception() is None or isinstance(sending.exception(), ConnectionClosedError)


async def test_reading_pauses_while_nobody_receives_and_nothing_is_lost(link: Link) -> None:
    async with link.raw(max_queue=4) as (conn, raw):
        squeeze(conn, raw)
        flood(raw)
        assert await standstill(raw) > 1_000_000
        assert conn.state is State.OPEN
        assert [await conn.recv() for _ in MESSAGES] == MESSAGES
        assert raw.transport.get_write_buffer_size() == 0


@pytest.mark.parametrize("max_queue", [0, 1, (8, 0), (8, 8), (None, 2)])
async def test_the_queue_may_have_any_bounds(link: Link, max_queue: Any) -> None:
    async with link.raw(max_queue=max_queue) as (conn, raw):
        flood(raw)
        assert [await conn.recv() for _ in MESSAGES] == MESSAGES


async def test_reading_goes_on_for_a_fragmented_message_beyond_the_queue(link: Link) -> None:
    async with link.raw(max_queue=2, max_size=None) as (conn, raw):
        raw.send(BINARY, b"0" * 100_000)
        for _ in range(98):
            raw.send(CONT, b"0" * 100_000)
        raw.send(FIN | CONT, b"0" * 100_000)
        assert await conn.recv() == b"0" * 10_000_000


async def test_without_a_bound_reading_never_pauses(link: Link) -> None:
    async with link.raw(max_queue=None) as (conn, raw):
        flood(raw)
        raw.send(FIN | PING)
        await raw.next()
        assert [await conn.recv() for _ in MESSAGES] == MESSAGES


async def test_pings_are_answered_when_reading_goes_on(link: Link) -> None:
    async with link.raw(max_queue=4) as (conn, raw):
        flood(raw)
        raw.send(FIN | PING, b"behind all that")
        for message in MESSAGES:
            assert await conn.recv() == message
        assert (await raw.next()).payload == b"behind all that"


async def test_a_paused_connection_can_be_closed(link: Link) -> None:
    async with link(max_queue=2) as (conn, peer):
        squeeze(conn, peer)

        async def send() -> None:
            for message in MESSAGES:
                await peer.send(message)

        sending = start(send())
        await standstill(peer)
        receiving = start(peer.recv())
        await conn.close(1001, "enough")
        with pytest.raises(ConnectionClosedOK, match="enough"):
            await receiving
        with pytest.raises(ConnectionClosedOK):
            await sending
        assert (conn.state, conn.close_code) == (State.CLOSED, 1001)


async def test_a_paused_connection_notices_its_end_when_reading_goes_on(link: Link) -> None:
    async with link.raw(max_queue=4) as (conn, raw):
        flood(raw)
        raw.close()
        messages, error = await rest_of(conn)
    assert messages == MESSAGES
    assert isinstance(error, ConnectionClosedError)


@pytest.mark.parametrize("write_limit", [0, 1000, (100_000, 0)])
async def test_send_waits_while_the_peer_does_not_read(link: Link, write_limit: Any) -> None:
    async with link(write_limit=write_limit, peer={"max_queue": None}) as (conn, peer):
        squeeze(conn, peer)
        peer.transport.pause_reading()

        async def send() -> None:
            for message in MESSAGES:
                await conn.send(message)

        sending = start(send())
        await standstill(conn)
        assert not sending.done()
        assert conn.transport.get_write_buffer_size() < 2_000_000
        peer.transport.resume_reading()
        assert [await peer.recv() for _ in MESSAGES] == MESSAGES
        await sending


async def test_flush_waits_while_the_peer_does_not_read(link: Link) -> None:
    async with link(peer={"max_queue": None}) as (conn, peer):
        squeeze(conn, peer)
        peer.transport.pause_reading()
        sending = start(conn.send_many(MESSAGES[:40]))
        await standstill(conn)
        flushing = start(conn.flush())
        await standstill(conn)
        assert not flushing.done()
        peer.transport.resume_reading()
        assert [await peer.recv() for _ in range(40)] == MESSAGES[:40]
        await asyncio.gather(sending, flushing)
        assert conn.transport.get_write_buffer_size() == 0


async def test_who_waits_to_send_is_told_when_the_connection_is_lost(link: Link) -> None:
    async with link.raw() as (conn, raw):
        squeeze(conn, raw)
        raw.transport.pause_reading()
        sending = start(conn.send_many(MESSAGES))
        await standstill(conn)
        assert not sending.done()
        raw.abort()
        with pytest.raises(ConnectionClosedError):
            await sending


async def test_close_gives_up_what_the_peer_does_not_read(link: Link) -> None:
    async with link.raw(close_timeout=0.1) as (conn, raw):
        squeeze(conn, raw)
        raw.transport.pause_reading()
        sending = start(conn.send_many(MESSAGES))
        await standstill(conn)
        await conn.close()
        with pytest.raises(ConnectionClosedError):
            await sending
        assert (conn.state, conn.close_code) == (State.CLOSED, 1006)


async def test_a_close_that_is_cancelled_while_the_peer_does_not_read_drops_the_connection(link: Link) -> None:
    async with link.raw(close_timeout=0.3) as (conn, raw):
        squeeze(conn, raw)
        raw.transport.pause_reading()
        sending = start(conn.send_many(MESSAGES))
        await standstill(conn)
        closing = start(conn.close())
        await standstill(conn)
        assert conn.state is State.OPEN
        assert await cancelled(closing)
        await conn.wait_closed()
        with pytest.raises(ConnectionClosedError):
            await sending
        assert conn.close_code == 1006


async def test_a_ping_waits_while_the_peer_does_not_read(link: Link) -> None:
    async with link.raw() as (conn, raw):
        squeeze(conn, raw)
        raw.transport.pause_reading()
        sending = start(conn.send_many(MESSAGES))
        await standstill(conn)
        pinging = start(conn.ping(b"behind"))
        await standstill(conn)
        assert not pinging.done()
        raw.transport.resume_reading()
        while (await raw.next()).payload != b"behind":
            pass
        raw.send(FIN | PONG, b"behind")
        assert await (await pinging) >= 0
        await sending


async def test_the_last_ping_that_came_while_the_peer_did_not_read_is_answered_when_it_does(link: Link) -> None:
    async with link.raw() as (conn, raw):
        squeeze(conn, raw)
        raw.transport.pause_reading()
        sending = start(conn.send_many(MESSAGES))
        await standstill(conn)
        for number in range(5):
            raw.send(FIN | PING, b"%d" % number)
        raw.send(FIN | TEXT, b"behind the pings")
        assert await conn.recv() == "behind the pings"
        raw.transport.resume_reading()
        await sending
        await conn.ping(b"last")
        frames = [await raw.next()]
        while frames[-1].payload != b"last":
            frames.append(await raw.next())
    assert [seen.payload for seen in frames if seen.opcode == BINARY] == MESSAGES
    assert [seen.payload for seen in frames if seen.opcode == PONG][-1] == b"4"
