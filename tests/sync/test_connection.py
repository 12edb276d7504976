"""`penstock.sync.connect` and connections that are lent: the connection of ``websockets.sync``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK

from penstock import BatchConfig, ConnectionPoolConfig, PerformanceConfig
from penstock.errors import (
    BlockingCall,
    EnvelopeRefused,
    LeaseReturned,
    LoopEnded,
    MessageTypeError,
    PoolExhausted,
    WaitTimeout,
)
from penstock.sync import Connection, PerformanceMiddleware, connect
from support.servers import echo, serving, url_of
from support.threads import all_at_once, closed_port, in_thread, wait_until


async def burst(conn: Any) -> None:
    """Sends 100 messages as soon as it is asked."""
    async for _ in conn:
        for number in range(100):
            await conn.send(str(number))


async def deaf(conn: Any) -> None:
    """Reads nothing until its client is gone."""
    await conn.wait_closed()


async def farewell(conn: Any) -> None:
    """Says two words, and goes."""
    await conn.send("one")
    await conn.send("two")


@contextmanager
def server(handler: Any = echo, kind: str = "penstock-picows", **options: Any) -> Iterator[str]:
    with in_thread(serving(kind, handler, **options)) as (server, _):
        yield url_of(server)


@pytest.mark.parametrize("kind", ["websockets", "penstock-picows"])
def test_a_connection_sends_and_receives(kind: str) -> None:
    with server(kind=kind) as url, connect(url) as conn:
        conn.send("text")
        assert conn.recv(timeout=10) == "text"
        conn.send(bytearray(b"binary"))
        assert conn.recv() == b"binary"
        conn.send(piece for piece in ("in ", "pieces"))
        assert conn.recv() == "in pieces"
        conn.send("as bytes", text=False)
        assert conn.recv(decode=True) == "as bytes"
        conn.send_many(str(number) for number in range(3000))
        conn.flush(timeout=10)
        received = conn.recv_many(max=1)
        assert received == ["0"]
        while len(received) < 3000:
            received += conn.recv_many()
        assert received == [str(number) for number in range(3000)]
        assert 0 <= conn.ping(timeout=10) < 10
        conn.pong()
        assert conn.latency < 10
        assert conn.is_reliable == (kind != "websockets")
        assert (conn.close_code, conn.close_reason) == (None, None)
        assert conn.remote_address[1] == int(url.rpartition(":")[2].strip("/"))
        assert conn.local_address
        assert conn.request is not None
        assert conn.response is not None
        assert conn.subprotocol is None
        assert conn.logger
        assert str(conn.id) in repr(conn)
    assert conn.close_code == 1000
    conn.close()


def test_what_the_peer_has_taken_is_told() -> None:
    with server() as url, connect(url) as conn:
        conn.send("x")
        conn.delivered(timeout=10)
    with server(kind="websockets") as url, connect(url) as conn, pytest.raises(EnvelopeRefused):
        conn.delivered()


def test_iteration_ends_when_the_peer_closes_in_order() -> None:
    with server(farewell) as url, connect(url) as conn:
        assert list(conn) == ["one", "two"]
        with pytest.raises(ConnectionClosedOK):
            conn.recv()


def test_messages_that_an_iteration_had_received_are_not_lost() -> None:
    with server(burst) as url, connect(url) as conn:
        conn.send("go")
        for message in conn:
            assert message == "0"
            break
        assert conn.recv() == "1"
        wait_until(lambda: conn.unread > 0)
        assert conn.recv(decode=False) == b"2"
        rest = conn.recv_many(max=1)
        while len(rest) < 97:
            rest += conn.recv_many()
        assert rest == [str(number) for number in range(3, 100)]


def test_a_recv_that_timed_out_loses_nothing() -> None:
    with server() as url, connect(url) as conn:
        for number in range(50):
            conn.send(str(number))
            try:
                message = conn.recv(timeout=0.0)
            except TimeoutError:
                message = conn.recv(timeout=10)
            assert message == str(number)
        with pytest.raises(WaitTimeout, match=r"recv took longer than 0\.01 s"):
            conn.recv(timeout=0.01)


def test_a_send_that_timed_out_tells_how_many_were_accepted() -> None:
    batch = BatchConfig(max_pending_messages=10, batch_size=10)
    with server(deaf) as url, connect(url, batch=batch, reliable=False, close_timeout=0.1) as conn:
        with pytest.raises(WaitTimeout) as caught:
            conn.send_many(["x" * 100_000] * 2000, timeout=0.2)
        assert 0 < caught.value.accepted < 2000
        with pytest.raises(WaitTimeout) as caught:
            conn.send("x" * 100_000, timeout=0.05)
        assert caught.value.accepted == 0


def test_several_threads_send_and_one_receives() -> None:
    with server() as url, connect(url) as conn:

        def work(thread: int) -> Any:
            if thread:
                for number in range(100):
                    conn.send(f"{thread} {number}")
                return None
            return [conn.recv(timeout=20) for _ in range(700)]

        received = all_at_once(8, work)[0]
        for thread in range(1, 8):
            assert [m for m in received if m.startswith(f"{thread} ")] == [f"{thread} {n}" for n in range(100)]


def test_two_threads_that_receive_are_told() -> None:
    with server() as url, connect(url) as conn:

        def work(thread: int) -> Any:
            return conn.recv(timeout=0.5)

        results = all_at_once(2, work)
        assert {type(result) for result in results} == {ConcurrencyError, WaitTimeout}


@pytest.mark.parametrize("message", [{"a": 1}, 7])
def test_what_is_no_message_is_refused(message: Any) -> None:
    with server() as url, connect(url) as conn:
        with pytest.raises(MessageTypeError):
            conn.send(message)
        with pytest.raises(MessageTypeError):
            conn.send_many([message], timeout=10)
        with pytest.raises(MessageTypeError, match="use send for one message"):
            conn.send_many("text")


def test_a_server_that_is_killed_ends_whoever_waits() -> None:
    connections: list[Any] = []

    async def remember(conn: Any) -> None:
        connections.append(conn)
        await conn.wait_closed()

    with in_thread(serving("websockets", remember)) as (one, loop), connect(url_of(one)) as conn:
        wait_until(lambda: len(connections) == 1)
        threading.Timer(0.05, lambda: loop.call_soon_threadsafe(connections[0].transport.abort)).start()
        with pytest.raises(ConnectionClosedError):
            conn.recv(timeout=10)
        with pytest.raises(ConnectionClosedError):
            conn.send("x")


def test_an_exception_keeps_its_type_and_where_it_was_raised() -> None:
    with pytest.raises(ConnectionRefusedError) as caught:
        connect(f"ws://127.0.0.1:{closed_port()}")
    frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert frames[0] == test_an_exception_keeps_its_type_and_where_it_was_raised.__name__
    assert "_open_once" in frames


def test_an_exception_is_not_kept_alive_by_its_own_traceback() -> None:
    import gc
    import weakref

    with server(kind="websockets") as url, connect(url) as conn:
        gc.collect()
        gc.disable()
        try:
            try:
                conn.delivered()
            except EnvelopeRefused as exc:
                seen = weakref.ref(exc)
            wait_until(lambda: seen() is None, 1.0)
        finally:
            gc.enable()


def test_keyboard_interrupt_cancels_what_is_waited_for() -> None:
    with server() as url, connect(url) as conn:
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            conn.recv()
        assert time.monotonic() - began < 5
        conn.send("x")
        assert conn.recv(timeout=10) == "x"  # nobody else receives


def test_keyboard_interrupt_in_connect_leaves_no_socket() -> None:
    reached = threading.Event()
    gone = threading.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    class Mute:
        async def __aenter__(self) -> int:
            self.server = await asyncio.start_server(mute, "127.0.0.1", 0)
            return int(self.server.sockets[0].getsockname()[1])

        async def __aexit__(self, *exc: object) -> None:
            self.server.close()

    def interrupt() -> None:
        reached.wait(10)
        os.kill(os.getpid(), signal.SIGINT)  # which the main thread gets

    with in_thread(Mute()) as (port, _):
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            connect(f"ws://127.0.0.1:{port}")
        assert gone.wait(10)


def test_a_close_that_is_refused_leaves_the_connection_open() -> None:
    with server() as url, connect(url) as conn:
        with pytest.raises(Exception, match="close reason of 200 bytes"):
            conn.close(reason="x" * 200)
        conn.send("x")
        assert conn.recv(timeout=10) == "x"
        conn.close(4000, "bye")
        assert conn.close_code == 4000
        with pytest.raises((ConnectionClosedOK, ConnectionClosedError, LoopEnded)):
            conn.send("x")


def test_a_block_that_raises_closes_with_an_error() -> None:
    with server() as url, pytest.raises(KeyError), connect(url) as conn:
        raise KeyError
    assert conn.close_code == 1011


async def test_connecting_from_an_event_loop_is_refused() -> None:
    with pytest.raises(BlockingCall, match="connect waits, and would block"):
        connect("ws://127.0.0.1:1")


# Lent


SMALL = PerformanceConfig(pool=ConnectionPoolConfig(max_connections=1, min_connections=0))


def test_a_connection_is_lent_and_returned() -> None:
    with server() as url, PerformanceMiddleware(SMALL) as pipe:
        for number in range(3):
            with pipe.connection(url) as conn:
                conn.send("x")
                assert conn.recv(timeout=10) == "x"
                assert conn.url == url
                assert conn.is_connected
                assert conn.is_healthy()
                assert conn.request_count == number + 1
                with pytest.raises(PoolExhausted):
                    pipe.connection(url, timeout=0.05)
        with pytest.raises(LeaseReturned):
            conn.send("x")
        assert "returned" in repr(conn)
        assert pipe.stats().pool.opened == 1


@pytest.mark.parametrize("end", ["with", "release"])
def test_a_connection_with_messages_that_nobody_took_is_not_lent_again(end: str) -> None:
    with server(burst) as url, PerformanceMiddleware(SMALL) as pipe:
        conn = pipe.connection(url)
        conn.send("go")
        while not conn._here:
            next(iter(conn))
        if end == "with":
            with conn:
                pass
        else:
            conn.release()
            conn.release()
        with pipe.connection(url) as another:
            another.send("go")
            assert another.recv(timeout=10) == "0"
        assert pipe.stats().pool.opened == 2


def test_a_loan_can_be_discarded_and_a_block_that_raises_does() -> None:
    with server() as url, PerformanceMiddleware(SMALL) as pipe:
        pipe.connection(url).discard("odd")
        with contextlib.suppress(KeyError), pipe.connection(url) as conn:
            conn.send("x")
            raise KeyError
        with pipe.connection(url):
            assert pipe.stats().pool.opened == 3


def test_a_connection_of_one_s_own_outlives_the_middleware() -> None:
    with server() as url:
        with PerformanceMiddleware() as pipe:
            conn = pipe.connect(url)
            assert type(conn) is Connection
        conn.send("x")
        assert conn.recv(timeout=10) == "x"
        conn.close()


@pytest.mark.parametrize("timeout", [float("inf"), 1e12])
def test_a_time_without_end_is_one(timeout: float) -> None:
    with server() as url, connect(url) as conn, PerformanceMiddleware(max_queued=1) as pipe:
        conn.send("x", timeout=timeout)
        assert conn.recv(timeout=timeout) == "x"
        for _ in range(100):
            pipe.send(url, "x", timeout=timeout)
        pipe.flush(timeout=timeout)
