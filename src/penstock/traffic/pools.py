"""Pools of every library, behind one small interface; each is imported only in the process that uses it.

What is lent costs nothing here: connections in memory from penstock, stand-ins from the pools of database drivers, so
that only lending is measured, and no database is needed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from math import inf
from typing import Any
from urllib.parse import urlsplit

CROWD = 10_000
"""Idle connections in a crowded pool."""

Borrow = Callable[[], Any]
"""``async with borrow(): ...`` has a connection until the end of the block."""
Use = Callable[[], Awaitable[None]]
"""Has a connection, and is done with it."""


@asynccontextmanager
async def penstock_pool(connections: int, urls: int = 1) -> AsyncIterator[Borrow]:
    """A pool of penstock with so many idle connections to each of so many URLs; borrows from the first."""
    from penstock import BatchConfig, Connection, ConnectionPool, ConnectionPoolConfig
    from penstock.transport.base import Options
    from penstock.transport.memory import pair

    options = Options(ping_interval=None)
    ends: list[Connection] = []

    async def connect(_: str) -> Connection:
        client, server = (Connection(end, BatchConfig(), optimize=True) for end in pair(options))
        ends.append(server)
        return client

    config = ConnectionPoolConfig(
        max_connections=connections, min_connections=0, max_total=connections * urls, connect_rate=inf
    )
    pool = ConnectionPool(config, connect=connect)
    try:
        names = [f"ws://server-{number}" for number in range(urls)]
        loans = [await pool.get_connection(name) for name in names for _ in range(connections)]
        for loan in loans:
            loan.release()
        yield partial(pool.get_connection, names[0])
    finally:
        await pool.close(1)
        for end in ends:
            end.transport.abort()
        await asyncio.gather(*(end.wait_closed() for end in ends))


@asynccontextmanager
async def psycopg_pool(connections: int) -> AsyncIterator[Borrow]:
    """The pool of ``psycopg``, with as many connections."""
    from psycopg.pq import TransactionStatus
    from psycopg_pool import AsyncConnectionPool

    class StandIn:
        """Always idle; entering and leaving it does nothing, where a real one would end its transaction."""

        def __init__(self) -> None:
            self.pgconn = self
            self.transaction_status = TransactionStatus.IDLE

        @classmethod
        async def connect(cls, *_: Any, **__: Any) -> StandIn:
            return cls()

        async def __aenter__(self) -> StandIn:
            return self

        async def __aexit__(self, *_: object) -> None:
            pass

        async def close(self) -> None:
            pass

    stand_in: Any = StandIn
    pool: Any = AsyncConnectionPool("", connection_class=stand_in, min_size=connections, open=False)
    await pool.open(wait=True)
    try:
        yield pool.connection
    finally:
        await pool.close()


@asynccontextmanager
async def asyncpg_pool(connections: int) -> AsyncIterator[Borrow]:
    """The pool of ``asyncpg``, with as many connections."""
    import asyncpg  # type: ignore[import-untyped]

    class StandIn(asyncpg.Connection):  # type: ignore[misc]
        """Always open; resetting it does nothing, where a real one would ask the server."""

        queries_count = 0

        def __init__(self) -> None:
            self._protocol = self
            self._proxy = None
            self._pool_holder: Any = None
            self._closed = False

        def __del__(self) -> None:
            pass

        def is_closed(self) -> bool:
            return self._closed

        def _is_cancelling(self) -> bool:
            return False

        def _on_release(self, stacklevel: int = 1) -> None:
            pass

        async def reset(self, *, timeout: float | None = None) -> None:
            pass

        async def close(self, *, timeout: float | None = None) -> None:
            self._closed = True
            self._pool_holder()._release_on_close()

    async def connect(*_: Any, **__: Any) -> StandIn:
        return StandIn()

    sizes = {"min_size": connections, "max_size": connections}
    async with asyncpg.create_pool(connection_class=StandIn, connect=connect, **sizes) as pool:
        yield pool.acquire


@asynccontextmanager
async def bare_deque(connections: int) -> AsyncIterator[Borrow]:
    """The floor: what lending costs in Python if nothing is looked after."""
    idle = deque(object() for _ in range(connections))
    waiting: deque[asyncio.Future[object]] = deque()
    loop = asyncio.get_running_loop()

    class Loan:
        __slots__ = ("_connection",)

        async def __aenter__(self) -> object:
            if idle:
                self._connection = idle.pop()
            else:
                future = loop.create_future()
                waiting.append(future)
                self._connection = await future
            return self._connection

        async def __aexit__(self, *_: object) -> None:
            if waiting:
                waiting.popleft().set_result(self._connection)
            else:
                idle.append(self._connection)

    yield Loan


@asynccontextmanager
async def connect_with_websockets(url: str, **options: Any) -> AsyncIterator[Use]:
    """A new connection of ``websockets`` for each use, closed after it."""
    import websockets

    async def use() -> None:
        ws = await websockets.connect(url, compression=None, **options)
        await ws.close()

    yield use


@asynccontextmanager
async def borrow_from_penstock(url: str, **options: Any) -> AsyncIterator[Use]:
    """A pool of penstock at its defaults that has been used before."""
    import penstock

    async with penstock.ConnectionPool(connect=partial(penstock.connect, **options)) as pool:

        async def use() -> None:
            (await pool.get_connection(url)).release()

        await use()
        yield use


async def trusting(url: str) -> ssl.SSLContext:
    """A context that trusts the certificate which an embedded server has made for itself."""
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    pem = await asyncio.to_thread(ssl.get_server_certificate, (address.hostname, address.port))
    context = ssl.create_default_context(cadata=pem)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its authority is not known
    return context


POOLS: dict[str, Callable[[int], AbstractAsyncContextManager[Borrow]]] = {
    "psycopg_pool": psycopg_pool,
    "asyncpg": asyncpg_pool,
    "collections.deque": bare_deque,
    "penstock": penstock_pool,
    "penstock, 10,000 idle": lambda _: penstock_pool(CROWD),
    "penstock, 1000 URLs": partial(penstock_pool, urls=1000),
}
CONNECTORS: dict[str, Callable[..., AbstractAsyncContextManager[Use]]] = {
    "websockets": connect_with_websockets,
    "penstock": borrow_from_penstock,
}
