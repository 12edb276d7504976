"""A pool over connections in memory, whose other ends the test holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from penstock import BatchConfig, Connection, ConnectionPool, ConnectionPoolConfig
from penstock.pool.hooks import Hook
from penstock.transport.base import Options, State
from penstock.transport.memory import pair

URL = "ws://server"


class Servers:
    """Opens connections in memory; the test decides what becomes of attempts."""

    def __init__(self) -> None:
        self.ends: list[Connection] = []
        """The servers' ends, in the order of opening."""
        self.attempts = 0
        self.urls: list[str] = []
        """Where attempts went."""
        self.asked: list[dict[str, Any]] = []
        """What attempts asked for beside the URL."""
        self.gate = asyncio.Event()
        """Attempts wait for it."""
        self.gate.set()
        self.failures: list[Exception] = []
        """What the next attempts fail with."""
        self.options = Options(ping_interval=None, close_timeout=0.2)

    async def connect(self, url: str, **options: Any) -> Connection:
        self.attempts += 1
        self.urls.append(url)
        self.asked.append(options)
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        client, server = (Connection(end, BatchConfig(), optimize=True) for end in pair(self.options))
        self.ends.append(server)
        return client

    def hang_up(self) -> None:
        """Drop every connection."""
        for end in self.ends:
            if end.state is not State.CLOSED:
                end.transport.abort()


@asynccontextmanager
async def pooling(
    *,
    random: Callable[[], float] = lambda: 0.0,
    on_connect: Hook | None = None,
    on_release: Hook | None = None,
    endpoints: Mapping[str, Mapping[str, float]] | None = None,
    **config: Any,
) -> AsyncIterator[tuple[ConnectionPool, Servers]]:
    """A pool that is closed at the end; by default it keeps no connection that nobody asked for."""
    servers = Servers()
    pool = ConnectionPool(
        ConnectionPoolConfig(**{"min_connections": 0, **config}),
        connect=servers.connect,
        on_connect=on_connect,
        on_release=on_release,
        endpoints=endpoints,
        random=random,
    )
    try:
        yield pool, servers
    finally:
        servers.gate.set()
        await pool.close(1)
        servers.hang_up()
        await asyncio.gather(*(end.wait_closed() for end in servers.ends))


async def steps(number: int = 5) -> None:
    """Let the event loop go round so many times."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], Any], seconds: float = 5) -> None:
    """Wait for something that nothing tells of."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def free(pool: ConnectionPool) -> bool:
    """Whether nothing is lent, waited for, or on its way."""
    stats = pool.stats()
    return stats.in_use == stats.waiting == stats.connecting == stats.closing == 0


async def borrow_at_once(pool: ConnectionPool, number: int) -> None:
    """Have so many connections at a time, and return them."""
    conns = [await pool.get_connection(URL) for _ in range(number)]
    for conn in conns:
        conn.release()
