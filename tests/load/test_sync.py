"""Sixteen threads for as long as it takes to see what leaks."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
from pathlib import Path

import pytest

from penstock.errors import PerformanceError
from penstock.sync import PerformanceMiddleware, connect
from support.pipes import ledger
from support.rpcserver import RpcServer
from support.threads import all_at_once, in_thread, wait_until

pytestmark = [pytest.mark.load, pytest.mark.timeout(300)]


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_sixteen_threads_send_borrow_and_call_and_nothing_is_lost_or_left() -> None:
    server = RpcServer()
    with in_thread(ledger()) as (book, _), in_thread(server.up()):
        connect(book.url).close()  # a process's first uvloop opens a pipe for good
        before = descriptors(), threading.active_count()
        with PerformanceMiddleware(max_queued=1000) as pipe:
            rpc = pipe.rpc(server.url)

            def work(thread: int) -> int:
                chance = random.Random(thread)
                sent = 0
                for number in range(20_000):
                    pipe.send(book.url, f"{thread} {number}", wait=chance.random() < 0.001)
                    sent += 1
                    if chance.random() < 0.002:
                        assert rpc.call("echo", [thread, number], timeout=60) == [thread, number]
                    if chance.random() < 0.001:
                        with pipe.connection(book.url, timeout=60) as conn:
                            conn.send("echo")
                            assert conn.recv(timeout=60) == "echo"
                    if chance.random() < 0.001:
                        with connect(book.url) as conn:
                            conn.send("echo")
                            with contextlib.suppress(TimeoutError):
                                conn.recv(timeout=chance.choice([0.0, 0.0001, 60]))
                return sent

            assert all_at_once(16, work, seconds=240) == [20_000] * 16
            pipe.drain()
        wait_until(lambda: sum(message != "echo" for message in book.messages) == 320_000)
        of_threads = [message.split() for message in book.messages if message != "echo"]
        for thread in range(16):
            assert [int(number) for one, number in of_threads if one == str(thread)] == list(range(20_000))
        wait_until(lambda: (descriptors(), threading.active_count()) <= before)


def test_a_server_that_is_killed_again_and_again_loses_nothing_silently() -> None:
    given_back: set[str] = set()
    arrived: set[str] = set()
    with PerformanceMiddleware(max_queued=200) as pipe:
        for turn in range(20):
            with in_thread(ledger()) as (book, _):

                def work(thread: int, url: str = book.url, turn: int = turn) -> None:
                    for number in range(300):
                        message = f"{turn} {thread} {number}"
                        try:
                            pipe.send(url, message)
                        except PerformanceError as exc:
                            given_back.update(map(str, getattr(exc, "messages", ())), [message])

                assert all_at_once(8, work) == [None] * 8
                pipe.drain(book.url)
                wait_until(lambda: len(book.messages) >= 2400 - len(given_back))
                arrived.update(book.messages)
    assert len(arrived | given_back) == 20 * 2400
