"""Connections for loans: the pool's, or where that is bypassed, new ones that are closed at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from threading import get_ident
from typing import Any

from penstock.connection.connection import Connection
from penstock.errors import ConnectionFailed, PerformanceError, PoolClosed
from penstock.manager.manager import PerformanceManager
from penstock.manager.speedup import Sampler
from penstock.manager.switch import Stage, Switch
from penstock.pool.breaker import Breaker
from penstock.pool.config import ConnectionPoolConfig
from penstock.pool.endpoints import Endpoint
from penstock.pool.forks import FOREIGN
from penstock.pool.lease import PooledConnection, loan
from penstock.pool.pool import ConnectionPool
from penstock.pool.slots import Key, Member
from penstock.pool.target import check_url, check_weight, options_of, url_of

logger = logging.getLogger("penstock.middleware")

PAUSE = 0.005
"""Seconds between looks whether there is room for a connection again."""

Open = Callable[..., Awaitable[Connection]]


class PlainMember(Member[Connection]):
    """A connection that is not the pool's."""

    __slots__ = ()


class Lending:
    """Lends the pool's connections, and plain ones where the pool is bypassed or fails: a `ShareLender`.

    Args:
        open_: opens a connection, as the pool does it.
        patience: seconds that the pool may take beyond its own time-outs, before that counts as its failure.
        most: connections at a time, the pool's among them.
    """

    def __init__(
        self, pool: ConnectionPool, manager: PerformanceManager, open_: Open, patience: float, most: int
    ) -> None:
        self._pool, self._manager, self._open, self._patience = pool, manager, open_, patience
        self._ways: dict[Key, tuple[Switch, Sampler]] = {}
        self._asked: dict[Key, int] = {}
        """What samplers had left when it was asked last."""
        self._plain: set[PlainMember] = set()
        self._opening: set[asyncio.Timeout] = set()
        """Deadlines of those who wait for a plain connection."""
        self._most = most
        self._held: Counter[Key] = Counter()
        """Places of connections that are not the pool's, those among them that are being opened or closed."""
        self._entering = asyncio.Lock()
        self._giving_way: asyncio.Task[None] | None = None
        self._closing: dict[asyncio.Task[None], Member[Connection]] = {}
        self._unreturned: list[Callable[[], None]] = []
        """What the pool has failed to take back, to be tried once more at the end."""
        self._thread: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def config(self) -> ConnectionPoolConfig:
        """The pool's."""
        return self._pool.config

    @property
    def thread(self) -> int | None:
        """See `penstock.pool.lease.Lender`."""
        return self._pool.thread or self._thread

    @property
    def plain(self) -> int:
        """Connections that are lent and are not the pool's."""
        return len(self._plain)

    def _way(self, key: Key) -> tuple[Switch, Sampler]:
        check_url(url_of(key))
        self._thread = get_ident()
        way = self._ways[key] = self._manager.switch(Stage.POOL, url_of(key)), self._manager.sampler()
        return way

    def in_use(self) -> set[str]:
        """URLs for which connections are lent past the pool, or were asked for since this was asked last."""
        asked, self._asked = self._asked, {key: sampler.left for key, (_, sampler) in self._ways.items()}
        used = {url_of(key) for key, left in self._asked.items() if asked.get(key) != left}
        return used | {url_of(member.key) for member in self._plain}

    def forget(self, url: str) -> None:
        """A URL is not used any more."""
        for key in [key for key in self._ways if url_of(key) == url]:
            del self._ways[key]

    # Lending

    def get_connection(
        self, url: str, timeout: float | None = None, *, shared: bool = False, weight: int = 1, **options: Any
    ) -> PooledConnection:
        """See `ConnectionPool.get_connection`."""
        if shared:
            check_weight(weight, self._pool.config.shared_capacity)
        return loan(self, url, timeout, weight=weight if shared else 0, **options)

    def take(self, key: Key) -> Member[Connection] | None:
        """See `ConnectionPool.take`; None also where the plain way is to be taken."""
        return self._take(key, 0)

    def take_share(self, key: Key, weight: int) -> Member[Connection] | None:
        """See `ConnectionPool.take_share`, likewise."""
        return self._take(key, weight)

    def _take(self, key: Key, weight: int) -> Member[Connection] | None:
        switch, sampler = self._ways.get(key) or self._way(key)
        if sampler.left > 0:
            sampler.left -= 1
        if not switch.is_on or sampler.left == 0:
            return None
        return self._from_pool(switch, key, weight)

    def _from_pool(self, switch: Switch, key: Key, weight: int) -> Member[Connection] | None:
        try:
            member = self._pool.take_share(key, weight) if weight else self._pool.take(key)
        except (PerformanceError, ValueError):
            raise
        except Exception as exc:  # noqa: BLE001 - the pool's own failure: counted, logged, and the plain way taken
            self._manager.failed(switch, exc)
            return None
        if switch.is_shaky and member is not None:
            self._manager.worked(switch)
        return member

    async def wait(self, key: Key, timeout: float | None, weight: int = 0) -> Member[Connection]:
        """See `ConnectionPool.wait`. Cancelling is safe."""
        switch, sampler = self._ways.get(key) or self._way(key)
        plain = sampler.turn(time.monotonic()) if sampler.left == 0 and switch.is_on else None
        plain = plain and self._has_room(key)
        if not switch.is_on or plain:
            return await self._timed(self._open_plain(key, timeout), plain)
        return await self._timed(self._wait(switch, key, timeout, weight), plain)

    async def _timed(self, opening: Awaitable[Member[Connection]], plain: bool | None) -> Member[Connection]:
        began = time.perf_counter()
        member = await opening
        if plain is not None:
            self._manager.speedups[Stage.POOL].record(time.perf_counter() - began, plain=plain)
        return member

    async def _wait(self, switch: Switch, key: Key, timeout: float | None, weight: int) -> Member[Connection]:
        failures = self._manager.failures[Stage.POOL]
        member = self._from_pool(switch, key, weight)
        if member is not None:
            return member
        if self._manager.failures[Stage.POOL] == failures:
            seconds = self._pool.config.acquire_timeout if timeout is None else timeout
            try:
                async with asyncio.timeout(seconds + self._patience) as deadline:
                    member = await self._pool.wait(key, timeout, weight)
            except (PerformanceError, ValueError):
                raise
            except TimeoutError as exc:
                if not deadline.expired():
                    raise
                self._manager.failed(switch, exc)
            except Exception as exc:  # noqa: BLE001 - the pool's own failure, likewise
                self._manager.failed(switch, exc)
            else:
                if switch.is_shaky:
                    self._manager.worked(switch)
                return member
        return await self._open_plain(key, timeout)

    async def _open_plain(self, key: Key, timeout: float | None) -> Member[Connection]:
        url = url_of(key)
        if self._closed:
            raise PoolClosed
        config, self._loop = self._pool.config, asyncio.get_running_loop()
        seconds = config.acquire_timeout if timeout is None else max(timeout, 0.0)
        try:
            async with asyncio.timeout(min(seconds + config.connect_timeout, 1e9)) as deadline:
                self._opening.add(deadline)
                try:
                    connection = await self._open_within(key, url)
                finally:
                    self._opening.discard(deadline)
        except PerformanceError:
            raise
        except Exception as exc:
            if self._closed:
                raise PoolClosed from exc
            reason = "it took too long" if deadline.expired() else str(exc) or type(exc).__name__
            raise ConnectionFailed(url, reason) from exc
        member = PlainMember(key, Endpoint(url, 1.0, Breaker(float)), connection, self._loop.time(), inf)
        member.uses = 1
        self._plain.add(member)
        return member

    async def _open_within(self, key: Key, url: str) -> Connection:
        """Open a connection as soon as there is room for it. Raises PoolClosed if nobody may have it any more."""
        await self._enter(key)
        try:
            connection = await self._open(url, **options_of(key))
            if self._closed:
                connection.abort()
                raise PoolClosed
        except BaseException:
            self._leave(key)
            raise
        return connection

    # Room for both

    def _has_room(self, key: Key) -> bool:
        return self._held[key] < self._pool.config.max_connections and not self.is_full

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return self._of_pool() + self._held.total() >= self._most

    def _of_pool(self) -> int:
        stats = self._pool.stats()
        return stats.in_use + stats.idle + stats.connecting + stats.closing

    async def _enter(self, key: Key) -> None:
        """Wait for a place past the pool, whose idle connections give way; cancelling is safe."""
        while not self._has_room(key):
            async with self._entering:
                while self._held[key] < self._pool.config.max_connections and not self._has_room(key):
                    if self._giving_way is None or self._giving_way.done():
                        self._giving_way = asyncio.ensure_future(self._pool.drain())
                    await asyncio.sleep(PAUSE)
            if not self._has_room(key):
                await asyncio.sleep(PAUSE)
        self._held[key] += 1

    def _leave(self, key: Key) -> None:
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]

    async def room_for_pool(self) -> None:
        """Wait until the pool may open the connection for which it has kept a place; cancelling is safe."""
        while self._held and self._of_pool() + self._held.total() > self._most:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(PAUSE)

    # Taking back

    def give_back(self, member: Member[Connection], reason: str | None) -> None:
        """See `ConnectionPool.give_back`."""
        self._return(member, lambda: self._pool.give_back(member, reason))

    def give_back_share(self, member: Member[Connection], weight: int, reason: str | None) -> None:
        """See `ConnectionPool.give_back_share`."""
        self._return(member, lambda: self._pool.give_back_share(member, weight, reason))

    def _return(self, member: Member[Connection], to_pool: Callable[[], None]) -> None:
        if isinstance(member, PlainMember):
            self._discard(member)
            return
        try:
            to_pool()
        except PerformanceError:
            raise
        except Exception as exc:  # noqa: BLE001 - the pool's own failure; the borrower has done nothing wrong
            member.connection.abort()
            self._unreturned.append(to_pool)
            self._manager.failed(self._manager.switch(Stage.POOL, url_of(member.key)), exc)

    def collected(self, member: Member[Connection], weight: int) -> None:
        """See `ConnectionPool.collected`."""
        if not isinstance(member, PlainMember):
            self._pool.collected(member, weight)
        elif member in self._plain and self._loop is not None and not self._loop.is_closed():
            logger.error(
                "a connection to %s was never returned: use `async with`, or release() it", member.endpoint.shown
            )
            self._loop.call_soon_threadsafe(self._discard, member)

    def disown(self) -> None:
        """The process is a child: what was lent is not its own."""
        self._loop, self._thread = None, FOREIGN

    def _discard(self, member: PlainMember) -> None:
        if member not in self._plain:
            return  # it was closed with the rest
        self._plain.remove(member)
        task = asyncio.get_running_loop().create_task(member.connection.close())
        self._closing[task] = member
        task.add_done_callback(self._closed_one)

    def _closed_one(self, task: asyncio.Task[None]) -> None:
        self._leave(self._closing.pop(task).key)

    async def close(self, timeout: float) -> None:
        """Lend no more, drop the plain connections that are still lent; those that do not close in time as well."""
        self._closed = True
        if self._giving_way is not None:
            self._giving_way.cancel()
        for to_pool in self._unreturned:
            with suppress(Exception):
                to_pool()
        for deadline in self._opening:
            if not deadline.expired():
                deadline.reschedule(0.0)
        for member in list(self._plain):
            member.connection.abort()
            self._discard(member)
        try:
            if self._closing:
                await asyncio.wait(self._closing, timeout=timeout)
        finally:
            for late in list(self._closing.values()):
                late.connection.abort()
        if self._closing:
            await asyncio.wait(self._closing)
