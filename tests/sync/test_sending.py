"""`penstock.sync.PerformanceMiddleware.send`: from any thread, in order, within bounds, nothing lost silently."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest

import penstock
from penstock import ConnectionPoolConfig, PerformanceConfig, Priority
from penstock.config.sections import SendingConfig
from penstock.errors import (
    BlockingCall,
    ConnectionFailed,
    MessageTypeError,
    MiddlewareClosed,
    PoolExhausted,
    SendingFailed,
    SerializationError,
    WaitTimeout,
)
from penstock.sync import PerformanceMiddleware
from support.pipes import Ledger, ledger
from support.servers import port_of, serving
from support.threads import all_at_once, closed_port, in_thread, wait_until

IMPATIENT = PerformanceConfig(pool=ConnectionPoolConfig(acquire_timeout=0.2, connect_timeout=0.1))


class Gate:
    """Opens connections, but only once it is open itself."""

    def __init__(self) -> None:
        self._is_open = asyncio.Event()
        self._loop: Any = None
        self.asked = threading.Event()

    async def __call__(self, url: str, **options: Any) -> Any:
        self._loop = asyncio.get_running_loop()
        self.asked.set()
        await self._is_open.wait()
        return await penstock.connect(url)

    def open(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._is_open.set)


@contextmanager
def held_up(url: str, **options: Any) -> Iterator[tuple[PerformanceMiddleware, Gate]]:
    """A middleware whose loop has taken one message, "first", and waits for its connection."""
    gate = Gate()
    with PerformanceMiddleware(transport=gate, **options) as pipe:
        pipe.send(url, "first")
        assert gate.asked.wait(10)
        try:
            yield pipe, gate
        finally:
            gate.open()


@asynccontextmanager
async def ledger_at(book: Ledger, port: int) -> AsyncIterator[None]:
    async with penstock.serve(book.take, "127.0.0.1", port):
        yield


def test_messages_of_one_thread_arrive_in_order(book: Ledger) -> None:
    with PerformanceMiddleware() as pipe:
        for number in range(20_000):
            pipe.send(book.url, str(number))
        pipe.drain()
        wait_until(lambda: len(book.messages) == 20_000)
    assert book.messages == [str(number) for number in range(20_000)]


def test_sixteen_threads_each_in_order_to_two_servers() -> None:
    with (
        in_thread(ledger()) as (one, _),
        in_thread(ledger()) as (two, _),
        PerformanceMiddleware(max_queued=100) as pipe,
    ):

        def feed(thread: int) -> None:
            for number in range(500):
                pipe.send((one, two)[number % 2].url, f"{thread} {number}", wait=number % 100 == 99)

        assert all_at_once(16, feed) == [None] * 16
        pipe.close()
        wait_until(lambda: len(one.messages) + len(two.messages) == 8000)
        for thread in range(16):
            for parity, book in enumerate((one, two)):
                of_thread = [int(message.split()[1]) for message in book.messages if message.split()[0] == str(thread)]
                assert of_thread == list(range(parity, 500, 2))


def test_closing_writes_what_is_queued(book: Ledger) -> None:
    with PerformanceMiddleware() as pipe:
        for number in range(5000):
            pipe.send(book.url, str(number))
    wait_until(lambda: len(book.messages) == 5000)


def test_priority_and_key_are_passed_on(book: Ledger) -> None:
    with PerformanceMiddleware(PerformanceConfig(sending=SendingConfig(batch_timeout=60.0))) as pipe:
        pipe.send(book.url, b"low", priority=Priority.LOW)
        pipe.send(book.url, "old", key="k")
        pipe.send(book.url, "new", key="k")
        pipe.drain()
        wait_until(lambda: len(book.messages) == 2)
    assert book.messages == ["new", b"low"]


def test_time_in_the_queue_counts_for_ttl(book: Ledger) -> None:
    with held_up(book.url) as (pipe, gate):
        pipe.send(book.url, "too late", ttl=1e-9)
        pipe.send(book.url, "in time", ttl=60.0)
        gate.open()
        pipe.drain()
        wait_until(lambda: len(book.messages) == 2)
        assert pipe.stats().sending.dropped == {"expired": 1}
    assert book.messages == ["first", "in time"]


def test_a_buffer_is_copied_when_it_is_queued(book: Ledger) -> None:
    with held_up(book.url) as (pipe, gate):
        buffer = bytearray(b"before")
        pipe.send(book.url, buffer)
        buffer[:] = b"after!"
        gate.open()
        pipe.drain()
        wait_until(lambda: len(book.messages) == 2)
    assert book.messages[1] == b"before"


@pytest.mark.parametrize("bound", [{"max_queued": 3}, {"max_queued_bytes": 3}])
def test_a_full_queue_makes_callers_wait(book: Ledger, bound: dict[str, int]) -> None:
    with held_up(book.url, **bound) as (pipe, gate):
        for _ in range(3):
            pipe.send(book.url, "x", timeout=10)
        with pytest.raises(WaitTimeout, match=r"send took longer than 0\.05 s") as caught:
            pipe.send(book.url, "not sent", timeout=0.05)
        assert caught.value.accepted == 0
        assert pipe.queued == 4
        blocked = threading.Thread(target=pipe.send, args=(book.url, "late"))
        blocked.start()
        gate.open()
        blocked.join(10)
        pipe.drain()
        wait_until(lambda: len(book.messages) == 5)
        assert pipe.queued == 0
    assert book.messages == ["first", "x", "x", "x", "late"]


def test_a_message_longer_than_the_queue_is_sent(book: Ledger) -> None:
    with PerformanceMiddleware(max_queued_bytes=10) as pipe:
        for _ in range(3):
            pipe.send(book.url, "x" * 1000)
    wait_until(lambda: len(book.messages) == 3)


def test_wait_returns_when_it_is_accepted_and_is_cancelled_in_time(book: Ledger) -> None:
    with held_up(book.url) as (pipe, gate):
        with pytest.raises(WaitTimeout):
            pipe.send(book.url, "cancelled", wait=True, timeout=0.05)
        gate.open()
        pipe.send(book.url, "second", wait=True, timeout=10)
        assert pipe.queued == 0
        wait_until(lambda: len(book.messages) == 2)
    assert book.messages == ["first", "second"]


@pytest.mark.parametrize(
    ("message", "error"), [(7, MessageTypeError), ({"a": 1}, MessageTypeError), ("\ud800", SerializationError)]
)
def test_what_is_no_message_is_refused_at_once(book: Ledger, message: Any, error: type[Exception]) -> None:
    with PerformanceMiddleware() as pipe:
        with pytest.raises(error):
            pipe.send(book.url, message)
        assert pipe.queued == 0


def test_what_is_no_url_is_refused_at_once() -> None:
    with PerformanceMiddleware() as pipe, pytest.raises(ValueError, match="must begin with ws://"):
        pipe.send("http://localhost", "x")


# What cannot be sent


def fail(pipe: PerformanceMiddleware, url: str) -> None:
    """Have messages fail, and nobody told of it."""
    for number in range(3):
        pipe.send(url, str(number))
    wait_until(lambda: pipe.queued == 0)


def test_the_next_send_gives_back_what_was_not_sent_and_all_behind_it() -> None:
    url = f"ws://127.0.0.1:{closed_port()}"
    with PerformanceMiddleware(IMPATIENT) as pipe:
        fail(pipe, url)
        with pytest.raises(SendingFailed, match=f"3 messages to {url} were not sent") as caught:
            pipe.send(url, "not queued")
        assert (caught.value.url, caught.value.messages) == (url, ["0", "1", "2"])
        assert isinstance(caught.value.__cause__, ConnectionFailed)
        assert pipe.queued == 0


@pytest.mark.parametrize("call", ["flush", "drain", "close"])
def test_failures_are_told_once_by_whatever_asks_first(call: str) -> None:
    url = f"ws://127.0.0.1:{closed_port()}"
    with PerformanceMiddleware(IMPATIENT) as pipe:
        fail(pipe, url)
        with pytest.raises(SendingFailed) as caught:
            getattr(pipe, call)()
        assert caught.value.messages == ["0", "1", "2"]
        pipe.close()


def test_messages_with_options_are_given_back_as_they_were(book: Ledger) -> None:
    with held_up(book.url) as (pipe, _):
        pipe.send(book.url, b"data", priority=Priority.URGENT)
        with pytest.raises(SendingFailed) as caught:
            pipe.close(timeout=0.0)
    assert caught.value.messages == ["first", b"data"]


def test_failures_of_several_servers_are_raised_and_logged_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    urls = [f"ws://127.0.0.1:{closed_port()}/{path}" for path in "ab"]
    pipe = PerformanceMiddleware(IMPATIENT)
    for url in urls:
        fail(pipe, url)
    with pytest.raises(SendingFailed) as caught, caplog.at_level(logging.ERROR, "penstock.sync"):
        pipe.close()
    assert caught.value.url == urls[0]
    assert f"3 messages to {urls[1]} were not sent" in caplog.text


def test_threads_that_wait_for_room_are_told_of_the_failure_and_go_on() -> None:
    url = f"ws://127.0.0.1:{closed_port()}"
    sent = threading.Semaphore(0)

    with PerformanceMiddleware(IMPATIENT, max_queued=2) as pipe:

        def feed(thread: int) -> list[str]:
            given_back: list[str] = []
            for number in range(5):
                try:
                    pipe.send(url, f"{thread} {number}", timeout=20)
                except SendingFailed as exc:
                    given_back += [str(message) for message in exc.messages]
                    given_back.append(f"{thread} {number}")
                sent.release()
            return given_back

        given_back = [message for several in all_at_once(4, feed) for message in several]
        try:
            pipe.flush()
        except SendingFailed as exc:
            given_back += [str(message) for message in exc.messages]
    assert sorted(given_back) == [f"{thread} {number}" for thread in range(4) for number in range(5)]


def test_wait_raises_what_became_of_the_message_itself() -> None:
    url = f"ws://127.0.0.1:{closed_port()}"
    with PerformanceMiddleware(IMPATIENT) as pipe, pytest.raises(ConnectionFailed):
        pipe.send(url, "x", wait=True)


def test_what_close_has_no_time_for_is_given_back(book: Ledger) -> None:
    with held_up(book.url) as (pipe, _):
        pipe.send(book.url, "second")
        with pytest.raises(SendingFailed) as caught:
            pipe.close(timeout=0.05)
        assert caught.value.messages == ["first", "second"]
        assert isinstance(caught.value.__cause__, TimeoutError)
        with pytest.raises(MiddlewareClosed):
            pipe.send(book.url, "third")
        with pytest.raises(MiddlewareClosed):
            pipe.send(book.url + "new", "third")


def test_closing_lets_go_of_callers_that_wait_for_room(book: Ledger) -> None:
    with held_up(book.url, max_queued=1) as (pipe, _):
        pipe.send(book.url, "second")

        def work(thread: int) -> None:
            if thread:
                pipe.send(book.url, "no room")
            else:
                pipe.close(timeout=0.2)

        closing, waiting = all_at_once(2, work)
        assert isinstance(closing, SendingFailed) or closing is None
        assert isinstance(waiting, MiddlewareClosed | SendingFailed)
        if isinstance(waiting, SendingFailed):
            assert waiting.messages == ["first", "second"]


def test_a_server_that_was_killed_and_comes_back_gets_what_is_sent_then() -> None:
    book = Ledger()
    with PerformanceMiddleware(IMPATIENT) as pipe:
        with in_thread(serving("penstock-picows", book.take, reliable=False)) as (server, loop):
            port = port_of(server)
            url = f"ws://127.0.0.1:{port}"
            pipe.send(url, "one", wait=True)
            wait_until(lambda: book.messages == ["one"])
            loop.call_soon_threadsafe(book.connections[0].transport.abort)
        wait_until(lambda: pipe.stats().sending.breaks == 1)
        pipe.send(url, "two")
        with pytest.raises(SendingFailed) as caught:
            pipe.flush()
        assert caught.value.messages == ["two"]
        with in_thread(ledger_at(book, port)):

            def is_sent() -> bool:
                try:
                    pipe.send(url, "three", wait=True)
                except (ConnectionFailed, PoolExhausted):
                    return False
                return True

            wait_until(is_sent)
            wait_until(lambda: book.messages == ["one", "three"])
            pipe.close()


# Where it may be called


async def test_calls_from_an_event_loop_are_refused_with_a_remedy() -> None:
    with pytest.raises(BlockingCall, match=r"use the same of penstock there, or asyncio\.to_thread"):
        PerformanceMiddleware()
    pipe = await asyncio.to_thread(PerformanceMiddleware)
    for call in (lambda: pipe.send("ws://localhost", "x"), pipe.stats, pipe.close, pipe.flush):
        with pytest.raises(BlockingCall):
            call()
    await asyncio.to_thread(pipe.close)


def test_callbacks_may_block_and_call_the_middleware(book: Ledger) -> None:
    heard: list[tuple[str, Any]] = []
    done = threading.Event()

    def on_message(url: str, message: Any) -> None:
        heard.append((url, message))
        if len(heard) == 2:
            done.set()
        else:
            pipe.send(url, "echo", wait=True, timeout=10)

    with PerformanceMiddleware(on_message=on_message) as pipe:
        pipe.send(book.url, "echo")
        assert done.wait(10)
    assert heard == [(book.url, "echo")] * 2


@pytest.mark.parametrize("failure", [SystemExit("enough"), StopIteration(), LookupError()])
def test_whatever_a_callback_raises_is_logged_and_the_next_is_called(
    book: Ledger, caplog: pytest.LogCaptureFixture, failure: BaseException
) -> None:
    heard = []
    done = threading.Event()

    def on_message(url: str, message: Any) -> None:
        heard.append(message)
        if len(heard) == 1:
            raise failure
        done.set()

    with PerformanceMiddleware(on_message=on_message) as pipe:
        pipe.send(book.url, "echo")
        pipe.send(book.url, "echo")
        assert done.wait(10)
    assert len(heard) == 2
    assert f"on_message failed for a message from {book.url}" in caplog.text
    assert type(failure).__name__ in caplog.text


@pytest.mark.parametrize("is_loop_needed", [False, True])
def test_once_closed_every_call_says_so(book: Ledger, is_loop_needed: bool) -> None:
    pipe = PerformanceMiddleware()
    pipe.send(book.url, "x")
    rpc = partial(pipe.rpc, book.url)
    with PerformanceMiddleware() if is_loop_needed else nullcontext():
        pipe.close()
        for call in (
            partial(pipe.send, book.url, "x"),
            partial(pipe.send, book.url, "x", wait=True),
            partial(pipe.send, "ws://localhost:1/", "x"),
            partial(pipe.connection, book.url),
            partial(pipe.connect, book.url),
            rpc,
            pipe.flush,
            pipe.drain,
            pipe.stats,
        ):
            with pytest.raises(MiddlewareClosed):
                call()
        pipe.close()


@pytest.mark.parametrize("wrong", [{"max_queued": 0}, {"max_queued_bytes": -1}])
def test_bounds_are_checked(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        PerformanceMiddleware(**wrong)


def test_statistics_are_those_of_the_middleware(book: Ledger) -> None:
    with PerformanceMiddleware() as pipe:
        pipe.send(book.url, "x", wait=True)
        assert pipe.stats().sending.urls == 1
        assert pipe.stats().pool.opened == 1
