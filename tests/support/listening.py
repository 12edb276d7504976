"""A server of raw TCP streams on loopback, that leaves no socket behind."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakSet

Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]
Stop = Callable[[], Awaitable[None]]

A_FEW_TURNS = 0.01
"""Seconds in which what the event loop has begun is done."""


@asynccontextmanager
async def streams(connected: Connected, stop: Stop, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen; yields the port.

    Args:
        connected: called with each connection.
        stop: called when no more are let in, to end what has to do with them; they are dropped then.
    """
    writers: WeakSet[asyncio.StreamWriter] = WeakSet()
    is_open = True

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_open:
            writers.add(writer)
            connected(reader, writer)
        else:
            writer.transport.abort()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls, limit=2**20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        is_open = False
        await stop()
        for writer in writers:  # that of a task that never began, too
            writer.transport.abort()
        # What is being accepted while the server closes, asyncio forgets without closing it (Python 3.11).
        await asyncio.sleep(A_FEW_TURNS)
        server.close()
        await server.wait_closed()
        await asyncio.sleep(A_FEW_TURNS)
