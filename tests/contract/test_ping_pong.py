"""Pings are answered, and answers are told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from penstock.transport.base import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, ProtocolError
from support.ends import start, steps
from support.links import Link, end_of
from support.rawpeer import CLOSE, FIN, PING, PONG, TEXT

PAYLOADS = ["né", b"\xff\x00", bytearray(b"bytes"), memoryview(b"view"), "", b"", b"x" * 125]


def as_bytes(data: Any) -> bytes:
    return data.encode() if isinstance(data, str) else bytes(data)


async def test_a_ping_is_answered_with_its_latency(link: Link) -> None:
    async with link() as (conn, _peer):
        assert conn.latency == 0
        pong = await conn.ping()
        latency = await pong
        assert 0 <= latency < 5
        assert conn.latency == latency


async def test_latency_is_that_of_the_last_answer(link: Link) -> None:
    async with link() as (conn, _peer):
        for _ in range(3):
            assert await (await conn.ping()) == conn.latency


async def test_latency_is_the_time_that_the_answer_took(link: Link) -> None:
    async with link.raw() as (conn, raw):
        pong = await conn.ping()
        seen = await raw.next()
        await asyncio.sleep(0.05)
        raw.send(FIN | PONG, seen.payload)
        assert 0.04 <= await pong < 5


@pytest.mark.parametrize("data", PAYLOADS, ids=lambda data: f"{type(data).__name__}-{len(data)}")
async def test_a_ping_carries_what_it_is_given(link: Link, data: Any) -> None:
    async with link.raw() as (conn, raw):
        pong = await conn.ping(data)
        assert (await raw.next())[:2] == (FIN | PING, as_bytes(data))
        raw.send(FIN | PONG, as_bytes(data))
        assert await pong == conn.latency


async def test_pings_without_payload_differ(link: Link) -> None:
    async with link.raw() as (conn, raw):
        for _ in range(50):
            await conn.ping()
        frames = [await raw.next() for _ in range(50)]
    assert len({seen.payload for seen in frames}) == 50
    assert {(seen.first, len(seen.payload)) for seen in frames} == {(FIN | PING, 4)}


@pytest.mark.parametrize("data", PAYLOADS, ids=lambda data: f"{type(data).__name__}-{len(data)}")
async def test_a_pong_carries_what_it_is_given(link: Link, data: Any) -> None:
    async with link.raw() as (conn, raw):
        await conn.pong(data)
        assert (await raw.next())[:2] == (FIN | PONG, as_bytes(data))


async def test_a_pong_is_empty_by_default(link: Link) -> None:
    async with link.raw() as (conn, raw):
        await conn.pong()
        assert (await raw.next())[:2] == (FIN | PONG, b"")


@pytest.mark.parametrize("name", ["ping", "pong"])
async def test_a_payload_that_is_neither_text_nor_bytes_is_refused_and_harms_nothing(link: Link, name: str) -> None:
    async with link() as (conn, _peer):
        with pytest.raises(TypeError, match="data must be str or bytes-like"):
            await getattr(conn, name)(42)
        assert await (await conn.ping()) >= 0


@pytest.mark.parametrize("name", ["ping", "pong"])
async def test_a_payload_beyond_125_bytes_is_refused_and_harms_nothing(link: Link, name: str) -> None:
    async with link.raw() as (conn, raw):
        with pytest.raises(ProtocolError, match="control frame too long"):
            await getattr(conn, name)(b"x" * 126)
        await conn.send("fine")
        assert (await raw.next())[:2] == (FIN | TEXT, b"fine")


async def test_two_pings_with_the_same_payload_cannot_wait_at_a_time(link: Link) -> None:
    async with link.raw() as (conn, raw):
        pong = await conn.ping("same")
        for same in ("same", b"same"):
            with pytest.raises(ConcurrencyError, match="already waiting for a pong with the same data"):
                await conn.ping(same)
        raw.send(FIN | PONG, b"same")
        await pong
        again = await conn.ping("same")
        raw.send(FIN | PONG, b"same")
        await again


async def test_a_pong_answers_the_pings_before_it_and_none_after(link: Link) -> None:
    async with link.raw() as (conn, raw):
        pongs = [await conn.ping(f"{number}") for number in range(4)]
        raw.send(FIN | PONG, b"2")
        await raw.settle()
        assert [pong.done() for pong in pongs] == [True, True, True, False]  # type: ignore[attr-defined]
        assert (await pongs[0]) >= (await pongs[2]) == conn.latency
        raw.send(FIN | PONG, b"3")
        await pongs[3]


async def test_a_pong_that_comes_again_answers_nothing(link: Link) -> None:
    async with link.raw() as (conn, raw):
        first, second = await conn.ping("1"), await conn.ping("2")
        raw.send(FIN | PONG, b"1")
        raw.send(FIN | PONG, b"1")
        raw.send(FIN | PONG, b"nobody asked")
        await raw.settle()
        assert first.done()  # type: ignore[attr-defined]
        assert not second.done()  # type: ignore[attr-defined]


async def test_a_pong_nobody_asked_for_is_ignored(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | PONG, b"hello")
        raw.send(FIN | TEXT, b"message")
        assert await conn.recv() == "message"
        assert conn.latency == 0


async def test_an_answer_may_be_forgotten_or_cancelled(link: Link) -> None:
    async with link() as (conn, _peer):
        await conn.ping("forgotten")
        cancelled = await conn.ping("cancelled")
        cancelled.cancel()  # type: ignore[attr-defined]
        await (await conn.ping("last"))
        await conn.ping("forgotten as well")
        await conn.close()


@pytest.mark.parametrize("payload", [b"", b"\x00\xff", b"x" * 125])
async def test_a_ping_of_the_peer_is_answered_with_its_payload(link: Link, payload: bytes) -> None:
    async with link.raw() as (_conn, raw):
        raw.send(FIN | PING, payload)
        assert (await raw.next())[:2] == (FIN | PONG, payload)


async def test_pings_of_the_peer_are_answered_in_order_while_nobody_receives(link: Link) -> None:
    async with link.raw() as (_conn, raw):
        for number in range(5):
            raw.send(FIN | TEXT, b"message")
            raw.send(FIN | PING, b"%d" % number)
        assert [(await raw.next()).payload for _ in range(5)] == [b"%d" % number for number in range(5)]


async def test_a_ping_is_answered_while_closing(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close())
        assert (await raw.next()).opcode == CLOSE
        raw.send(FIN | PING, b"still there?")
        assert (await raw.next())[:2] == (FIN | PONG, b"still there?")
        raw.send(FIN | CLOSE, b"\x03\xe8")
        raw.close()
        await closing


async def test_a_ping_goes_behind_the_messages_before_it(link: Link) -> None:
    async with link.raw() as (conn, raw):
        for number in range(3):
            await conn.send(f"{number}")
        await conn.ping(b"ping")
        await conn.send("after")
        frames = [(await raw.next()).payload for _ in range(5)]
    assert frames == [b"0", b"1", b"2", b"ping", b"after"]


async def test_unanswered_pings_fail_when_the_connection_closes_in_order(link: Link) -> None:
    async with link.raw() as (conn, raw):
        pongs = [await conn.ping(), await conn.ping()]
        waiting = start(asyncio.wait(pongs))  # type: ignore[type-var]
        await raw.next()
        await raw.next()
        answering = raw.answer_close()
        await conn.close(1001)
        await waiting
        for pong in pongs:
            with pytest.raises(ConnectionClosedOK):
                await pong
        await answering


async def test_unanswered_pings_fail_when_the_connection_is_lost(link: Link) -> None:
    async with link.raw() as (conn, raw):
        pong = await conn.ping()
        raw.abort()
        with pytest.raises(ConnectionClosedError):
            await pong


@pytest.mark.parametrize("name", ["ping", "pong"])
async def test_a_closed_connection_sends_neither(link: Link, name: str) -> None:
    async with link() as (conn, _peer):
        await conn.close()
        with pytest.raises(ConnectionClosedOK):
            await getattr(conn, name)()
    async with link.raw() as (conn, raw):
        raw.abort()
        await end_of(conn)
        with pytest.raises(ConnectionClosedError):
            await getattr(conn, name)()


@pytest.mark.parametrize("name", ["ping", "pong"])
async def test_while_closing_both_wait_for_the_end_and_send_nothing(link: Link, name: str) -> None:
    async with link.raw() as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close())
        assert (await raw.next()).opcode == CLOSE
        late = start(getattr(conn, name)())
        await steps(5)
        assert not late.done()
        raw.send(FIN | CLOSE, b"\x03\xe8")
        raw.close()
        with pytest.raises(ConnectionClosedOK):
            await late
        await closing
        assert await raw.rest() == []
