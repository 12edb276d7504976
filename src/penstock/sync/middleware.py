"""The front door for programs without asyncio."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import _get_running_loop  # see `penstock.sync.thread`
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from penstock.config.performance import PerformanceConfig
from penstock.connection.messages import DataLike, encode
from penstock.errors import LoopEnded, MiddlewareClosed, SendingFailed
from penstock.message import NORMAL, Priority
from penstock.middleware.middleware import PerformanceMiddleware as AsyncMiddleware
from penstock.middleware.stats import PerformanceStats
from penstock.pool.target import check_url
from penstock.sync.connection import Connection, opened
from penstock.sync.intake import Intake, Letter
from penstock.sync.lease import PooledConnection
from penstock.sync.rpc import Rpc
from penstock.sync.thread import AT_EXIT, adopt, dismiss
from penstock.transport.base import Data

logger = logging.getLogger("penstock.sync")

T = TypeVar("T")

MAX_QUEUED, MAX_QUEUED_BYTES = 8192, 16 * 1024 * 1024

LEAST = 0.1
"""Seconds to close connections in, though the time for writing is over."""


class PerformanceMiddleware:
    """`penstock.PerformanceMiddleware` for programs without asyncio; every call may be made from every thread.

    ::

        with PerformanceMiddleware() as pipe:
            pipe.send("ws://localhost:8765/events", "hello")
            with pipe.connection("ws://localhost:8765") as conn:
                conn.send("question")
                print(conn.recv(timeout=10))
            print(pipe.rpc("ws://localhost:8545").call("eth_chainId", timeout=10))

    Close it, with ``with`` or ``close``. ``timeout`` is seconds, None for no limit; a call that takes longer is
    cancelled and raises `WaitTimeout`, which is a TimeoutError, and KeyboardInterrupt cancels it as well. Every method
    raises `BlockingCall` in a thread in which an event loop runs, `InheritedByFork` in a child process, and
    `MiddlewareClosed` once it is closed.

    Args:
        config: as there.
        on_message: called with URL and message for what a server sends on connections that are used by ``send`` alone,
            in a thread of its own: it may block, and make calls of this. What it does not take in time waits at the
            server.
        on_undelivered: called likewise, with URL and messages of which it is not known whether they arrived.
        max_queued: messages to each URL that may wait for the background thread; then ``send`` waits.
        max_queued_bytes: the same, in characters of text and bytes.
        options: the others of `penstock.PerformanceMiddleware`; functions among them are called in the loop's thread.
    """

    def __init__(
        self,
        config: PerformanceConfig | None = None,
        *,
        on_message: Callable[[str, Data], object] | None = None,
        on_undelivered: Callable[[str, Sequence[Data]], object] | None = None,
        max_queued: int = MAX_QUEUED,
        max_queued_bytes: int = MAX_QUEUED_BYTES,
        **options: Any,
    ) -> None:
        for name, value in (("max_queued", max_queued), ("max_queued_bytes", max_queued_bytes)):
            if value < 1:
                raise ValueError(f"{name}={value!r}: must be at least 1")
        self._max_queued, self._max_bytes = max_queued, max_queued_bytes
        self._intakes: dict[str, Intake] = {}
        self._is_closed = False
        self._pipe: AsyncMiddleware
        self._thread = thread = adopt(self, self._close_at_exit)
        if on_message is not None:
            options["on_message"] = partial(thread.in_callback_thread, on_message)
        if on_undelivered is not None:
            options["on_undelivered"] = partial(thread.in_callback_thread, _logged, on_undelivered)

        async def start() -> AsyncMiddleware:
            return await AsyncMiddleware(config, **options).__aenter__()

        try:
            self._pipe = thread.run("PerformanceMiddleware", start)
        except BaseException:
            dismiss(self, thread)
            raise

    # The way out

    def send(
        self,
        url: str,
        message: DataLike,
        *,
        priority: Priority = NORMAL,
        key: str | None = None,
        ttl: float | None = None,
        timeout: float | None = None,
        wait: bool = False,
    ) -> None:
        """Queue a message for the server at ``url``; those of one thread to one URL leave in order.

        It returns when the message is in this process's queue, and waits only while that is full. The background thread
        has a connection accept it. What none accepts is not lost silently: that message, and all to this URL that are
        queued behind it, are given back in a `SendingFailed`. It is raised once, by the first of these: the next
        ``send`` to this URL, which then has not queued its own message; ``flush``, ``drain``, ``close``. What becomes
        of a message that was accepted, and of ``priority``, ``key`` and ``ttl``, is told at
        `penstock.PerformanceMiddleware.send`.

        Args:
            timeout: seconds to wait for room, or with ``wait`` for all.
            wait: return when a connection has accepted it, after those that were queued before, and raise what becomes
                of it here.

        Raises:
            SendingFailed: earlier messages were not sent; neither is this one.
            WaitTimeout: it took longer; the message is not sent.
            MessageTypeError, SerializationError, ValueError: it is no message, or no URL; nothing is queued.
            MiddlewareClosed: it is closed.
            ConnectionFailed, PoolExhausted, ...: with ``wait``, as there.
        """
        thread = self._thread
        if thread.is_foreign or _get_running_loop() is not None:
            thread.check("send")
        intake = self._intakes.get(url)
        if intake is None:
            intake = self._new_intake(url)
        if type(message) is bytes or (type(message) is str and message.isascii()):
            data: Data = message
        else:
            _, payload = encode(message)
            data = message if isinstance(message, str) else payload
        if wait:
            self._run("send", partial(self._send_now, intake, data, priority=priority, key=key, ttl=ttl), timeout)
        elif priority is NORMAL and key is None and ttl is None:
            intake.put(data, len(data), timeout)
        else:
            expires_at = None if ttl is None else time.monotonic() + ttl
            intake.put(Letter(data, priority, key, expires_at), len(data), timeout)

    async def _send_now(self, intake: Intake, message: Data, **options: Any) -> None:
        await intake.settled()
        await self._pipe.send(intake.url, message, **options)

    def _new_intake(self, url: str) -> Intake:
        check_url(url)
        if self._is_closed:
            raise MiddlewareClosed
        intake = Intake(
            url,
            self._thread,
            partial(self._pipe.send, url),
            max_messages=self._max_queued,
            max_bytes=self._max_bytes,
        )
        return self._intakes.setdefault(url, intake)  # another thread may have been here

    def connection(self, url: str, timeout: float | None = None, **options: Any) -> PooledConnection:
        """Borrow a connection, until it is released or its ``with`` block ends.

        Args:
            timeout: seconds to wait; 0 means now or never, None the pool's own.
            options: those of `ConnectionPool.get_connection`.

        Raises:
            PoolExhausted: none became free in time.
            ConnectionFailed: the peer refused a new one.
            MiddlewareClosed: it is closed.
        """

        async def borrow() -> PooledConnection:
            return PooledConnection(await self._pipe.connection(url, timeout, **options), self._thread)

        return self._run("connection", borrow)

    def rpc(self, url: str, protocol: str = "jsonrpc", **options: Any) -> Rpc:
        """A client for calls to the server at ``url``; see `penstock.PerformanceMiddleware.rpc`."""

        async def make() -> Rpc:
            return Rpc(self._pipe.rpc(url, protocol, **options), self._thread)  # type: ignore[call-overload]

        return self._run("rpc", make)

    def connect(self, url: str, **options: Any) -> Connection:
        """Open a connection of your own, as configured; ``options`` are those of `penstock.connect`."""

        return opened(lambda: self._pipe.connect(url, **options))

    # What it is doing

    @property
    def queued(self) -> int:
        """Messages that wait for the background thread, or are on their way to a connection there."""
        return sum(intake.pending for intake in list(self._intakes.values()))

    def stats(self) -> PerformanceStats:
        """What the stages have and have done."""

        async def stats() -> PerformanceStats:
            return self._pipe.stats()

        return self._run("stats", stats)

    # Life

    def _run(self, name: str, work: Callable[[], Awaitable[T]], timeout: float | None = None) -> T:
        if self._is_closed and self not in self._thread.closers:
            raise MiddlewareClosed
        try:
            return self._thread.run(name, work, timeout)
        except LoopEnded:
            if self._is_closed:
                raise MiddlewareClosed from None
            raise

    def flush(self, url: str | None = None, timeout: float | None = None) -> None:
        """Wait until what was queued for ``url`` (None: for all) is accepted by its connection.

        Raises:
            SendingFailed: it could not be; of several servers this is the first, the next call tells of the next.
            WaitTimeout: it took longer; it is still on its way.
        """
        self._run("flush", partial(self._settle, url), timeout)

    def drain(self, url: str | None = None, timeout: float | None = None) -> None:
        """Wait until what was queued for ``url`` (None: for all) is written, and retire its connections.

        Raises:
            SendingFailed: as ``flush``.
            DeliveryUnknown, ConnectionClosed: a connection ended before everything was taken.
            WaitTimeout: it took longer; it is still on its way.
        """

        async def drain() -> None:
            await self._settle(url)
            await self._pipe.drain(url)

        self._run("drain", drain, timeout)

    async def _settle(self, url: str | None) -> None:
        for intake in [intake for at, intake in self._intakes.items() if url is None or at == url]:
            await intake.settled()

    def close(self, timeout: float = 10.0) -> None:
        """Queue no more, write what was queued, and close all connections.

        What is not written after ``timeout`` seconds is not sent. It is closed though it raises; calling it again, or
        in a child process, does nothing. KeyboardInterrupt drops what is queued. What a connection had accepted and
        could not write is logged; call ``drain`` before to have it raised.

        Raises:
            SendingFailed: messages were not sent. Those of other servers, if there are any, are counted in the log.
        """
        if self._is_closed or self._thread.is_foreign:
            return
        self._thread.check("close")
        self._is_closed = True
        try:
            self._thread.run("close", partial(self._close, timeout))
        finally:
            dismiss(self, self._thread)

    async def _close(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        why: BaseException = MiddlewareClosed()
        intakes = list(self._intakes.values())
        for intake in intakes:
            intake.refuse()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(intake.emptied() for intake in intakes))
        except TimeoutError as exc:
            why = exc
        finally:
            for intake in intakes:
                await intake.end(why)
            await self._pipe.close(max(LEAST, deadline - time.monotonic()))
        _raise_first(_failures_of(intakes))

    async def _close_at_exit(self) -> None:
        self._is_closed = True
        await self._close(AT_EXIT * 0.75)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _failures_of(intakes: list[Intake]) -> list[SendingFailed]:
    failures = []
    for intake in intakes:
        try:
            intake.check()
        except SendingFailed as exc:
            failures.append(exc)
    return failures


def _raise_first(failures: list[SendingFailed]) -> None:
    """Raise one, and log the others."""
    for other in failures[1:]:
        logger.error("%s", other)
    if failures:
        raise failures[0]


def _logged(callback: Callable[..., object], *args: Any) -> None:
    try:
        callback(*args)
    except Exception:
        logger.exception("on_undelivered failed")
