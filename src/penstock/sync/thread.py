"""The event loop in the background: one for the process, for as long as somebody needs it."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
from asyncio import _get_running_loop  # tells at a twelfth of the price of an exception that none runs
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from threading import Lock, Thread, current_thread
from typing import Any, TypeVar

from penstock.errors import BlockingCall, InheritedByFork, LoopEnded
from penstock.sync.call import Call
from penstock.sync.callbacks import CallbackThreads

logger = logging.getLogger("penstock.sync")

T = TypeVar("T")

AT_EXIT = 2.0
"""Seconds that a program's exit waits for what is still open to be closed."""

PATIENCE = 1.0
"""Seconds for an operation to end whose caller was interrupted."""

Close = Callable[[], Coroutine[Any, Any, object]]


class LoopThread:
    """An event loop, and the thread in which it runs.

    Threads hand it functions to call. Those that come while it is busy are gathered: it is woken once for all of them.
    """

    def __init__(self) -> None:
        "".encode("idna")  # loads what whoever resolves names needs, in a thread that a fork does not wait for
        library = import_module("uvloop" if find_spec("uvloop") else "asyncio")
        self.loop: asyncio.AbstractEventLoop = library.new_event_loop()
        self.is_foreign = False
        """Whether this is a child process, and the thread was left behind in its parent."""
        self.closers: dict[object, Close] = {}
        """How to close what is open, by what has it; guarded by `_guard`."""
        self._inbox: list[Callable[[], None]] = []
        self._woken = False
        self._ended = False
        self._lock = Lock()
        self._held: Lock
        """What the loop waits for during a fork."""
        self._callbacks = CallbackThreads(self.loop)
        self._thread = Thread(target=self._run, name="penstock-sync", daemon=True)
        self._thread.start()

    # From all threads

    def check(self, call: str) -> None:
        """Raise unless ``call`` may wait here.

        Raises:
            BlockingCall: an event loop runs in this thread.
            InheritedByFork: this is a child process.
        """
        if self.is_foreign:
            raise InheritedByFork(call)
        if _get_running_loop() is not None:
            raise BlockingCall(call)

    def run(self, name: str, work: Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        """What ``work`` gives, called and awaited in the loop.

        It is cancelled there after ``timeout`` seconds, or when the waiting is interrupted, as by KeyboardInterrupt.

        Raises:
            WaitTimeout: it took longer.
            LoopEnded: the loop did not wait for its end.
            BlockingCall, InheritedByFork: see `check`.
            BaseException: what ``work`` raises, as it is.
        """
        self.check(name)
        call = Call(name, work, self.loop)
        self.post(name, call.start)
        try:
            try:
                in_time = call.wait(timeout)
            except BaseException:
                self.post(name, call.cancel)
                call.wait(PATIENCE)
                raise
            if not in_time:
                self.post(name, call.cancel)
                call.wait(None)
            return call.outcome(timeout)
        finally:
            del call  # its traceback keeps this frame

    def post(self, name: str, function: Callable[[], None]) -> None:
        """Have the loop call a function that does not raise, after those that were posted before, and do not wait.

        Raises:
            LoopEnded: it has ended.
        """
        with self._lock:
            if self._ended:
                raise LoopEnded(name)
            self._inbox.append(function)
            if not self._woken:
                self._woken = True
                self.loop.call_soon_threadsafe(self._take)

    def in_callback_thread(self, function: Callable[..., object], *args: Any) -> asyncio.Future[object]:
        """Call a function that may block in another thread, which resolves no host names; to be called in the loop."""
        return self._callbacks.call(partial(function, *args))

    # In the loop

    def _take(self) -> None:
        with self._lock:
            inbox, self._inbox = self._inbox, []
            self._woken = False
        for function in inbox:
            function()

    def _run(self) -> None:
        loop = self.loop
        try:
            loop.run_forever()
        finally:
            with self._lock:
                self._ended = True  # nothing is posted any more
            self._take()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            self._callbacks.end()
            loop.close()

    # Its end, and forks

    def hold(self) -> None:
        """Have the loop stop between two of its tasks until `go_on`: a fork is to find no lock that its thread has.

        A module that is being imported is locked, for one. It is waited for `PATIENCE` seconds; it may be stuck.
        """
        reached, held = Lock(), Lock()
        reached.acquire()
        held.acquire()

        def stand_still() -> None:
            reached.release()
            held.acquire()

        self._held = held
        with suppress(LoopEnded):
            self.post("fork", stand_still)
            reached.acquire(timeout=PATIENCE)

    def go_on(self) -> None:
        """The fork is done."""
        self._held.release()

    @property
    def is_here(self) -> bool:
        """Whether this is its thread."""
        return current_thread() is self._thread

    def close_all(self, timeout: float) -> None:
        """Close what is open, in at most ``timeout`` seconds."""
        with _guard:
            closers = list(self.closers.values())

        async def close_them() -> list[object]:
            return await asyncio.gather(*(close() for close in closers), return_exceptions=True)

        try:
            failures = self.run("exit", close_them, timeout)
        except TimeoutError:
            logger.error("%d objects of penstock.sync were open at exit, and could not be closed in time", len(closers))
        else:
            for failure in failures:
                if isinstance(failure, Exception):
                    logger.error("at exit: %s", failure)

    def end(self) -> None:
        """Cancel what still runs, close the loop, and wait for that."""
        self.post("end", self.loop.stop)
        self._thread.join(AT_EXIT)


_guard = Lock()
_shared: LoopThread | None = None
_forking: LoopThread | None = None
"""Whose thread stands still for a fork."""


def adopt(owner: object, close: Close) -> LoopThread:
    """The process's loop, started if there is none, for an object that `dismiss` is called for when it is closed.

    ``close`` ends in the loop what the object has, if it is still open when the program exits.
    """
    global _shared  # noqa: PLW0603 - there is one in a process
    with _guard:
        if _shared is None:
            _shared = LoopThread()
        _shared.closers[owner] = close
        return _shared


def dismiss(owner: object, thread: LoopThread) -> None:
    """An object is closed; with the last one ends the loop."""
    global _shared  # noqa: PLW0603
    if thread.is_foreign:
        return
    with _guard:
        if thread.closers.pop(owner, None) is None or thread.closers or thread is not _shared:
            return
        _shared = None
    thread.end()


def _at_exit() -> None:
    global _shared
    with _guard:
        thread, _shared = _shared, None
    if thread is not None:
        thread.close_all(AT_EXIT)
        thread.end()


def _before_fork() -> None:
    global _forking  # noqa: PLW0603
    _forking = _shared
    if _forking is not None and not _forking.is_here:
        _forking.hold()


def _in_parent() -> None:
    if _forking is not None and not _forking.is_here:
        _forking.go_on()


def _in_child() -> None:
    """Leave the parent's loop to the parent, and its locks, which nobody here would release."""
    global _guard, _shared
    if _shared is not None:
        _shared.is_foreign = True
    _guard, _shared = Lock(), None


atexit.register(_at_exit)
os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
