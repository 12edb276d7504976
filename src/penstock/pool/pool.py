"""The pool: does what its state decides."""

from __future__ import annotations

import asyncio
import os
import random as chance
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from threading import get_ident
from typing import Any

from penstock.connection.connect import connect as open_connection
from penstock.connection.connection import Connection
from penstock.errors import ConnectionFailed, PoolClosed, PoolExhausted, WrongLoop
from penstock.pool.acquire import Acquire
from penstock.pool.breaker import Breaker
from penstock.pool.config import ConnectionPoolConfig
from penstock.pool.health import HealthChecker
from penstock.pool.lease import PooledConnection
from penstock.pool.state import Close, Key, Member, Open, PoolState
from penstock.pool.stats import PoolStats
from penstock.pool.waiting import Caller, Deadlines
from penstock.transport.base import CloseCode, State

CARE_INTERVAL = 1.0
"""Seconds between looks at all connections: for those that broke, have grown old, or are due for a check."""

_pools: weakref.WeakSet[ConnectionPool] = weakref.WeakSet()


class ConnectionPool:
    """Lends open connections, and keeps them open, watched and bounded in between.

    ::

        async with ConnectionPool() as pool:
            async with pool.get_connection("ws://localhost:8765") as conn:
                await conn.send("hello")
                print(await conn.recv())

    A pool belongs to the event loop in which it is first used.

    Args:
        config: its bounds.
        connect: opens a connection to a URL.
        random: uniform in [0, 1); spreads lifetimes and attempts.
    """

    def __init__(
        self,
        config: ConnectionPoolConfig | None = None,
        *,
        connect: Callable[[str], Awaitable[Connection]] = open_connection,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self.config = config = ConnectionPoolConfig() if config is None else config
        self._connect, self._random = connect, random
        self._state: PoolState[Connection] = PoolState(
            max_connections=config.max_connections,
            min_connections=config.min_connections,
            max_total=config.max_total,
        )
        self._health = HealthChecker(
            config.check_interval, config.max_idle_time, config.max_request_count, pong_timeout=config.pong_timeout
        )
        self._loop: asyncio.AbstractEventLoop
        self._thread: int | None = None
        self._deadlines: Deadlines[Connection]
        self._breakers: dict[Key, Breaker] = {}
        self._gates: dict[Key, asyncio.Semaphore] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._care: asyncio.Task[None] | None = None
        self._emptied: asyncio.Event
        self._checked: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()
        self._counts: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()

    # Lending

    def get_connection(self, url: str, *, timeout: float | None = None) -> Acquire:
        """Borrow a connection to ``url``, opening one if the pool may grow: ``await`` it or ``async with`` it.

        Cancelling is safe: a connection handed over too late goes back to the pool.

        Args:
            timeout: seconds to wait; 0 means now or never, None the pool's own.

        Raises:
            PoolExhausted: none became free in time.
            ConnectionFailed: the peer refused a new one; the cause is chained.
            PoolClosed: the pool is closed.
            WrongLoop: called from another event loop or thread.
            ValueError: ``url`` is not ``ws://`` or ``wss://``.
        """
        return Acquire(self, url, timeout)

    def take(self, url: str) -> PooledConnection | None:
        """Borrow an idle connection now; None if there is none. Raises as `get_connection`."""
        if get_ident() != self._thread or not self._loop.is_running():
            self._start(url)
        state = self._state
        if state.closing:
            raise PoolClosed
        while (member := state.take(url, self._loop.time())) is not None:
            if member.connection.state is State.OPEN and not member.connection.unread:
                self._counts["immediate"] += 1
                return PooledConnection(url, member, self._give_back)
            self._give_back(member, self._fault(member))
        if state.todo:
            self._act()
        return None

    async def wait(self, url: str, timeout: float | None) -> PooledConnection:
        """Queue up for a connection. Raises as `get_connection`, and cancelling is safe likewise."""
        seconds = self.config.acquire_timeout if timeout is None else timeout
        _check_url(url)
        if seconds <= 0 or self._state.waiting >= self.config.max_waiting:
            self._counts["timeouts"] += 1
            raise PoolExhausted(0.0, self._state.total, self._state.waiting)
        now = self._loop.time()
        caller: Caller[Connection] = Caller(url, self._loop.create_future(), now, now + seconds)
        self._deadlines.add(caller, seconds)
        self._state.wait(url, caller)
        self._act()
        try:
            member = await caller.future
        except asyncio.CancelledError:
            self._counts["cancelled"] += 1
            if caller.future.done() and not caller.future.cancelled() and caller.future.exception() is None:
                self._give_back(caller.future.result(), None)  # handed over in the same moment
            else:
                self._state.forget(url, caller)
                self._act()
            raise
        except PoolExhausted:
            self._counts["timeouts"] += 1
            raise
        except ConnectionFailed:
            self._counts["errors"] += 1
            raise
        finally:
            self._deadlines.remove(caller, seconds)
        self._counts["waited"] += 1
        return PooledConnection(url, member, self._give_back)

    def _expire(self, caller: Caller[Connection]) -> None:
        self._state.forget(caller.key, caller)
        caller.refuse(PoolExhausted(self._loop.time() - caller.since, self._state.total, self._state.waiting))
        self._act()

    def _give_back(self, member: Member[Connection], reason: str | None) -> None:
        if reason is None:
            reason = self._fault(member)
        self._state.give_back(member, self._loop.time(), broken=reason)
        if self._state.todo:
            self._act()

    def _fault(self, member: Member[Connection]) -> str | None:
        """Why a connection cannot be lent again, if so."""
        connection = member.connection
        if connection.state is not State.OPEN:
            return "peer"
        if connection.unread and (self.config.on_dirty == "close" or not connection.discard_unread()):
            return "dirty"
        limit = self.config.max_request_count
        return "requests" if limit and member.uses >= limit else None

    # Doing what the state decides

    def _act(self) -> None:
        todo, self._state.todo = self._state.todo, []
        for action in todo:
            match action:
                case Open(key):
                    self._spawn(self._open(key))
                case Close(member, reason):
                    self._closed[reason] += 1
                    self._spawn(self._close_member(member))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, key: Key) -> None:
        breaker = self._breakers.setdefault(key, Breaker(self._random))
        url = str(key)
        try:
            connection = await self._try(url, breaker)
        except asyncio.CancelledError:
            breaker.abandoned()
            self._state.failed(key, PoolClosed())
            raise
        except Exception as exc:  # noqa: BLE001 - the top of a task: whoever waits is told
            self._counts["failed"] += 1
            self._state.failed(key, exc)
        else:
            self._counts["opened"] += 1
            now = self._loop.time()
            lifetime = self.config.max_lifetime * (1 - self._random() / 10)
            self._state.opened(key, connection, now, now + lifetime)
        self._settle()

    async def _try(self, url: str, breaker: Breaker) -> Connection:
        gate = self._gates.setdefault(url, asyncio.Semaphore(self.config.max_connecting))
        async with gate:
            now = self._loop.time()
            if breaker.refuses(now):
                raise ConnectionFailed(url, f"it failed before: {breaker.cause}") from breaker.cause
            await asyncio.sleep(breaker.delay(now))
            try:
                async with asyncio.timeout(self.config.connect_timeout):
                    connection = await self._connect(url)
            except Exception as exc:
                breaker.failed(self._loop.time(), exc)
                if isinstance(exc, ConnectionFailed):
                    raise
                raise ConnectionFailed(url, str(exc) or type(exc).__name__) from exc
            breaker.succeeded()
            return connection

    async def _close_member(self, member: Member[Connection]) -> None:
        try:
            await member.connection.close(CloseCode.NORMAL_CLOSURE)
        finally:
            self._state.closed(member)
            self._settle()

    def _settle(self) -> None:
        self._act()
        if self._state.total == 0:
            self._emptied.set()

    # Care

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(min(CARE_INTERVAL, self.config.check_interval))
            now = self._loop.time()
            self._state.trim(now, self.config.max_idle_time)
            for key, slots in list(self._state.keys.items()):
                for member in list(slots.members):
                    self._look_at(member, now)
                self._state.refill(key)
            self._act()

    def _look_at(self, member: Member[Connection], now: float) -> None:
        connection = member.connection
        if connection.state is not State.OPEN:
            self._state.lost(member, "peer")
            return
        if connection.unread and member in self._state.keys[member.key].idle:
            self._counts["dropped"] += connection.unread
            if not connection.discard_unread():
                self._state.lost(member, "dirty")
                return
        if now - self._checked.get(connection, member.opened_at) >= self.config.check_interval:
            self._checked[connection] = now
            self._spawn(self._check(member))

    async def _check(self, member: Member[Connection]) -> None:
        if not await self._health.check_connection_health(member.connection):
            slots = self._state.keys.get(member.key)
            if slots is not None and member in slots.members:
                self._state.lost(member, "health")
                self._act()

    # The life of the pool

    async def warm_up(self, url: str) -> None:
        """Open connections to ``url`` until there are ``min_connections``, and wait until one is open.

        Raises:
            ConnectionFailed: none could be opened.
        """
        (await self.get_connection(url)).release()
        self._state.refill(url)
        self._act()

    def resize(self, max_connections: int) -> None:
        """Allow more connections for each URL, or fewer: idle ones are closed now, lent ones when they return."""
        if max_connections < 1:
            raise ValueError(f"max_connections={max_connections!r}: must be a whole number of at least 1")
        self._state.resize(max_connections)
        self._act()

    async def drain(self, url: str | None = None) -> None:
        """Retire the connections to ``url`` (None: to all) that are open now, and wait until they are gone.

        Callers go on getting new ones. Cancelling ends the waiting, not the draining.
        """
        keys = list(self._state.keys) if url is None else [url]
        retired = [member for key in keys if key in self._state.keys for member in self._state.keys[key].members]
        for key in keys:
            self._state.drain(key)
        if self._state.todo:
            self._act()
        for member in retired:
            await member.connection.wait_closed()

    async def close(self, timeout: float = 10.0) -> None:
        """Lend no more; close what is idle now, what is lent when it returns, and all that is left after ``timeout``.

        Callers that wait get `PoolClosed`. Cancelling drops all connections.
        """
        if self._thread is None:
            self._state.closing = True
            return
        self._state.close(PoolClosed)
        if self._care is not None:
            self._care.cancel()
        self._deadlines.stop()
        self._settle()
        try:
            async with asyncio.timeout(timeout):
                await self._emptied.wait()
        except TimeoutError:
            pass
        finally:
            await self._abandon()

    async def _abandon(self) -> None:
        """Drop what is left."""
        for slots in self._state.keys.values():
            for member in slots.members:
                _abort(member.connection)
        for task in list(self._tasks):
            task.cancel()
        leftover = [*self._tasks, *([self._care] if self._care is not None else [])]
        if leftover:
            await asyncio.wait(leftover, timeout=0.1)

    def stats(self) -> PoolStats:
        """What the pool has and has done."""
        state, counts = self._state, self._counts
        slots = list(state.keys.values())
        return PoolStats(
            idle=sum(len(one.idle) for one in slots),
            in_use=sum(one.leased for one in slots),
            connecting=sum(one.opening for one in slots),
            closing=sum(one.closing for one in slots),
            waiting=state.waiting,
            max_connections=state.max_connections,
            min_connections=state.min_connections,
            max_total=state.max_total,
            immediate=counts["immediate"],
            waited=counts["waited"],
            timeouts=counts["timeouts"],
            cancelled=counts["cancelled"],
            errors=counts["errors"],
            opened=counts["opened"],
            closed=dict(self._closed),
            dropped_messages=counts["dropped"],
        )

    def _start(self, url: str) -> None:
        """Make the running loop the pool's own, at its first use."""
        _check_url(url)
        if self._thread is not None:
            raise WrongLoop
        loop = asyncio.get_running_loop()
        self._loop, self._thread = loop, get_ident()
        self._deadlines = Deadlines(loop, self._expire)
        self._emptied = asyncio.Event()
        self._care = loop.create_task(self._look_after())
        _pools.add(self)

    async def __aenter__(self) -> ConnectionPool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _check_url(url: str) -> None:
    if not isinstance(url, str) or not url.startswith(("ws://", "wss://")):
        raise ValueError(f"url={url!r}: must begin with ws:// or wss://")


def _abort(connection: Connection) -> None:
    transport = connection.transport
    if transport is not None:
        transport.abort()


def _forked() -> None:
    for pool in _pools:
        pool._thread = -1  # a pool's connections belong to the parent process


os.register_at_fork(after_in_child=_forked)
