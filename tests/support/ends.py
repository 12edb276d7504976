"""Two ends of a connection in memory, and what is written between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from penstock.batch.policy import BatchConfig
from penstock.connection.connection import Connection
from penstock.transport.base import ConnectionClosed, Options, State
from penstock.transport.memory import MemoryEndpoint, pair
from support.wire import parse

T = TypeVar("T")

QUIET = Options(ping_interval=None, max_queue=None, close_timeout=5)
"""No traffic of its own, and a peer that takes all there is."""
NARROW = Options(ping_interval=None, max_queue=None, close_timeout=5, write_limit=1000)
"""A kilobyte fills the socket."""


class Spy:
    """Keeps what one end writes, one entry a write."""

    def __init__(self, end: MemoryEndpoint) -> None:
        self.writes: list[bytes] = []
        self._masked = end.frames.masked
        pipe, write = end.transport, end.transport.write

        def spying(data: bytes) -> None:
            self.writes.append(bytes(data))
            write(data)

        pipe.write = spying  # type: ignore[method-assign, assignment]
        end.write = spying

    @property
    def payloads(self) -> list[list[bytes]]:
        """Of the frames of each write."""
        return [[bytes(frame.data) for frame in parse(data, masked=self._masked)] for data in self.writes]

    @property
    def frames(self) -> list[bytes]:
        """The payloads of all frames."""
        return [payload for payloads in self.payloads for payload in payloads]


class Ends:
    """A client and a server; the client's writes are spied on."""

    def __init__(self, batch: BatchConfig, options: Options, *, optimize: bool) -> None:
        self.client_end, self.server_end = pair(options)
        self.client = Connection(self.client_end, batch, optimize=optimize)
        self.server = Connection(self.server_end, batch, optimize=optimize)
        self.spy = Spy(self.client_end)

    def stall(self) -> None:
        """The server's machine takes no more bytes."""
        self.server_end.transport.pause_reading()

    def go_on(self) -> None:
        """The server's machine takes bytes again."""
        self.server_end.transport.resume_reading()

    async def block(self) -> bytes:
        """Stall, and fill the client's write buffer with one message, which is returned."""
        self.stall()
        filler = b"#" * 2000
        await self.client.send(filler)
        assert self.client_end.blocked
        await steps(2)
        return filler

    async def received(self, number: int) -> list[Any]:
        """The next so many messages at the server."""
        return [await within(self.server.recv()) for _ in range(number)]

    async def rest(self) -> list[Any]:
        """All messages that still arrive at the server, until the connection is closed."""
        messages = []
        try:
            while True:
                messages.append(await within(self.server.recv()))
        except ConnectionClosed:
            return messages


@asynccontextmanager
async def ends(
    batch: BatchConfig | None = None, options: Options = QUIET, *, optimize: bool = True
) -> AsyncIterator[Ends]:
    """An open connection, which is closed at the end."""
    both = Ends(BatchConfig() if batch is None else batch, options, optimize=optimize)
    try:
        yield both
    finally:
        for end in (both.client_end, both.server_end):
            if end.state is not State.CLOSED:
                end.transport.abort()
        both.go_on()
        await within(both.client.wait_closed())
        await within(both.server.wait_closed())


async def within(awaitable: Awaitable[T], seconds: float = 5) -> T:
    """The result, which has to come soon."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def steps(number: int = 1) -> None:
    """Let the loop go round so many times."""
    for _ in range(number):
        await asyncio.sleep(0)


def start(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Run it in a task of its own."""
    return asyncio.get_running_loop().create_task(coroutine)


async def cancelled(task: asyncio.Task[Any]) -> bool:
    """Cancel a task; whether that ended it. What else it raised is raised here."""
    task.cancel()
    await asyncio.wait([task], timeout=5)
    if task.cancelled():
        return True
    await task
    return False
