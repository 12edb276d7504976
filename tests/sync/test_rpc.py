"""Calls from threads."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from penstock import CallTimeout, RpcError
from penstock.errors import LoopEnded, RpcClosed, WaitTimeout
from penstock.sync import PerformanceMiddleware
from support.rpcserver import RpcServer
from support.threads import all_at_once, in_thread, wait_until


class Served:
    """A JSON-RPC server, and how to have it do something from this thread."""

    def __init__(self, server: RpcServer, loop: Any) -> None:
        self.server, self._loop = server, loop

    def emit(self, value: Any) -> None:
        asyncio.run_coroutine_threadsafe(self.server.emit(value), self._loop).result(10)


@pytest.fixture
def served() -> Iterator[Served]:
    server = RpcServer()
    with in_thread(server.up()) as (_, loop):
        yield Served(server, loop)


def test_calls_are_answered_as_in_the_asynchronous_client(served: Served) -> None:
    with PerformanceMiddleware() as pipe:
        rpc = pipe.rpc(served.server.url)
        assert rpc.call("echo", ["x"], timeout=10) == ["x"]
        with pytest.raises(RpcError):
            rpc.call("fail")
        with pytest.raises(CallTimeout):
            rpc.call("never", timeout=0.05)
        answers = rpc.batch([("echo", [1]), "null", ("fail", None)])
        assert answers[:2] == [[1], None]
        assert isinstance(answers[2], RpcError)
        rpc.notify("told", ["it"])
        wait_until(lambda: served.server.times("told") == 1)
        assert rpc.stats().answered == 5
        assert "sync" in repr(rpc)
    with pytest.raises(LoopEnded):
        rpc.call("echo")


def test_calls_of_sixteen_threads_each_get_their_own_answer(served: Served) -> None:
    with PerformanceMiddleware() as pipe:
        rpc = pipe.rpc(served.server.url)

        def work(thread: int) -> bool:
            return all(rpc.call("echo", [thread, number]) == [thread, number] for number in range(50))

        assert all_at_once(16, work) == [True] * 16


def test_events_of_a_subscription_are_iterated_over(served: Served) -> None:
    with PerformanceMiddleware() as pipe:
        rpc = pipe.rpc(served.server.url)
        with rpc.subscribe("subscribe", ["news"]) as events:
            for number in range(3):
                served.emit(number)
            assert [next(events) for _ in range(2)] == [0, 1]
            assert events.get(timeout=10) == 2
            with pytest.raises(WaitTimeout):
                events.get(timeout=0.01)
            served.emit("late")
            assert events.get(timeout=10) == "late"
            assert "confirmed" in repr(events)
        assert list(events) == []
        wait_until(lambda: served.server.times("unsubscribe") == 1)


def test_a_subscription_that_is_refused_raises(served: Served) -> None:
    with PerformanceMiddleware() as pipe, pytest.raises(RpcError):
        pipe.rpc(served.server.url).subscribe("fail", unsubscribe="x").__enter__()


def test_closing_ends_calls_that_wait_in_other_threads(served: Served) -> None:
    with PerformanceMiddleware() as pipe:
        rpc = pipe.rpc(served.server.url)

        def work(thread: int) -> None:
            if thread:
                rpc.call("never", timeout=None)
            else:
                wait_until(lambda: served.server.times("never") == 3)
                pipe.close()

        closed, *others = all_at_once(4, work)
        assert closed is None
        assert all(isinstance(other, RpcClosed) for other in others)


def test_keyboard_interrupt_cancels_a_call(served: Served) -> None:
    with PerformanceMiddleware() as pipe:
        rpc = pipe.rpc(served.server.url)
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            rpc.call("never", timeout=None)
        wait_until(lambda: rpc.stats().in_flight == 0)
