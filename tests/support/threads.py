"""Servers in threads of their own, for programs without an event loop."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@contextmanager
def in_thread(serving: AbstractAsyncContextManager[T]) -> Iterator[tuple[T, asyncio.AbstractEventLoop]]:
    """What ``serving`` gives, entered in an event loop of its own, and that loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        entered = asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(10)
        try:
            yield entered, loop
        finally:
            asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.002)


def all_at_once(number: int, work: Callable[[int], object], seconds: float = 50.0) -> list[Any]:
    """What ``work`` gives or raises in each of so many threads, which begin together."""
    results: list[Any] = [None] * number
    barrier = threading.Barrier(number)

    def run(one: int) -> None:
        barrier.wait()
        try:
            results[one] = work(one)
        except Exception as exc:
            results[one] = exc

    threads = [threading.Thread(target=run, args=(one,)) for one in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), "a thread did not end"
    return results


def closed_port() -> int:
    """Where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
