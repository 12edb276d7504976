"""An open connection of ``websockets``, client's or server's, taken over: real sockets, real peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from websockets.asyncio.connection import Connection as Original

from penstock import BatchConfig, Connection, accelerate
from penstock.transport.base import ConnectionClosedError, ConnectionClosedOK, State
from support.ends import cancelled, start, steps, within
from support.servers import url_of
from support.wire import parse

both_sides = pytest.mark.parametrize("side", ["client", "server"])
JSON = '{"sensor": "temperature", "value": 21.5}' * 20


class Spy:
    """Keeps what a connection writes and reads, from now on."""

    def __init__(self, ws: Original) -> None:
        self.written: list[bytes] = []
        self.read = b""
        self._masked = ws.protocol.side.name == "CLIENT"
        write, received = ws.transport.write, ws.protocol.receive_data

        def writing(data: bytes) -> None:
            self.written.append(bytes(data))
            write(data)

        def receiving(data: bytes) -> None:
            self.read += data
            received(data)

        ws.transport.write = writing  # type: ignore[method-assign]
        ws.protocol.receive_data = receiving  # type: ignore[method-assign]

    @property
    def frames(self) -> list[list[Any]]:
        """The frames of each write."""
        return [parse(data, masked=self._masked) for data in self.written]


@asynccontextmanager
async def link(side: str, **options: Any) -> AsyncIterator[tuple[Original, Original]]:
    """Two connections of ``websockets``: that of ``side``, and its peer. Options are the former's."""
    accepted: asyncio.Future[Original] = asyncio.get_running_loop().create_future()

    async def handler(ws: Original) -> None:
        accepted.set_result(ws)
        await ws.wait_closed()

    quiet = {"ping_interval": None, "close_timeout": 1}
    at_server, at_client = (quiet | options, quiet) if side == "server" else (quiet, quiet | options)
    async with websockets.serve(handler, "127.0.0.1", 0, **at_server) as server:
        url = url_of(server)
        async with websockets.connect(url, **at_client) as client:
            peers: tuple[Original, Original] = client, await within(accepted)
            yield peers if side == "client" else (peers[1], peers[0])


@both_sides
async def test_many_messages_go_to_one_write(side: str) -> None:
    async with link(side) as (ws, peer):
        spy = Spy(ws)
        conn = accelerate(ws)
        for number in range(100):
            await conn.send(str(number))
        assert [await within(peer.recv()) for _ in range(100)] == [str(number) for number in range(100)]
        assert [len(frames) for frames in spy.frames] == [1, 99]


@both_sides
async def test_frames_go_uncompressed_though_permessage_deflate_was_negotiated(side: str) -> None:
    async with link(side) as (ws, peer):
        assert ws.protocol.extensions
        spy = Spy(ws)
        conn = accelerate(ws)
        await conn.send(JSON)
        await conn.send_many([JSON, JSON.encode()])
        await conn.send(iter([JSON, JSON]))
        assert [await within(peer.recv()) for _ in range(4)] == [JSON, JSON, JSON.encode(), JSON * 2]
        frames = [frame for group in spy.frames for frame in group]
        assert len(frames) == 6
        assert not any(frame.rsv1 for frame in frames)


@both_sides
async def test_compressed_answers_are_inflated(side: str) -> None:
    async with link(side) as (ws, peer):
        spy = Spy(ws)
        conn = accelerate(ws)
        for _ in range(3):
            await peer.send(JSON)
        await peer.send(JSON.encode())
        assert await within(conn.recv()) == JSON
        assert [await within(conn.recv()) for _ in range(3)] == [JSON, JSON, JSON.encode()]
        assert spy.read[0] & 0x40
        assert len(spy.read) < len(JSON)


@both_sides
async def test_answers_come_by_every_way_of_receiving(side: str) -> None:
    async with link(side) as (ws, peer):
        conn = accelerate(ws)
        for number in range(6):
            await peer.send(str(number))
        await peer.send(iter(["a", "b"]))
        assert await within(conn.recv()) == "0"
        assert await within(conn.recv(decode=False)) == b"1"
        assert await within(conn.recv_many(max=2)) == ["2", "3"]
        many: list[Any] = []
        while len(many) < 2:
            many += await within(conn.recv_many())
        assert many == ["4", "5"]
        assert "".join([piece async for piece in conn.recv_streaming()]) == "ab"
        with pytest.raises(ValueError, match="max=0"):
            await conn.recv_many(max=0)


@both_sides
async def test_the_original_stays_usable_and_keeps_the_order(side: str) -> None:
    async with link(side) as (ws, peer):
        conn = accelerate(ws)
        await conn.send("one")
        await conn.send("two")
        await ws.send("three")
        await conn.send("four")
        await ws.send(b"five")
        assert [await within(peer.recv()) for _ in range(5)] == ["one", "two", "three", "four", b"five"]
        await peer.send("to the original")
        assert await within(ws.recv()) == "to the original"


@both_sides
async def test_a_ping_goes_behind_what_was_accepted(side: str) -> None:
    async with link(side) as (ws, peer):
        spy = Spy(ws)
        conn = accelerate(ws)
        for message in ("one", "two", "three"):
            await conn.send(message)
        pong = await conn.ping(b"four")
        assert [bytes(frame.data) for group in spy.frames for frame in group] == [b"one", b"two", b"three", b"four"]
        assert await within(pong) >= 0
        assert conn.latency > 0
        await conn.pong(b"unasked")
        await conn.send("after")
        assert [await within(peer.recv()) for _ in range(4)] == ["one", "two", "three", "after"]


@both_sides
async def test_closing_writes_what_was_accepted_first(side: str) -> None:
    async with link(side) as (ws, peer):
        conn = accelerate(ws, batch=BatchConfig(batch_timeout=60))
        await conn.send("one")
        await conn.send("two")
        await within(conn.close(4000, "done"))
        assert [await within(peer.recv()) for _ in range(2)] == ["one", "two"]
        with pytest.raises(ConnectionClosedError):
            await within(peer.recv())
        assert (peer.close_code, peer.close_reason) == (4000, "done")
        assert conn.state is State.CLOSED
        with pytest.raises(ConnectionClosedError):
            await within(conn.send("late"))


@both_sides
async def test_closing_the_original_writes_what_was_accepted_first(side: str) -> None:
    async with link(side) as (ws, peer):
        conn = accelerate(ws)
        for message in ("one", "two", "three"):
            await conn.send(message)
        await within(ws.close())
        assert [message async for message in peer] == ["one", "two", "three"]
        with pytest.raises(ConnectionClosedOK):
            await within(conn.send("late"))


@both_sides
async def test_the_end_is_told_to_whoever_uses_it(side: str) -> None:
    async with link(side) as (ws, peer):
        conn = accelerate(ws)
        reading = start(conn.recv())
        await steps(2)
        await within(peer.close(4001, "enough"))
        for call in (reading, conn.send("late"), conn.flush(), conn.ping()):
            with pytest.raises(ConnectionClosedError):
                await within(call)
        await within(conn.wait_closed())
        assert (conn.close_code, conn.close_reason) == (4001, "enough")


@both_sides
async def test_a_lost_connection_is_told_to_a_sender_that_waits(side: str) -> None:
    async with link(side, write_limit=1000) as (ws, peer):
        peer.transport.pause_reading()
        conn = accelerate(ws, batch=BatchConfig(max_pending_bytes=1000))
        waiting = await fill(conn)
        ws.transport.abort()
        with pytest.raises(ConnectionClosedError):
            await within(waiting)
        peer.transport.abort()


async def fill(conn: Connection) -> asyncio.Task[None]:
    """Send until one has to wait; that one."""
    for _ in range(1000):
        sending = start(conn.send(b"x" * 100_000))
        await steps(3)
        if not sending.done():
            return sending
    raise AssertionError("the socket takes everything")


@both_sides
async def test_while_the_peer_does_not_read_senders_wait_and_nothing_is_lost(side: str) -> None:
    async with link(side, write_limit=1000) as (ws, peer):
        peer.transport.pause_reading()
        conn = accelerate(ws, batch=BatchConfig(max_pending_messages=5))
        sent = 0
        while True:
            waiting = start(conn.send(f"{sent}:" + "x" * 100_000))
            await steps(3)
            if not waiting.done():
                break
            sent += 1
        behind = start(conn.send("behind"))
        unwanted = start(conn.send("unwanted"))
        flushing = start(conn.flush())
        await steps(3)
        assert await cancelled(unwanted)
        assert not behind.done()
        assert not flushing.done()
        peer.transport.resume_reading()
        received = [(await within(peer.recv())).partition(":")[0] for _ in range(sent + 2)]
        assert received == [*map(str, range(sent + 1)), "behind"]
        await within(asyncio.gather(waiting, behind, flushing))
        await conn.send("after")
        assert await within(peer.recv()) == "after"


@both_sides
async def test_a_peer_that_does_not_read_cannot_keep_close_from_ending(side: str) -> None:
    async with link(side, write_limit=1000, close_timeout=0.2) as (ws, peer):
        peer.transport.pause_reading()
        conn = accelerate(ws)
        waiting = await fill(conn)
        began = asyncio.get_running_loop().time()
        await within(conn.close())
        assert asyncio.get_running_loop().time() - began < 0.45
        with pytest.raises(ConnectionClosedError):
            await within(waiting)
        peer.transport.abort()


@both_sides
async def test_half_a_message_closes_with_1011(side: str) -> None:
    async def pieces() -> AsyncIterator[str]:
        yield "a"
        raise LookupError("the rest is lost")

    async with link(side) as (ws, peer):
        conn = accelerate(ws)
        with pytest.raises(LookupError):
            await conn.send(pieces())
        with pytest.raises(ConnectionClosedError):
            await within(peer.recv())
        assert peer.close_code == 1011
        await within(conn.wait_closed())


@both_sides
async def test_messages_that_nobody_receives_do_not_keep_it_open(side: str) -> None:
    async with link(side, max_queue=2) as (ws, peer):
        conn = accelerate(ws)
        for _ in range(200):
            await peer.send(b"x" * 1000)
        await asyncio.sleep(0.02)
        assert ws.recv_messages.paused
        began = asyncio.get_running_loop().time()
        await within(conn.close())
        assert asyncio.get_running_loop().time() - began < 0.9
        assert conn.close_code == 1000


@both_sides
async def test_keepalive_goes_on(side: str) -> None:
    async with link(side, ping_interval=0.02, ping_timeout=1) as (ws, peer):
        conn = accelerate(ws)
        assert ws.keepalive_task is None
        await asyncio.sleep(0.1)
        assert conn.latency > 0
        await conn.send("alive")
        assert await within(peer.recv()) == "alive"


@both_sides
async def test_keepalive_gives_up_a_peer_that_is_gone(side: str) -> None:
    async with link(side, ping_interval=0.02, ping_timeout=0.05, close_timeout=0.1) as (ws, peer):
        conn = accelerate(ws)
        peer.transport.pause_reading()
        with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
            await within(conn.recv())
        peer.transport.abort()


@both_sides
async def test_keepalive_does_not_give_up_a_peer_whose_messages_nobody_receives(side: str) -> None:
    async with link(side, ping_interval=0.02, ping_timeout=0.05, max_queue=2) as (ws, peer):
        conn = accelerate(ws)
        sending = start(send_numbers(peer, 100))
        await asyncio.sleep(0.4)
        assert conn.state is State.OPEN
        assert [await within(conn.recv()) for _ in range(100)] == [str(number) for number in range(100)]
        await within(sending)


async def send_numbers(ws: Original, number: int) -> None:
    for value in range(number):
        await ws.send(str(value))


@both_sides
async def test_it_is_what_the_original_is(side: str) -> None:
    async with link(side) as (ws, _):
        conn = accelerate(ws)
        assert conn.id == ws.id
        assert conn.logger is ws.logger
        assert conn.transport is ws.transport
        assert conn.request is ws.request
        assert conn.response is ws.response
        assert conn.subprotocol is ws.subprotocol
        assert conn.local_address == ws.local_address
        assert conn.remote_address == ws.remote_address
        assert conn.close_code is conn.close_reason is None


@both_sides
async def test_only_client_frames_are_masked(side: str) -> None:
    async with link(side) as (ws, peer):
        spy = Spy(ws)
        await accelerate(ws).send("x")
        assert await within(peer.recv()) == "x"
        assert bool(spy.written[0][1] & 0x80) is (side == "client")


async def test_a_penstock_connection_comes_back_as_it_is() -> None:
    async with link("client") as (ws, _):
        conn = accelerate(ws)
        assert accelerate(conn) is conn


@pytest.mark.parametrize("thing", [None, "ws://localhost", object()])
async def test_anything_else_is_a_type_error_that_says_what_to_do(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"penstock.connect\(url\)") as refusal:
        accelerate(thing)
    assert type(thing).__qualname__ in str(refusal.value)


async def test_the_same_connection_is_accelerated_once() -> None:
    async with link("client") as (ws, peer):
        conn = accelerate(ws)
        assert accelerate(ws) is conn
        for text in ("one", "two"):
            await accelerate(ws).send(text)
        assert [await within(peer.recv()) for _ in range(2)] == ["one", "two"]


@both_sides
async def test_a_connection_that_is_closed_takes_nothing(side: str) -> None:
    async with link(side) as (ws, _):
        await ws.close()
        conn = accelerate(ws)
        for call in (conn.send("x"), conn.send_many(["x", "y"]), conn.send(["in", "parts"]), conn.flush(), conn.ping()):
            with pytest.raises(ConnectionClosedOK):
                await within(call)
        assert not conn.outbox.run


async def test_a_connection_that_is_closing_takes_nothing() -> None:
    async with link("client") as (ws, peer):
        peer.transport.pause_reading()
        closing = asyncio.create_task(ws.close())
        await asyncio.sleep(0)
        conn = accelerate(ws)
        sending = asyncio.create_task(conn.send("too late"))
        await asyncio.sleep(0.01)
        peer.transport.resume_reading()
        with pytest.raises(ConnectionClosedOK):
            await within(sending)
        await within(closing)
        with pytest.raises(ConnectionClosedOK):
            await within(peer.recv())
