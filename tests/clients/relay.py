"""A relay on loopback whose connections a test cuts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.chaos import reset


class Relay:
    """Stands between clients and a server."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.target = target
        """Port of the server."""
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def cut(self) -> None:
        """Reset all connections, whatever is under way."""
        links, self._links = self._links, set()
        for link in links:
            for end in link:
                if not end.transport.is_closing():
                    reset(end)

    async def carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        link = (to_client, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(_pump(client, to_server), _pump(server, to_client))
        finally:
            self._links.discard(link)
            for end in link:
                end.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        pass


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[Relay]:
    """Stand before the server at ``port``."""
    this = Relay(port)
    tasks: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(this.carry(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    this.port = server.sockets[0].getsockname()[1]
    try:
        yield this
    finally:
        server.close()
        this.cut()
        await asyncio.gather(*tasks)
        await server.wait_closed()
