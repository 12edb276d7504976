"""Pings at intervals find out whether the peer is alive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.transport.base import ConnectionClosedError, State
from support.ends import start
from support.links import Link, end_of, squeeze
from support.rawpeer import BINARY, FIN, PING, PONG, RawPeer

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])  # these tests wait
on_both_loops = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


async def answer_pings(raw: RawPeer, number: int) -> None:
    for _ in range(number):
        seen = await raw.next()
        assert seen.first == FIN | PING
        raw.send(FIN | PONG, seen.payload)


@on_both_loops
async def test_pings_go_at_every_interval(link: Link) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    async with link.raw(ping_interval=0.03, ping_timeout=5) as (conn, raw):
        await answer_pings(raw, 3)
        assert loop.time() - before >= 0.08  # uvloop's clock counts milliseconds
        await raw.settle()
        assert 0 <= conn.latency < 5
        assert conn.state is State.OPEN


@on_both_loops
async def test_every_ping_has_a_payload_of_its_own(link: Link) -> None:
    payloads = set()
    async with link.raw(ping_interval=0.01, ping_timeout=5) as (_conn, raw):
        for _ in range(4):
            seen = await raw.next()
            payloads.add(seen.payload)
            raw.send(FIN | PONG, seen.payload)
    assert len(payloads) == 4


@on_both_loops
async def test_a_peer_that_does_not_answer_is_given_up(link: Link) -> None:
    async with link.raw(ping_interval=0.02, ping_timeout=0.05) as (conn, raw):
        error = await end_of(conn)
        frames = await raw.rest()
    assert isinstance(error, ConnectionClosedError)
    assert "sent 1011 (internal error) keepalive ping timeout" in str(error)
    assert frames[0].first == FIN | PING
    assert (frames[-1].close.code, frames[-1].close.reason) == (1011, "keepalive ping timeout")
    assert (conn.close_code, conn.close_reason) == (1006, "")


async def test_who_waits_is_told_when_the_peer_is_given_up(link: Link) -> None:
    async with link.raw(ping_interval=0.02, ping_timeout=0.05) as (conn, _raw):
        waiting: list[Any] = [start(conn.recv()), start(conn.wait_closed()), await conn.ping("mine")]
        await asyncio.wait(waiting)
        for waiter in (waiting[0], waiting[2]):
            with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
                await waiter


async def test_a_peer_that_does_not_even_close_is_given_up_all_the_same(link: Link) -> None:
    async with link.raw(ping_interval=0.02, ping_timeout=0.05, close_timeout=0.05) as (conn, raw):
        raw.transport.pause_reading()
        error = await end_of(conn)
    assert isinstance(error, ConnectionClosedError)
    assert conn.state is State.CLOSED


async def test_a_peer_that_answers_lives(link: Link) -> None:
    async with link(ping_interval=0.02, ping_timeout=5) as (conn, peer):
        await asyncio.sleep(0.2)
        await conn.send("still open")
        assert await peer.recv() == "still open"


@on_both_loops
async def test_a_later_pong_is_answer_enough(link: Link) -> None:
    async with link.raw(ping_interval=0.02, ping_timeout=0.2) as (conn, raw):
        await raw.next()
        await conn.ping("later")
        await raw.next()
        raw.send(FIN | PONG, b"later")
        assert (await raw.next()).first == FIN | PING
        assert conn.state is State.OPEN


async def test_without_a_timeout_a_silent_peer_lives(link: Link) -> None:
    async with link.raw(ping_interval=0.02, ping_timeout=None) as (conn, raw):
        for _ in range(4):
            assert (await raw.next()).first == FIN | PING
        raw.send(FIN | BINARY, b"alive")
        assert await conn.recv() == b"alive"
        assert conn.state is State.OPEN


async def test_without_an_interval_no_pings_go(link: Link) -> None:
    async with link.raw(ping_interval=None, ping_timeout=0.01) as (conn, raw):
        await asyncio.sleep(0.1)
        await conn.send("first")
        assert (await raw.next()).payload == b"first"


async def test_no_pings_go_once_the_connection_closes(link: Link) -> None:
    async with link.raw(ping_interval=0.05, ping_timeout=0.05, close_timeout=5) as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close())
        assert (await raw.next()).close.code == 1000
        raw.close()
        await closing
        await asyncio.sleep(0.1)
        assert await raw.rest() == []


async def test_a_peer_is_not_given_up_while_nobody_receives_what_it_sent(link: Link) -> None:
    async with link(ping_interval=0.05, ping_timeout=0.05, max_queue=4, peer={"max_queue": None}) as (conn, peer):
        squeeze(conn, peer)
        messages = [bytes([number]) * 100_000 for number in range(60)]

        async def send() -> None:
            for message in messages:
                await peer.send(message)

        sending = start(send())
        await asyncio.sleep(0.6)
        assert not sending.done()
        assert conn.state is State.OPEN
        assert [await conn.recv() for _ in messages] == messages
        await sending
