"""Connections for loans: the pool's, or where that is bypassed, new ones that are closed at the end."""

from __future__ import annotations

import asyncio
import time
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
from penstock.pool.lease import PooledConnection, loan
from penstock.pool.pool import ConnectionPool
from penstock.pool.slots import Key, Member
from penstock.pool.target import check_url, check_weight, options_of, url_of

Open = Callable[..., Awaitable[Connection]]


class Lending:
    """Lends the pool's connections, and plain ones where the pool is bypassed or fails: a `ShareLender`.

    Args:
        open_: opens a connection, as the pool does it.
        patience: seconds that the pool may take beyond its own time-outs, before that counts as its failure.
        most: plain connections at a time.
    """

    def __init__(
        self, pool: ConnectionPool, manager: PerformanceManager, open_: Open, patience: float, most: int
    ) -> None:
        self._pool, self._manager, self._open, self._patience = pool, manager, open_, patience
        self._ways: dict[Key, tuple[Switch, Sampler]] = {}
        self._plain: set[Member[Connection]] = set()
        self._room = asyncio.Semaphore(most)
        self._closing: set[asyncio.Task[None]] = set()
        self._unreturned: list[Callable[[], None]] = []
        """What the pool has failed to take back, to be tried once more at the end."""
        self._thread: int | None = None
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
        plain = sampler.turn(time.monotonic()) if sampler.left == 0 else None
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
        config = self._pool.config
        seconds = config.acquire_timeout if timeout is None else max(timeout, 0.0)
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(min(seconds + config.connect_timeout, 1e9)) as deadline:
                await self._room.acquire()
                try:
                    connection = await self._open(url, **options_of(key))
                except BaseException:
                    self._room.release()
                    raise
        except PerformanceError:
            raise
        except Exception as exc:
            reason = "it took too long" if deadline.expired() else str(exc) or type(exc).__name__
            raise ConnectionFailed(url, reason) from exc
        member = Member(key, Endpoint(url, 1.0, Breaker(float)), connection, now(), inf)
        member.uses = 1
        self._plain.add(member)
        return member

    # Taking back

    def give_back(self, member: Member[Connection], reason: str | None) -> None:
        """See `ConnectionPool.give_back`."""
        self._return(member, lambda: self._pool.give_back(member, reason))

    def give_back_share(self, member: Member[Connection], weight: int, reason: str | None) -> None:
        """See `ConnectionPool.give_back_share`."""
        self._return(member, lambda: self._pool.give_back_share(member, weight, reason))

    def _return(self, member: Member[Connection], to_pool: Callable[[], None]) -> None:
        if member in self._plain:
            self._discard(member)
            return
        try:
            to_pool()
        except PerformanceError:
            raise
        except Exception as exc:  # noqa: BLE001 - the pool's own failure; the borrower has done nothing wrong
            member.connection.abort()
            self._unreturned.append(to_pool)
            self._manager.failed(self._ways[member.key][0], exc)

    def collected(self, member: Member[Connection], weight: int) -> None:
        """See `ConnectionPool.collected`."""
        if member in self._plain:
            member.connection.transport.get_loop().call_soon_threadsafe(self._discard, member)
        else:
            self._pool.collected(member, weight)

    def _discard(self, member: Member[Connection]) -> None:
        self._plain.discard(member)
        self._room.release()
        task = asyncio.get_running_loop().create_task(member.connection.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Lend no more, drop the plain connections that are still lent, and wait until all are gone."""
        self._closed = True
        for to_pool in self._unreturned:
            with suppress(Exception):
                to_pool()
        for member in list(self._plain):
            member.connection.abort()
            self._discard(member)
        if self._closing:
            await asyncio.wait(self._closing)
