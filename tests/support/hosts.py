"""A host that many connections lead to: it counts them, sees their frames, crashes and comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.rawpeer import CLOSE, FIN, PING, PONG, TEXT, RawPeer


class Host:
    """Echoes text on every connection."""

    def __init__(self) -> None:
        self.accepted: list[float] = []
        """When connections came, on the loop's clock."""
        self.peers: set[_Echo] = set()
        """Connections that are open."""
        self.seen: list[int] = []
        """Opcodes of all frames that came."""
        self.port = 0
        self._server: Any = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        """Listen, at the same port as before."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Echo(self), "127.0.0.1", self.port, backlog=2048)
        self.port = self._server.sockets[0].getsockname()[1]

    async def crash(self) -> None:
        """Stop listening, and drop every connection."""
        self._server.close()
        for echo in list(self.peers):
            echo.abort()
        await self._server.wait_closed()

    def most_within(self, seconds: float, since: float = 0.0) -> int:
        """The most connections that came in any window of time."""
        return most_within([when for when in self.accepted if when >= since], seconds)


class _Echo(RawPeer):
    def __init__(self, host: Host) -> None:
        super().__init__(client=False)
        self._host = host

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._host.accepted.append(asyncio.get_running_loop().time())
        self._host.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._host.peers.discard(self)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        while self.frames:
            seen = self.frames.popleft()
            self._host.seen.append(seen.opcode)
            if seen.opcode == TEXT:
                self.send(seen.first, seen.payload)
            elif seen.opcode == PING:
                self.send(FIN | PONG, seen.payload)
            elif seen.opcode == CLOSE:
                self.send(FIN | CLOSE, seen.payload)


def most_within(times: list[float], seconds: float) -> int:
    """The most instants in any window of time; they are in order."""
    most = first = 0
    for last, when in enumerate(times):
        while when - times[first] >= seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


@asynccontextmanager
async def host() -> AsyncIterator[Host]:
    this = Host()
    await this.start()
    try:
        yield this
    finally:
        await this.crash()
