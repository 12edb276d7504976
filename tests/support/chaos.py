"""A TCP proxy on loopback that does what networks do: delays, cuts up, cuts off, resets, swallows."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from support.listening import streams

WHAT = ("nothing", "cut", "reset", "half-close", "swallow")


@dataclass(frozen=True)
class Plan:
    """What befalls one connection."""

    what: str
    """One of `WHAT`."""
    to_server: bool
    """The direction whose bytes are counted."""
    after: int
    """Bytes that pass in that direction before it happens."""
    segments: tuple[int, ...]
    """Sizes of the pieces in which bytes are passed on, over and over; empty to leave them as they are."""
    delay: float
    """Seconds between pieces."""
    seed: int

    @classmethod
    def of(cls, seed: int, size: int) -> Plan:
        """A plan for a connection that carries about ``size`` bytes each way; the same for the same seed."""
        chance = random.Random(seed)
        tiny = tuple(1 for _ in range(50))
        mixed = tuple(chance.choice((1, 2, 7, 100, 1000, 5000)) for _ in range(20))
        return cls(
            what=WHAT[seed % len(WHAT)],
            to_server=chance.random() < 0.5,
            after=chance.randrange(size) if chance.random() < 0.8 else chance.randrange(600),
            segments=chance.choice(((), (*tiny, 3000), mixed)),
            delay=chance.choice((0.0, 0.0, 0.0001)),
            seed=seed,
        )

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Cut ``data`` up."""
        start = turn = 0
        while start < len(data):
            size = self.segments[turn % len(self.segments)] if self.segments else len(data)
            yield data[start : start + size]
            start += size
            turn += 1


class Chaos:
    """The proxy; each connection through it suffers the same plan."""

    def __init__(self, port: int, plan: Plan) -> None:
        self.port = 0
        self.struck = False
        self._target, self._plan = port, plan
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._target)
        ends = (to_client, to_server)
        for end in ends:
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.gather(
                self._pump(client, to_server, ends, counted=self._plan.to_server),
                self._pump(server, to_client, ends, counted=not self._plan.to_server),
            )
        finally:
            for end in ends:
                end.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: tuple[asyncio.StreamWriter, ...],
        *,
        counted: bool,
    ) -> None:
        plan, left = self._plan, self._plan.after
        try:
            while data := await reader.read(65_536):
                for piece in plan.pieces(data):
                    if counted and plan.what != "nothing" and len(piece) >= left:
                        writer.write(piece[:left])
                        await self._strike(reader, writer, ends)
                        return
                    if writer.is_closing():
                        return
                    left -= len(piece)
                    writer.write(piece)
                    await asyncio.sleep(plan.delay)
                await writer.drain()
            writer.write_eof()
        except OSError:
            for end in ends:
                end.transport.abort()

    async def _strike(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: tuple[asyncio.StreamWriter, ...]
    ) -> None:
        self.struck = True
        match self._plan.what:
            case "cut":
                for end in ends:
                    end.close()
            case "reset":
                for end in ends:
                    reset(end)
            case "half-close":
                writer.write_eof()
                while await reader.read(65_536):
                    pass
            case "swallow":
                ends[self._plan.to_server - 1].transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.get_running_loop().create_future()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:  # else it is gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@asynccontextmanager
async def chaos(port: int, plan: Plan) -> AsyncIterator[Chaos]:
    """Stand between clients and the server at ``port``."""
    proxy = Chaos(port, plan)
    async with streams(proxy.connected, proxy.stop) as proxy.port:
        yield proxy
