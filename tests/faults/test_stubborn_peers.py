"""Peers that do not read, do not answer, say too much, or leave all the time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets import ConnectionClosed, ConnectionClosedError

import penstock
from support.peers import Peer, head_of, peer, request, switching, until_gone
from support.servers import each_transport, port_of, serving, url_of

pytestmark = pytest.mark.timeout(20)

PENDING = 100_000
WRITE_LIMIT = 2**15
BUFFERS = 2**16  # of both kernels' ends, set below


@asynccontextmanager
async def deaf_peer(*, leaves: bool = False) -> AsyncIterator[Peer]:
    """A server that opens the connection, and reads nothing until its `resume` is set; then on, or it leaves."""
    resume = asyncio.Event()

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFERS)
        head = await head_of(this, reader)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(switching()(head).encode())
        await resume.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        if not leaves:
            await until_gone(reader)

    async with peer(talk) as this:
        this.resume = resume  # type: ignore[attr-defined]
        yield this


async def blocked_connection(server: Peer, transport: Any, **options: Any) -> tuple[Any, asyncio.Task[int], list[int]]:
    """A connection with a sender that waits: the connection, its task, and how many messages were accepted."""
    config = penstock.BatchConfig(max_pending_bytes=PENDING)
    conn = await penstock.connect(
        server.url, transport=transport, batch=config, write_limit=WRITE_LIMIT, ping_interval=None, **options
    )
    conn.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFERS)
    accepted = [0]

    async def send() -> int:
        while True:
            await conn.send("x" * 1000)
            accepted[0] += 1

    task = asyncio.create_task(send())
    last = -1
    async with asyncio.timeout(5):
        while accepted[0] != last:
            last = accepted[0]
            await asyncio.sleep(0.03)
    return conn, task, accepted


async def give_up(conn: Any, task: asyncio.Task[int]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    conn.transport.abort()
    await conn.wait_closed()


@each_transport
async def test_sending_waits_for_a_peer_that_does_not_read_and_memory_is_bounded(transport: Any) -> None:
    async with deaf_peer() as server:
        conn, task, accepted = await blocked_connection(server, transport)
        assert not task.done()
        buffered = conn.transport.get_write_buffer_size()
        assert buffered < WRITE_LIMIT + PENDING + 2**17
        assert 50_000 < accepted[0] * 1000 < 8 * 2**20 + PENDING + WRITE_LIMIT  # the kernels' buffers may have grown
        await give_up(conn, task)


@each_transport
async def test_many_senders_do_not_take_more_than_one(transport: Any) -> None:
    async with deaf_peer() as server:
        conn, task, accepted = await blocked_connection(server, transport)
        before = accepted[0]
        more = [asyncio.create_task(conn.send("y" * 1000)) for _ in range(500)]
        await asyncio.sleep(0.05)
        assert sum(sender.done() for sender in more) <= PENDING // 1000
        assert accepted[0] - before <= PENDING // 1000
        for sender in more:
            sender.cancel()
        await asyncio.gather(*more, return_exceptions=True)
        await give_up(conn, task)


@each_transport
async def test_a_blocked_send_can_be_cancelled_and_was_not_sent(transport: Any) -> None:
    async with deaf_peer() as server:
        conn, task, _accepted = await blocked_connection(server, transport)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await conn.send("z" * 200_000)
        assert conn.state.name == "OPEN"
        server.resume.set()  # type: ignore[attr-defined]
        async with asyncio.timeout(5):
            await conn.flush()
        await give_up(conn, task)


@each_transport
async def test_flushing_to_a_peer_that_leaves_raises_connection_closed(transport: Any) -> None:
    async with deaf_peer(leaves=True) as server:
        conn, task, _ = await blocked_connection(server, transport)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        server.resume.set()  # type: ignore[attr-defined]

        async def flush() -> None:
            while True:
                await conn.flush()
                await conn.send("x" * 50_000)
                await asyncio.sleep(0)

        async with asyncio.timeout(5):
            with pytest.raises(ConnectionClosed):
                await flush()


@each_transport
async def test_blocked_senders_go_on_in_order_when_the_peer_reads(transport: Any) -> None:
    received: list[Any] = []
    release = asyncio.Event()

    async def handler(ws: Any) -> None:
        await release.wait()
        received.extend([message async for message in ws])

    async with serving("websockets", handler, max_queue=4) as server:
        config = penstock.BatchConfig(max_pending_bytes=PENDING)
        async with penstock.connect(url_of(server), transport=transport, batch=config) as conn:
            sent = [f"{number}".ljust(5000) for number in range(3000)]
            senders = [asyncio.create_task(conn.send(message)) for message in sent]
            await asyncio.sleep(0.05)
            assert not all(sender.done() for sender in senders)
            release.set()
            await asyncio.gather(*senders)
    assert received == sent


@each_transport
async def test_closing_is_bounded_when_the_peer_does_not_read(transport: Any) -> None:
    async with deaf_peer() as server:
        conn, task, _ = await blocked_connection(server, transport, close_timeout=0.1)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await conn.close()
        assert loop.time() - started < 2
        with pytest.raises(ConnectionClosed):
            await task
        assert conn.state.name == "CLOSED"
        server.resume.set()  # type: ignore[attr-defined]


@each_transport
async def test_a_blocked_sender_is_told_when_the_connection_breaks(transport: Any) -> None:
    async with deaf_peer() as server:
        _, task, _ = await blocked_connection(server, transport)
        await server.stop()
        with pytest.raises(ConnectionClosedError):
            async with asyncio.timeout(5):
                await task


@each_transport
async def test_a_peer_that_does_not_read_is_given_up_by_the_keepalive(transport: Any) -> None:
    async with deaf_peer() as server:
        conn = await penstock.connect(
            server.url, transport=transport, ping_interval=0.05, ping_timeout=0.05, close_timeout=0.1
        )

        async def send() -> None:
            while True:
                await conn.send("x" * 10_000)

        async with asyncio.timeout(5):
            with pytest.raises(ConnectionClosedError) as caught:
                await send()
        assert "keepalive" in str(caught.value)
        server.resume.set()  # type: ignore[attr-defined]


@each_transport
async def test_closing_is_bounded_when_the_peer_does_not_answer(transport: Any) -> None:
    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switching()(await head_of(this, reader)).encode())
        while await reader.read(65_536):
            pass

    async with peer(talk) as server:
        conn = await penstock.connect(server.url, transport=transport, close_timeout=0.1)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await conn.close()
        assert loop.time() - started < 2
        assert conn.close_code == 1006
        await server.wait_gone()


@each_transport
async def test_a_server_that_closes_after_every_message_gets_them_all(transport: Any) -> None:
    received: list[Any] = []

    async def handler(ws: Any) -> None:
        received.append(await ws.recv())

    sent = [str(number) for number in range(30)]
    async with serving("websockets", handler) as server:
        left = iter(sent)
        async for conn in penstock.connect(url_of(server), transport=transport):
            if (message := next(left, None)) is None:
                break
            await conn.send(message)
            with pytest.raises(ConnectionClosed):
                await conn.recv()
    assert received == sent


AFTER_CLOSE = {
    "another close": b"\x88\x82\x00\x00\x00\x00\x03\xe8",
    "a message": b"\x81\x82\x00\x00\x00\x00hi",
    "an unmasked message": b"\x81\x02hi",
    "a frame that is none": b"\xff\xff\xff\xff\xff\xff\xff\xff",
    "a huge frame": b"\x82\xff\x00\x00\x00\x7f\xff\xff\xff\xff\x00\x00\x00\x00",
}


@pytest.mark.parametrize("extra", AFTER_CLOSE.values(), ids=AFTER_CLOSE)
@each_transport
async def test_what_comes_after_close_is_ignored_in_silence(
    transport: Any, extra: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    received: list[Any] = []

    async def handler(conn: Any) -> None:
        received.extend([message async for message in conn])

    async with penstock.serve(handler, "127.0.0.1", 0, transport=transport) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(request())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x88\x82\x00\x00\x00\x00\x03\xe8")
        async with asyncio.timeout(5):
            assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
            writer.write(extra)
            assert await reader.read() == b""
        writer.transport.abort()
    assert received == []
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


BROKEN = {
    "reserved bits": (b"\xf1\x82\x00\x00\x00\x00hi", 1002),
    "an opcode that is none": (b"\x83\x80\x00\x00\x00\x00", 1002),
    "no mask": (b"\x81\x02hi", 1002),
    "a ping in parts": (b"\x09\x80\x00\x00\x00\x00", 1002),
    "a long ping": (b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + bytes(126), 1002),
    "a continuation of nothing": (b"\x80\x80\x00\x00\x00\x00", 1002),
    "two messages at once": (b"\x01\x80\x00\x00\x00\x00\x01\x80\x00\x00\x00\x00", 1002),
    "a close with one byte": (b"\x88\x81\x00\x00\x00\x00\x03", 1002),
    "a close with a code that is none": (b"\x88\x82\x00\x00\x00\x00\x03\xed", 1002),
    "too much": (b"\x82\xff\x00\x00\x00\x7f\xff\xff\xff\xff\x00\x00\x00\x00", 1009),
    "text that is none": (b"\x81\x82\x00\x00\x00\x00\xc3\x28", 1007),
}


@pytest.mark.parametrize(("data", "code"), BROKEN.values(), ids=BROKEN)
@each_transport
async def test_a_client_that_breaks_the_rules_is_told_which_code_and_hung_up_on(
    transport: Any, data: bytes, code: int
) -> None:
    ended: list[Exception] = []

    async def handler(conn: Any) -> None:
        try:
            assert await conn.recv() == "ok"
            await conn.recv()
        except ConnectionClosedError as exc:
            ended.append(exc)

    async with penstock.serve(handler, "127.0.0.1", 0, transport=transport) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(request())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\x82\x00\x00\x00\x00ok" + data)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.transport.abort()
    assert answer[0] == 0x88
    assert int.from_bytes(answer[2:4], "big") == code
    assert len(answer) == 2 + answer[1], "one CLOSE, and nothing behind it"
    [exc] = ended
    assert isinstance(exc, ConnectionClosedError)
    assert exc.sent is not None
    assert exc.sent.code == code
