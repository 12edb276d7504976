"""The event loop in the background: one for the process, gone when nobody needs it, the parent's alone after a fork."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import InvalidURI

from penstock.errors import LoopEnded
from penstock.sync import PerformanceMiddleware, connect
from penstock.sync.thread import LoopThread, adopt, dismiss
from support.pipes import Ledger
from support.threads import all_at_once, closed_port, wait_until


def background_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "penstock-sync"]


def test_all_objects_share_one_thread_that_ends_with_the_last(book: Ledger) -> None:
    with PerformanceMiddleware() as one:
        with PerformanceMiddleware() as two, connect(book.url) as conn:
            assert one._thread is two._thread is conn._thread
            assert background_threads() == ["penstock-sync"]
        assert background_threads() == ["penstock-sync"]
    assert background_threads() == []
    with connect(book.url):
        assert background_threads() == ["penstock-sync"]
    assert background_threads() == []


def test_threads_that_open_and_close_at_the_same_time_leave_nothing(book: Ledger) -> None:
    connect(book.url).close()  # a process's first uvloop opens a pipe for good
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))

    def work(thread: int) -> None:
        for _ in range(5):
            with connect(book.url) as conn:
                conn.send("echo")
                assert conn.recv(timeout=20) == "echo"

    assert all_at_once(16, work) == [None] * 16
    assert background_threads() == []
    gc.collect()
    wait_until(lambda: len(list(descriptors.iterdir())) <= before)


@pytest.mark.parametrize(
    ("fails", "error"),
    [
        (lambda: connect(f"ws://127.0.0.1:{closed_port()}"), ConnectionRefusedError),
        (lambda: connect("http://127.0.0.1"), InvalidURI),
        (lambda: PerformanceMiddleware(endpoints={"ws://localhost": []}), ValueError),
    ],
)
def test_what_could_not_be_opened_keeps_no_thread(fails: Callable[[], object], error: type[Exception]) -> None:
    with pytest.raises(error):
        fails()
    assert background_threads() == []


def test_a_call_that_waits_when_the_loop_ends_is_told() -> None:
    owner = object()

    async def nothing() -> None: ...

    thread = adopt(owner, nothing)

    def work(number: int) -> None:
        if number:
            thread.run("sleep", lambda: asyncio.sleep(60))
        else:
            wait_until(lambda: len(asyncio.all_tasks(thread.loop)) == 3)
            dismiss(owner, thread)

    ended, *others = all_at_once(4, work)
    assert ended is None
    assert [str(other).partition(";")[0] for other in others] == [
        "sleep has ended with the event loop behind it: it was closed, or the program exits"
    ] * 3
    with pytest.raises(LoopEnded):
        thread.run("sleep", lambda: asyncio.sleep(0))


def test_calls_are_run_in_the_order_in_which_a_thread_posts_them() -> None:
    thread = LoopThread()
    seen: list[int] = []
    for number in range(1000):
        thread.post("x", lambda number=number: seen.append(number))  # type: ignore[misc]
    thread.end()
    assert seen == list(range(1000))


# Exit and fork, in processes of their own


def run(program: str, url: str, *, seconds: float = 10.0) -> subprocess.CompletedProcess[str]:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), url],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert time.monotonic() - began < seconds, "it did not exit promptly"
    return done


def test_a_program_that_closes_nothing_exits_at_once_and_sends_what_it_queued(book: Ledger) -> None:
    done = run(
        """
        import sys
        from penstock.sync import PerformanceMiddleware, connect

        pipe = PerformanceMiddleware()
        conn = connect(sys.argv[1])
        iterator = iter(conn)
        for number in range(1000):
            pipe.send(sys.argv[1], str(number))
        """,
        book.url,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert book.messages == [str(number) for number in range(1000)]
    wait_until(lambda: all(conn.close_code == 1000 for conn in book.connections))


def test_a_program_that_exits_says_what_could_not_be_sent() -> None:
    done = run(
        """
        import sys
        from penstock.sync import PerformanceMiddleware

        PerformanceMiddleware().send(sys.argv[1], "lost")
        """,
        "ws://127.0.0.1:1/",
    )
    assert done.returncode == 0
    assert "at exit: 1 messages to ws://127.0.0.1:1/ were not sent" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_program_exits_though_daemon_threads_wait(book: Ledger) -> None:
    done = run(
        """
        import sys, threading, time
        from penstock.sync import PerformanceMiddleware, connect

        conn = connect(sys.argv[1])
        pipe = PerformanceMiddleware()

        def receive():
            try:
                conn.recv()
            except Exception:
                pass

        def send():
            try:
                while True:
                    pipe.send(sys.argv[1], "x" * 1000)
            except Exception:
                pass

        for work in (receive, send):
            threading.Thread(target=work, daemon=True).start()
        time.sleep(0.1)
        """,
        book.url,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_program_exits_though_a_callback_blocks_for_ever(book: Ledger) -> None:
    done = run(
        """
        import sys, threading
        from penstock.sync import PerformanceMiddleware

        called = threading.Event()

        def block(url, message):
            called.set()
            threading.Event().wait()

        pipe = PerformanceMiddleware(on_message=block)
        pipe.send(sys.argv[1], "echo")
        assert called.wait(10)
        """,
        book.url,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_a_program_that_waits(book: Ledger) -> None:
    program = """
        import sys
        from penstock.sync import connect

        with connect(sys.argv[1]) as conn:
            print("ready", flush=True)
            conn.recv()
        """
    command = [sys.executable, "-c", textwrap.dedent(program), book.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(2)
        _, errors = process.communicate(timeout=10)
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    wait_until(lambda: book.connections[0].close_code == 1011)


def test_a_child_process_gets_a_loop_of_its_own_and_is_refused_its_parent_s(book: Ledger) -> None:
    done = run(
        """
        import os, sys
        from penstock.errors import InheritedByFork
        from penstock.sync import PerformanceMiddleware, connect

        url = sys.argv[1]
        pipe, conn = PerformanceMiddleware(), connect(url)
        pipe.send(url, "parent", wait=True)
        child = os.fork()
        if not child:
            for call in (lambda: pipe.send(url, "x"), pipe.stats, lambda: conn.send("x"), conn.recv):
                try:
                    call()
                except InheritedByFork as exc:
                    assert "make another" in str(exc)
                else:
                    os._exit(1)
            pipe.close()
            conn.close()
            with PerformanceMiddleware() as own:
                own.send(url, "child", wait=True)
            with connect(url) as conn:
                conn.send("echo")
                assert conn.recv(timeout=10) == "echo"
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        conn.send("echo")
        assert conn.recv(timeout=10) == "echo"
        pipe.close()
        conn.close()
        """,
        book.url,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(book.messages) == ["child", "echo", "echo", "parent"]


def test_a_fork_while_another_thread_sends_does_not_hang_the_child(book: Ledger) -> None:
    done = run(
        """
        import os, sys, threading
        from penstock.sync import PerformanceMiddleware

        url = sys.argv[1]
        with PerformanceMiddleware(max_queued=100) as pipe:
            stop = threading.Event()

            def send():
                while not stop.wait(0.0002):
                    pipe.send(url, "x")

            threads = [threading.Thread(target=send) for _ in range(4)]
            for thread in threads:
                thread.start()
            for _ in range(5):
                child = os.fork()
                if not child:
                    with PerformanceMiddleware() as own:
                        own.send(url, "child")
                    os._exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            stop.set()
            for thread in threads:
                thread.join()
        """,
        book.url,
        seconds=20.0,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert book.messages.count("child") == 5
