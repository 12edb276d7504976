"""Where a client's connections come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast, runtime_checkable
from weakref import WeakKeyDictionary

from penstock.connection.connect import connect as open_connection
from penstock.connection.connection import Connection
from penstock.errors import GraphQLClosed
from penstock.pool.config import ConnectionPoolConfig
from penstock.pool.lease import PooledConnection, SharedConnection
from penstock.protocols.jsonrpc import JsonRpc
from penstock.rpc.link import Link
from penstock.rpc.pacing import Pace, quick
from penstock.transport.base import State, is_transient

REST = 0.1
"""Seconds without calls after which a pooled connection is returned."""
LONG_REST = 30.0
"""The same, of one that is of use to nobody else."""

_spoken: WeakKeyDictionary[Connection, Any] = WeakKeyDictionary()
"""What was said on pooled connections, which are lent again, to other clients too: no id is ever used twice on one."""


class Source(Protocol):
    """Opens links, and ends them."""

    pace: Pace

    @property
    def most(self) -> int:
        """Links at a time."""

    @property
    def rest(self) -> float | None:
        """Seconds without calls after which one is ended; None for never."""

    async def open(self, owner: Any) -> Link[Any]:
        """A link over a connection that nobody else uses; raises as `penstock.connect` or the pool."""

    def delay_after(self, exc: Exception) -> float:
        """Seconds to wait after an attempt that failed, not being the first; raises what callers are to be told."""

    def is_fit(self, link: Link[Any]) -> bool:
        """Whether a link may be given more calls."""

    async def end(self, link: Link[Any]) -> None:
        """Be done with a link."""


class Single:
    """One connection, opened anew when it was lost.

    Args:
        options: those of `penstock.connect`.
    """

    most = 1
    rest: float | None = None

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        delays: Callable[[], Iterator[float]] = options.pop("reconnect_delays", quick)
        self.pace = Pace(delays)
        self._process: Callable[[Exception], Exception | None] = options.pop("process_exception", is_transient)
        self._connect = open_connection(url, **options)

    async def open(self, owner: Any) -> Link[Any]:
        connection = await self._connect
        return Link(connection, owner.speak(None), owner)

    def delay_after(self, exc: Exception) -> float:
        is_passing = isinstance(exc, GraphQLClosed) and not exc.is_final
        verdict = None if is_passing else self._process(exc)
        delay = self.pace.after_failure()
        if verdict is None and delay is not None:
            return delay
        if verdict is None or verdict is exc:
            raise exc
        raise verdict from exc

    def is_fit(self, link: Link[Any]) -> bool:
        return cast("Connection", link.wire).state is State.OPEN

    async def end(self, link: Link[Any]) -> None:
        await link.stop()
        connection = cast("Connection", link.wire)
        if connection.is_detached:
            connection.abort()  # else it would wait for a socket first
        await connection.close()


@runtime_checkable
class Lends(Protocol):
    """Who lends connections, as a pool does."""

    @property
    def config(self) -> ConnectionPoolConfig: ...
    def get_connection(self, url: str, timeout: float | None = None, *args: Any, **options: Any) -> PooledConnection:
        """See `ConnectionPool.get_connection`."""


class Pooled:
    """Connections of a pool, each shared by all calls of one client, and by nobody else meanwhile.

    Args:
        is_reusable: they may be lent to others afterwards: the protocol leaves no trace on a connection.
        options: those of `ConnectionPool.get_connection`.
    """

    def __init__(self, pool: Lends, url: str, connections: int, options: dict[str, Any], *, is_reusable: bool) -> None:
        self.most = connections
        self.rest: float | None = REST if is_reusable else LONG_REST
        self.pace = Pace()
        self._pool, self._url, self._options, self._is_reusable = pool, url, options, is_reusable

    async def open(self, owner: Any) -> Link[Any]:
        capacity = self._pool.config.shared_capacity
        lease = await self._pool.get_connection(self._url, shared=True, weight=capacity, **self._options)
        connection = lease.connection
        speaker = _spoken[connection] = owner.speak(_spoken.get(connection))
        return Link(lease, speaker, owner, lease.created_at)

    def delay_after(self, exc: Exception) -> float:
        raise exc  # the pool has tried again for as long as it was to

    def is_fit(self, link: Link[Any]) -> bool:
        return cast("SharedConnection", link.wire).is_healthy()

    async def end(self, link: Link[Any]) -> None:
        is_clean = self._is_reusable and not _is_owed(link.rpc)
        await link.stop()
        lease = cast("SharedConnection", link.wire)
        if is_clean:
            lease.release()
        else:
            lease.discard("spoken on")  # answers are not for whoever has it next


def _is_owed(rpc: JsonRpc) -> bool:
    """Whether there are answers to come."""
    stats = rpc.stats()
    return bool(stats.sent or stats.forgotten or stats.waiting)
