"""Asking a pool for a connection."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from penstock.pool.lease import PooledConnection

if TYPE_CHECKING:
    from penstock.pool.pool import ConnectionPool


class Acquire:
    """A connection that is asked for: ``await`` it, and return it yourself, or ``async with`` it."""

    __slots__ = ("_lease", "_pool", "_timeout", "_url")

    def __init__(self, pool: ConnectionPool, url: str, timeout: float | None) -> None:
        self._pool, self._url, self._timeout = pool, url, timeout
        self._lease: PooledConnection

    def __await__(self) -> Generator[Any, None, PooledConnection]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> PooledConnection:
        lease = self._pool.take(self._url)
        if lease is None:
            lease = await self._pool.wait(self._url, self._timeout)
        self._lease = lease
        return lease

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lease.release()
