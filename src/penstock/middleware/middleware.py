"""The front door: the stages together, the way out and the way back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Hashable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, overload

from penstock.cache.cache import MessageCache
from penstock.config.performance import PerformanceConfig
from penstock.connection.accelerate import accelerate
from penstock.connection.connection import Connection
from penstock.errors import MiddlewareClosed, WrongLoop
from penstock.message import NORMAL, Priority
from penstock.metrics.alerts.manager import AlertManager
from penstock.metrics.collector import MetricsCollector
from penstock.metrics.traffic import traffic_samples
from penstock.middleware.answers import Answers, NoAnswers
from penstock.middleware.assembly import cache_of, manager_of, pool_config, sinks_of, tier_of
from penstock.middleware.carrier import OnMessage, OnUndelivered
from penstock.middleware.closing import Close, close_all, in_any_case
from penstock.middleware.control import Control
from penstock.middleware.lending import Lending
from penstock.middleware.line import Line, is_fault
from penstock.middleware.lines import Lines
from penstock.middleware.metrics import samples_of
from penstock.middleware.opening import Opening, TransportLike
from penstock.middleware.report import report
from penstock.middleware.stats import PerformanceStats
from penstock.pool.forks import remember
from penstock.pool.hooks import Hook
from penstock.pool.lease import PooledConnection
from penstock.pool.pool import ConnectionPool
from penstock.pool.target import check_url
from penstock.rpc.client import Client
from penstock.rpc.graphql import GraphQLRpc
from penstock.rpc.idjson import IdJsonRpc
from penstock.rpc.jsonrpc import Rpc
from penstock.rpc.opening import over
from penstock.transport.base import ConnectionClosed, Data

logger = logging.getLogger("penstock.middleware")

SHORTEST_PAUSE = 0.01
"""Seconds between two looks for what is idle, at least."""


class PerformanceMiddleware:
    """Connections from a pool, messages in batches, answers from a cache; measured, and passed by where it fails.

    ::

        async with PerformanceMiddleware() as pipe:
            await pipe.send("ws://localhost:8765/events", "hello")
            async with pipe.connection("ws://localhost:8765") as conn:
                await conn.send("question")
                print(await conn.recv())
            print(await pipe.rpc("ws://localhost:8545").call("eth_chainId", ttl=3600))

    It belongs to the event loop in which it is first used, and to its process: a child makes another. `penstock.sync`
    has the same for programs without an event loop.

    Args:
        transport: what reads frames below, ``"picows"`` or ``"websockets"``; or a function that opens connections which
            have the interface of those of ``websockets``.
        on_message: called with URL and message for what a server sends on connections that are used by `send` alone;
            may be a coroutine function. What it does not take in time waits at the server.
        on_undelivered: called with URL and messages of which it is not known whether they arrived, when a connection
            could not be resumed, or the server closed it before it told; may be a coroutine function.
        on_connect, on_release, endpoints: see `ConnectionPool`.
    """

    def __init__(
        self,
        config: PerformanceConfig | None = None,
        *,
        transport: TransportLike = "picows",
        on_message: OnMessage | None = None,
        on_undelivered: OnUndelivered | None = None,
        on_connect: Hook | None = None,
        on_release: Hook | None = None,
        endpoints: Mapping[str, Mapping[str, float] | Sequence[str]] | None = None,
    ) -> None:
        self.config = config = PerformanceConfig() if config is None else config
        fallback, limits = config.fallback, config.limits
        self.manager = manager_of(fallback)
        """Which stages are used, and why."""
        self._opening = Opening(config, transport, self.manager)
        most = config.pool.max_total if limits.max_connections is None else limits.max_connections
        self.pool = ConnectionPool(
            pool_config(config),
            connect=self._opening.open_for_pool,
            before_connect=self._room_for_pool,
            on_connect=on_connect,
            on_release=on_release,
            endpoints=endpoints,
        )
        """Where connections come from."""
        self._lending = Lending(self.pool, self.manager, self._opening.open, fallback.stage_timeout, most)
        self.lines = Lines(
            config, self.manager, self._borrow, lambda: self._lending.is_full, on_message, on_undelivered
        )
        """The ways of messages to URLs; penstock's own."""
        self._lines = self.lines.at
        self.manager.on_transition = self.lines.changed
        self._tier = tier_of(config.cache)
        self.cache = cache_of(config.cache, self._tier, limits.memory_bytes)
        """Where answers are kept; None where that is not enabled."""
        self._clients: dict[Hashable, Client[Any]] = {}
        self._answers: dict[str, Answers] = {}
        self._kept: list[dict[str, Any]] = []
        """The options of clients, so that none of them is another's once it is gone."""
        self.metrics = MetricsCollector(interval=config.metrics.interval, history=config.metrics.history)
        """What is measured, and was."""
        self.metrics.add_source(samples_of(self))
        self.metrics.add_source(traffic_samples)
        self.alerts = AlertManager(self.metrics, sinks=sinks_of(config.alerts, self.manager, fallback.probe_after))
        """What is wrong, by rules."""
        self._control: Control | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._began = time.monotonic()
        self._tidying: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._closed = self._is_inherited = False

    # The way out

    async def send(
        self,
        url: str,
        message: Data,
        *,
        priority: Priority = NORMAL,
        key: str | None = None,
        ttl: float | None = None,
    ) -> None:
        """Accept a message for the server at ``url``; those to one URL leave in order, urgent ones first.

        Waits while more is pending than may be. Cancelling is safe: a message whose ``send`` was cancelled was not
        sent. A message that no connection had accepted when one broke goes out on the next; of those that one had, see
        ``on_undelivered`` if the server speaks the envelope, and otherwise expect that the last ones are lost.

        Args:
            priority: urgent messages overtake those that wait.
            key: the message takes the place of one with the same key that waits.
            ttl: seconds after which it is dropped if it still waits.

        Raises:
            ConnectionFailed, PoolExhausted: there is no connection.
            ConnectionClosed: the server closed several connections before they accepted the message.
            MessageTypeError, SerializationError: see `penstock.Connection.send`.
            LimitReached, BatcherFull: too much is pending, and it is configured that callers do not wait.
            MiddlewareClosed: it is closed.
            WrongLoop: called from another event loop or thread, or in a child process.
            ValueError: ``url`` is no WebSocket URL.
        """
        line = self._lines.get(url)
        if line is None:
            line = self._new_line(url)
        direct = line.direct
        if direct is not None and priority is NORMAL and key is None and ttl is None:
            sampler = line.sampler
            sampler.left -= 1
            if sampler.left:
                try:
                    await direct(message)
                except ConnectionClosed:
                    pass  # another connection takes it
                except Exception as exc:
                    if not is_fault(exc):
                        raise
                    line.broke(exc)
                else:
                    return
        self._start()
        await line.send(message, priority, key, ttl)

    def connection(self, url: str, timeout: float | None = None, **options: Any) -> PooledConnection:
        """Borrow a connection; see `ConnectionPool.get_connection`, with all its arguments.

        Where the pool is bypassed, the connection is a new one, and is closed when it is returned.
        """
        self._start()
        return self._lending.get_connection(url, timeout, **options)

    @overload
    def rpc(self, url: str, protocol: Literal["jsonrpc"] = ..., **options: Any) -> Rpc: ...
    @overload
    def rpc(self, url: str, protocol: Literal["graphql"], **options: Any) -> GraphQLRpc: ...
    @overload
    def rpc(self, url: str, protocol: Literal["idjson"], **options: Any) -> IdJsonRpc: ...
    def rpc(self, url: str, protocol: str = "jsonrpc", **options: Any) -> Client[Any]:
        """A client for calls to the server at ``url``, over connections of the pool and with the cache.

        The same one each time, if URL, protocol and options are; it is closed with the middleware.

        Args:
            protocol: ``"jsonrpc"``, ``"graphql"`` or ``"idjson"``.
            options: those of `penstock.Rpc`, `GraphQLRpc` or `IdJsonRpc`.

        Raises:
            ValueError: the protocol is unknown, or an option is wrong.
        """
        self._start()
        key = url, protocol, frozenset((name, id(value)) for name, value in options.items())
        found = self._clients.get(key)
        if found is None:
            given = {"connections": self.config.rpc.connections, "max_calls": self.config.rpc.max_calls, **options}
            given.setdefault("cache", NoAnswers() if self.cache is None else self._answers_of(url, self.cache))
            found = self._clients[key] = over(self._lending, url, protocol, **given)
            self._kept.append(options)
        return found

    def _answers_of(self, url: str, cache: MessageCache) -> Answers:
        """The same for all clients of a URL: they wait for each other's questions."""
        answers = self._answers.get(url)
        if answers is None:
            patience = self.config.fallback.stage_timeout
            answers = self._answers[url] = Answers(cache, self.manager, url, patience)
        return answers

    def connect(self, url: str, **options: Any) -> Awaitable[Connection]:
        """Open a connection of your own, as configured; ``options`` are those of `penstock.connect`."""
        self._start()
        return self._opening.connect(url, **options)

    def accelerate(self, ws: Any) -> Connection:
        """Take over a connection that is open already; see `penstock.accelerate`."""
        return accelerate(ws, batch=self.config.batch)

    # Lines

    def _new_line(self, url: str) -> Line:
        check_url(url)
        self._start()
        return self.lines.new(url)

    async def _borrow(self, url: str) -> PooledConnection:
        return await self.connection(url)

    async def _room_for_pool(self) -> None:
        await self._lending.room_for_pool()

    @property
    def most_pending(self) -> int:
        """Messages that may be pending, to all URLs that are used."""
        return self.lines.most_pending

    def _cached_bytes(self) -> int:
        return (self.cache and self.cache.get_cache_stats().size_bytes) or 0

    # What it is doing

    def stats(self) -> PerformanceStats:
        """What the stages have and have done."""
        self.lines.recount()
        cache = None if self.cache is None else self.cache.get_cache_stats()
        return PerformanceStats(
            uptime=time.monotonic() - self._began,
            pool=self.pool.stats(),
            plain_connections=self._lending.plain,
            sending=self.lines.past.snapshot(self._lines.values(), self.lines.budget),
            cache=cache,
            modes=self.manager.modes(),
            speedups={stage: speedup.ratio for stage, speedup in self.manager.speedups.items()},
            failures=dict(self.manager.failures),
            transitions=tuple(self.manager.transitions),
            memory_bytes=self.lines.budget.bytes + self._cached_bytes(),
        )

    # Life

    def _start(self) -> None:
        """Make the running loop the middleware's own, at its first use."""
        if self._is_inherited:
            raise WrongLoop("middleware", "use(pipe)")
        if self._closed:
            raise MiddlewareClosed
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            remember(self)
            self._tidying = loop.create_task(self._tidy_for_ever())
            if self.config.metrics.enabled:
                self.metrics.start()
                if self.config.alerts.enabled:
                    self.alerts.start()
            if self.config.metrics.control:
                self._control = Control(partial(report, self))
                self._control.start()
        elif self._loop is not loop:
            raise WrongLoop("middleware", "use(pipe)")

    async def _tidy_for_ever(self) -> None:
        """Begin probes that are due, return connections over which nothing is sent, and forget what is not used."""
        idle_time = self.config.sending.idle_time
        pause = min(max(idle_time, SHORTEST_PAUSE), 1.0)
        due = time.monotonic() + idle_time
        while True:
            await asyncio.sleep(pause)
            self.manager.tick()
            if self.config.limits.memory_bytes is not None:
                self.lines.budget.used_elsewhere = self._cached_bytes()
            if time.monotonic() >= due:
                due = time.monotonic() + idle_time
                self._tidy()

    def _tidy(self) -> None:
        self.lines.tidy()
        of_clients = {client.url for client in self._clients.values()}
        for url in self.manager.urls - self._lines.keys() - self._lending.in_use() - of_clients:
            self._lending.forget(url)
            self.manager.forget(url)

    async def drain(self, url: str | None = None) -> None:
        """Wait until what was accepted for ``url`` (None: for all) is written, and retire its connections.

        Those that are in use are closed when they are returned; the next message gets a new one. Cancelling ends the
        waiting.

        Raises:
            DeliveryUnknown, ConnectionClosed: a connection ended before everything was taken.
        """
        self._start()
        retiring = asyncio.ensure_future(self.pool.drain(url))
        try:
            await asyncio.sleep(0)  # those that are open now are marked, before a line gets another
            await self.lines.drain(url)
            await retiring
        finally:
            retiring.cancel()

    async def close(self, timeout: float = 10.0) -> None:
        """Accept no more, write what was accepted, and close all connections.

        What is not written after ``timeout`` seconds is lost, and logged. Cancelling drops it at once. Closing again
        waits likewise. In a child process, and when its event loop has ended, there is nothing to close.

        Raises:
            WrongLoop: called from another event loop or thread.
        """
        if self._is_inherited or (self._loop is not None and self._loop.is_closed()):
            self._closed = True
            return
        if self._loop not in (None, asyncio.get_running_loop()):
            raise WrongLoop("middleware", "pipe.close()")
        if self._closed:
            await self._ended.wait()
            return
        self._closed = True
        if self._tidying is not None:
            self._tidying.cancel()
        try:
            await close_all(self._parts(), timeout)
        finally:
            self.metrics.stop()
            self._ended.set()

    def _parts(self) -> list[Close]:
        """What is to be closed, in this order."""
        clients = (client.close for client in self._clients.values())
        others = (self.alerts, self._tier, self._control)
        return [
            self.lines.close,
            in_any_case(self.lines.abort),
            *map(in_any_case, clients),
            self._lending.close,
            self.pool.close,
            *(in_any_case(other.close) for other in others if other is not None),
        ]

    def disown(self) -> None:
        """The process is a child: everything is its parent's."""
        self._is_inherited = True
        self.lines.disown()
        self._lending.disown()

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
