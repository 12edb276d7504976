"""Where a client's connections come from."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

from penstock.backoff import backoff
from penstock.connection.connect import connect as open_connection
from penstock.connection.connection import Connection
from penstock.pool.lease import SharedConnection
from penstock.pool.pool import ConnectionPool
from penstock.protocols.batching import Batching
from penstock.protocols.jsonrpc import JsonRpc
from penstock.rpc.link import Link, Owner
from penstock.transport.base import State, is_transient

REST = 0.1
"""Seconds without calls after which a pooled connection is returned."""


def quick() -> Iterator[float]:
    """Delays between attempts to connect again: soon at first, because callers wait."""
    return backoff(random.random, initial=0.2, minimum=0.2, maximum=30.0)


class Source(Protocol):
    """Opens links, and ends them."""

    @property
    def most(self) -> int:
        """Links at a time."""

    @property
    def rest(self) -> float | None:
        """Seconds without calls after which one is ended; None for never."""

    async def open(self, owner: Owner, batching: Batching | None) -> Link:
        """A link over a connection that nobody else uses; raises as `penstock.connect` or the pool."""

    def is_fit(self, link: Link) -> bool:
        """Whether a link may be given more calls."""

    async def end(self, link: Link) -> None:
        """Be done with a link."""


class Single:
    """One connection, opened anew when it was lost.

    Args:
        options: those of `penstock.connect`.
    """

    most = 1
    rest: float | None = None

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self._delays: Callable[[], Iterator[float]] = options.pop("reconnect_delays", quick)
        self._process: Callable[[Exception], Exception | None] = options.pop("process_exception", is_transient)
        self._connect = open_connection(url, **options)
        self._was_open = False

    async def open(self, owner: Owner, batching: Batching | None) -> Link:
        delays = self._delays()
        while True:
            try:
                connection = await self._connect
            except Exception as exc:
                verdict = self._process(exc) if self._was_open else exc
                if verdict is exc:
                    raise
                if verdict is not None:
                    raise verdict from exc
                await asyncio.sleep(next(delays))
            else:
                self._was_open = True
                return Link(connection, JsonRpc(batching), owner)

    def is_fit(self, link: Link) -> bool:
        return cast("Connection", link.wire).state is State.OPEN

    async def end(self, link: Link) -> None:
        await link.stop()
        connection = cast("Connection", link.wire)
        if connection.is_detached:
            connection.abort()  # else it would wait for a socket first
        await connection.close()


class Pooled:
    """Connections of a pool, each shared by all calls of one client, and by nobody else meanwhile.

    Args:
        options: those of `ConnectionPool.get_connection`.
    """

    rest: float | None = REST

    def __init__(self, pool: ConnectionPool, url: str, connections: int, options: dict[str, Any]) -> None:
        self.most = connections
        self._pool, self._url, self._options = pool, url, options
        self._known: WeakKeyDictionary[Connection, JsonRpc] = WeakKeyDictionary()
        """By connection, which may be lent again: no id is ever used twice on it."""

    async def open(self, owner: Owner, batching: Batching | None) -> Link:
        capacity = self._pool.config.shared_capacity
        lease = await self._pool.get_connection(self._url, shared=True, weight=capacity, **self._options)
        connection = lease._member.connection
        rpc = self._known.get(connection)
        if rpc is None:
            rpc = self._known[connection] = JsonRpc(batching)
        return Link(lease, rpc, owner)

    def is_fit(self, link: Link) -> bool:
        return cast("SharedConnection", link.wire).is_healthy()

    async def end(self, link: Link) -> None:
        stats = link.rpc.stats()
        await link.stop()
        lease = cast("SharedConnection", link.wire)
        if stats.sent or stats.forgotten or stats.waiting:
            lease.discard("unanswered")  # the answers are not for whoever has it next
        else:
            lease.release()
