"""Many connections that only listen, for a server that broadcasts.

A server asks for them over a plain TCP connection, with a JSON line, and is told by a line whenever each of them has
received one message more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import picows

AT_ONCE = 50
"""Handshakes under way at a time."""


class _Seat(picows.WSListener):
    def __init__(self, audience: _Audience) -> None:
        self._audience = audience

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.TEXT:
            self._audience.heard()


class _Audience:
    def __init__(self, url: str, connections: int, tell: asyncio.StreamWriter) -> None:
        self._url, self._connections, self._tell = url, connections, tell
        self._left = connections
        self._transports: list[Any] = []

    async def come(self) -> None:
        for start in range(0, self._connections, AT_ONCE):
            count = min(AT_ONCE, self._connections - start)
            pairs = await asyncio.gather(*(picows.ws_connect(lambda: _Seat(self), self._url) for _ in range(count)))
            self._transports += [transport for transport, _ in pairs]
        self._tell.write(b"\n")

    def heard(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._left = self._connections
            self._tell.write(b"\n")

    def leave(self) -> None:
        for transport in self._transports:
            transport.disconnect(False)


@asynccontextmanager
async def serve_audience() -> AsyncIterator[int]:
    """Take orders for audiences."""

    async def order(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        audience = _Audience(**json.loads(await reader.readline()), tell=writer)
        try:
            await audience.come()
            await reader.read()  # until the server has had enough
        finally:
            audience.leave()
            writer.close()

    server = await asyncio.start_server(order, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
