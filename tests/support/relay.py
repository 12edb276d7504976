"""A TCP relay on loopback that a test cuts, pauses, and lets edit what passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from support.chaos import reset
from support.listening import streams

Edit = Callable[[bytes], bytes]


class Relay:
    """Between clients and the server at a port."""

    def __init__(self, port: int, edit_answer: Edit | None) -> None:
        self.target = port
        """Where connections go; may change."""
        self.port = 0
        self.accepted = 0
        self.is_refusing = False
        """Connections are closed as soon as they come."""
        self.cut_after: int | None = None
        """Bytes, in both directions together, that pass until the next cut."""
        self.heads: list[bytes] = []
        """What came first on each connection, from the client."""
        self._edit_answer = edit_answer
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def pause(self) -> None:
        """Let nothing pass, and tell nobody: the machine at the other end seems to be gone."""
        self._flowing.clear()

    def pause_those_that_are_open(self) -> None:
        """Half-open for ever: what comes later passes."""
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def go_on(self) -> None:
        self._flowing.set()

    def cut(self, *, hard: bool = False) -> None:
        """Drop all connections; ``hard`` with RST."""
        for writer in list(self._writers):
            if hard:
                reset(writer)
            else:
                writer.transport.abort()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.is_refusing:
            writer.transport.abort()
            return
        self._writers.add(writer)
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            self._writers.discard(to_client)
            to_client.transport.abort()
            return
        ends = {to_client, to_server}
        self._writers |= ends
        pumps = [
            asyncio.ensure_future(self._pump(client, to_server, self.heads.append, None)),
            asyncio.ensure_future(self._pump(server, to_client, None, self._edit_answer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._writers -= ends
            for end in ends:
                end.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Any, edit: Edit | None
    ) -> None:
        flowing = self._flowing
        try:
            while True:
                data = await reader.read(65_536)
                await flowing.wait()
                if not data:
                    return
                if note is not None:
                    note(data)
                    note = None
                if edit is not None:
                    data, edit = edit(data), None
                if self.cut_after is not None:
                    self.cut_after -= len(data)
                    if self.cut_after <= 0:
                        writer.write(data[: self.cut_after])
                        self.cut_after = None
                        await asyncio.sleep(0)
                        self.cut(hard=len(data) % 2 == 0)
                        return
                writer.write(data)
                await writer.drain()
        except OSError:
            pass

    async def stop(self) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def relaying(port: int, edit_answer: Edit | None = None) -> AsyncIterator[Relay]:
    """Stand between clients and the server at ``port``; ``edit_answer`` gets the first bytes that the server says."""
    relay = Relay(port, edit_answer)
    async with streams(relay.connected, relay.stop) as relay.port:
        yield relay
