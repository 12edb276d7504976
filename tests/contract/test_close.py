"""Connections end in order, or at least in time."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from penstock.transport.base import ConnectionClosedError, ConnectionClosedOK, ProtocolError, State
from support.ends import cancelled, start, steps
from support.links import Link, end_of, rest_of
from support.rawpeer import CLOSE, CONT, FIN, PING, TEXT


async def close_is_seen(conn: Any) -> None:
    """Wait until the peer's CLOSE frame has been seen."""
    while conn.state is State.OPEN:
        await asyncio.sleep(0)


async def test_an_open_connection_has_no_close_code(link: Link) -> None:
    async with link() as (conn, _peer):
        assert (conn.state, conn.close_code, conn.close_reason) == (State.OPEN, None, None)


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [((), 1000, ""), ((1001, "leaving"), 1001, "leaving"), ((3000,), 3000, ""), ((4999, "é" * 61), 4999, "é" * 61)],
)
async def test_close_tells_the_peer_code_and_reason(
    link: Link, arguments: tuple[Any, ...], code: int, reason: str
) -> None:
    async with link() as (conn, peer):
        await conn.close(*arguments)
        error = await end_of(peer)
        assert error.rcvd is not None
        assert (error.rcvd.code, error.rcvd.reason) == (code, reason)
        assert (conn.state, conn.close_code, conn.close_reason) == (State.CLOSED, code, reason)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (1000, "", ConnectionClosedOK),
        (1001, "leaving", ConnectionClosedOK),
        (1002, "é", ConnectionClosedError),
        (1011, "trouble", ConnectionClosedError),
        (3000, "", ConnectionClosedError),
        (4999, "x" * 123, ConnectionClosedError),
    ],
)
async def test_the_peers_code_and_reason_are_kept(link: Link, code: int, reason: str, kind: type) -> None:
    async with link() as (conn, peer):
        await peer.close(code, reason)
        error = await end_of(conn)
    assert type(error) is kind
    assert error.rcvd is not None
    assert error.sent is not None
    assert (error.rcvd.code, error.rcvd.reason) == (code, reason)
    assert (error.sent.code, error.sent.reason) == (code, reason)
    assert error.rcvd_then_sent is True
    assert (conn.state, conn.close_code, conn.close_reason) == (State.CLOSED, code, reason)


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8", b"\x0b\xb8bye"])
async def test_the_peers_close_frame_is_echoed(link: Link, payload: bytes) -> None:
    async with link.raw() as (_conn, raw):
        raw.send(FIN | CLOSE, payload)
        assert (await raw.end()).payload == payload


async def test_a_close_frame_without_a_code_is_1005(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | CLOSE)
        assert isinstance(await end_of(conn), ConnectionClosedOK)
    assert (conn.close_code, conn.close_reason) == (1005, "")


async def test_the_peer_may_answer_with_another_code(link: Link) -> None:
    async with link.raw() as (conn, raw):
        answering = raw.answer_close(b"\x03\xf3trouble")
        await conn.close(1001, "leaving")
        error = await end_of(conn)
        assert (await answering).close.code == 1001
    assert isinstance(error, ConnectionClosedError)
    assert error.rcvd is not None
    assert error.sent is not None
    assert (error.sent.code, error.rcvd.code, error.rcvd_then_sent) == (1001, 1011, False)
    assert (conn.close_code, conn.close_reason) == (1011, "trouble")


async def test_state_says_closing_between_both_close_frames(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close())
        assert (await raw.next()).close.code == 1000
        assert (conn.state, conn.close_code) == (State.CLOSING, None)
        raw.send(FIN | CLOSE, b"\x03\xe8")
        raw.close()
        await closing
        assert conn.state is State.CLOSED


async def test_closing_twice_is_closing_once(link: Link) -> None:
    async with link.raw() as (conn, raw):
        answering = raw.answer_close()
        await conn.close(1001)
        await conn.close(1000, "again")
        assert (await answering).close.code == 1001
        assert await raw.rest() == []
    assert conn.close_code == 1001


async def test_several_may_close_at_once(link: Link) -> None:
    async with link.raw() as (conn, raw):
        answering = raw.answer_close()
        await asyncio.gather(*(conn.close(code) for code in (3001, 3002, 3003)))
        assert (await answering).close.code == 3001
        assert await raw.rest() == []


async def test_both_ends_may_close_at_once(link: Link) -> None:
    async with link() as (conn, peer):
        await asyncio.gather(conn.close(3001), peer.close(3002))
        assert conn.state is peer.state is State.CLOSED
        assert {conn.close_code, peer.close_code} <= {3001, 3002}


async def test_close_wakes_who_receives(link: Link) -> None:
    async with link() as (conn, _peer):
        receiving = start(conn.recv())
        await steps(3)
        await conn.close()
        with pytest.raises(ConnectionClosedOK):
            await receiving


async def test_everything_accepted_is_sent_before_the_connection_closes(link: Link) -> None:
    async with link() as (conn, peer):
        for number in range(50):
            await conn.send(f"{number}")
        closing = start(conn.close(1000, "done"))
        messages, error = await rest_of(peer)
        await closing
    assert messages == [f"{number}" for number in range(50)]
    assert isinstance(error, ConnectionClosedOK)


async def test_messages_that_arrive_while_closing_can_be_received(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close())
        await raw.next()
        raw.send(FIN | TEXT, b"last words")
        raw.send(FIN | CLOSE, b"\x03\xe8")
        raw.close()
        await closing
        messages, error = await rest_of(conn)
    assert messages == ["last words"]
    assert isinstance(error, ConnectionClosedOK)


async def test_a_fragmented_message_cut_off_by_a_close_frame_is_an_error(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(TEXT, b"half")
        raw.send(FIN | CLOSE, b"\x03\xe8")
        raw.send(FIN | CONT, b"and half")
        error = await end_of(conn)
        assert (await raw.end()).close.code == 1002
    assert isinstance(error, ConnectionClosedError)
    assert "sent 1002 (protocol error) incomplete fragmented message" in str(error)


@pytest.mark.parametrize("code", [-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
async def test_a_code_that_nobody_may_send_is_refused_and_harms_nothing(link: Link, code: int) -> None:
    async with link() as (conn, peer):
        with pytest.raises(ProtocolError):
            await conn.close(code)
        await conn.send("still open")
        assert await peer.recv() == "still open"


async def test_a_reason_that_is_too_long_is_refused_and_harms_nothing(link: Link) -> None:
    async with link() as (conn, peer):
        with pytest.raises(ProtocolError):
            await conn.close(1000, "é" * 62)
        await conn.send("still open")
        assert await peer.recv() == "still open"


async def test_a_peer_that_does_not_answer_is_left_after_close_timeout(link: Link) -> None:
    loop = asyncio.get_running_loop()
    async with link.raw(close_timeout=0.05) as (conn, raw):
        raw.hangs_up = False
        before = loop.time()
        await conn.close()
        assert 0.04 <= loop.time() - before < 2
        error = await end_of(conn)
    assert isinstance(error, ConnectionClosedError)
    assert (conn.state, conn.close_code, conn.close_reason) == (State.CLOSED, 1006, "")
    assert isinstance(error.__cause__, TimeoutError)


async def test_a_peer_that_keeps_the_stream_open_is_left_after_close_timeout(link: Link) -> None:
    async with link.raw(close_timeout=0.05) as (conn, raw):
        raw.hangs_up = False
        raw.transport.pause_reading()
        raw.send(FIN | CLOSE, b"\x03\xe8")
        await close_is_seen(conn)
        await conn.close(1001)
        assert isinstance(await end_of(conn), ConnectionClosedOK)
    assert conn.close_code == 1000


async def test_without_a_close_timeout_close_waits(link: Link) -> None:
    async with link.raw(close_timeout=None) as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close())
        await raw.next()
        await asyncio.sleep(0.1)
        assert not closing.done()
        raw.send(FIN | CLOSE, b"\x03\xe8")
        raw.close()
        await closing
    assert conn.close_code == 1000


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_stream_that_ends_without_a_close_frame_is_1006(link: Link, how: str) -> None:
    async with link.raw() as (conn, raw):
        receiving = start(conn.recv())
        await steps(2)
        getattr(raw, how)()
        with pytest.raises(ConnectionClosedError, match="no close frame received or sent"):
            await receiving
        assert (conn.state, conn.close_code, conn.close_reason) == (State.CLOSED, 1006, "")
        await conn.close()
        await conn.wait_closed()


async def test_a_stream_that_ends_instead_of_an_answer_is_1006(link: Link) -> None:
    async with link.raw() as (conn, raw):
        await conn.close(1000, "bye")
        error = await end_of(conn)
        assert (await raw.end()).close.reason == "bye"
    assert isinstance(error, ConnectionClosedError)
    assert error.rcvd is None
    assert error.sent is not None
    assert (conn.close_code, error.sent.code) == (1006, 1000)


async def test_everybody_may_wait_for_the_end_and_cancel_it(link: Link) -> None:
    async with link() as (conn, peer):
        waiting = [start(conn.wait_closed()) for _ in range(3)]
        await steps(3)
        assert await cancelled(waiting[1])
        assert not waiting[0].done()
        assert conn.state is State.OPEN
        await peer.close()
        await asyncio.gather(waiting[0], waiting[2])
        await conn.wait_closed()
        assert conn.state is State.CLOSED


async def test_closing_goes_on_when_close_is_cancelled(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close(1001))
        assert (await raw.next()).close.code == 1001
        assert await cancelled(closing)
        raw.send(FIN | CLOSE, b"\x03\xe9")
        raw.close()
        await conn.wait_closed()
    assert conn.close_code == 1001


async def test_closing_ends_in_time_when_close_is_cancelled_and_the_peer_is_silent(link: Link) -> None:
    async with link.raw(close_timeout=0.05) as (conn, raw):
        raw.hangs_up = False
        closing = start(conn.close(1001))
        assert (await raw.next()).close.code == 1001
        assert await cancelled(closing)
        await conn.wait_closed()
    assert conn.close_code == 1006


async def test_leaving_the_block_closes_with_1000(link: Link) -> None:
    async with link() as (conn, peer):
        async with conn as entered:
            assert entered is conn
            await conn.send("message")
        messages, error = await rest_of(peer)
    assert messages == ["message"]
    assert error.rcvd is not None
    assert error.rcvd.code == 1000


async def test_leaving_the_block_by_an_exception_closes_with_1011(link: Link) -> None:
    async with link() as (conn, peer):
        with pytest.raises(KeyError, match="my own"):
            async with conn:
                raise KeyError("my own")
        error = await end_of(peer)
    assert error.rcvd is not None
    assert error.rcvd.code == 1011


async def test_leaving_the_block_of_a_lost_connection_is_no_error(link: Link) -> None:
    async with link.raw() as (conn, raw):
        async with conn:
            raw.abort()
            await conn.wait_closed()
        assert conn.close_code == 1006


async def test_a_pong_that_was_owed_is_not_written_behind_the_close(link: Link) -> None:
    async with link.raw(ping_interval=None) as (conn, raw):
        raw.transport.pause_reading()
        flushing = start(stuff(conn))
        await steps(20)
        raw.send(FIN | PING, b"hello")
        raw.send(FIN | CLOSE, b"\x03\xe8")
        await asyncio.sleep(0.05)
        raw.transport.resume_reading()
        await conn.wait_closed()
        with pytest.raises(ConnectionClosedOK):
            await flushing


async def stuff(conn: Any) -> None:
    await conn.send(b"x" * 8_000_000)
    await conn.flush()


async def test_no_ping_goes_behind_the_close(link: Link) -> None:
    async with link.raw(ping_interval=0.02, ping_timeout=5, close_timeout=0.2) as (conn, raw):
        raw.send(FIN | CLOSE, b"\x03\xe8")
        await conn.wait_closed()
        seen = []
        with contextlib.suppress(EOFError):
            while True:
                seen.append(await raw.next())
        kinds = [frame.opcode for frame in seen]
        assert CLOSE in kinds
        assert PING not in kinds[kinds.index(CLOSE) :]


async def test_nothing_that_was_received_is_kept(link: Link) -> None:
    async with link.raw() as (conn, raw):
        for number in range(50):
            raw.send(FIN | PING, b"%d" % number)
            raw.send(TEXT, b"in ")
            raw.send(FIN | CONT, b"parts")
            assert await conn.recv() == "in parts"
        protocol = getattr(conn.outbox.transport, "protocol", None) or conn.outbox.transport.ws.protocol
        assert len(protocol.events) == 0
