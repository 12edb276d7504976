"""A client and a server that speak the envelope, with a relay between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import penstock
from penstock.server.sessions import SessionConfig
from support.relay import Relay, relaying
from support.servers import port_of

QUICK = {"ping_interval": None, "open_timeout": 1, "close_timeout": 1}
"""Nothing is waited for long."""
DEADLINE = 15
"""Seconds that a test may take: nothing may hang."""


def soon() -> Any:
    """Delays between attempts to resume."""
    return iter([0.01] * 5000)


@dataclass
class Meeting:
    """Both ends of a session; the server's handler waits until the test has done with it."""

    relay: Relay
    server: penstock.Server
    client: Any = None
    handled: list[Any] = field(default_factory=list)
    """The server's connections, in the order of their handlers."""
    failures: list[BaseException | None] = field(default_factory=list)
    resumed: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def far(self) -> Any:
        """The server's end."""
        return self.handled[-1]

    @property
    def sessions(self) -> Any:
        return self.server._sessions

    async def cut(self, *, hard: bool = False) -> None:
        """Break the socket, and wait until the client knows."""
        resumed = self.resumed
        self.relay.cut(hard=hard)
        await until(lambda: self.client.is_detached or self.resumed > resumed or self.client.state.name == "CLOSED")

    async def back(self) -> None:
        """Wait until the client has a socket again."""
        await until(lambda: not self.client.is_detached and not self.far.is_detached)

    async def away(self) -> None:
        """Break the socket, and keep the client from coming back."""
        self.relay.is_refusing = True
        await self.cut()
        await until(lambda: self.far.is_detached)

    def return_(self) -> None:
        self.relay.is_refusing = False


@asynccontextmanager
async def meeting(
    transport: Any = "picows",
    *,
    handler: Callable[[Any], Awaitable[None]] | None = None,
    server: dict[str, Any] | None = None,
    seconds: float = DEADLINE,
    **options: Any,
) -> AsyncIterator[Meeting]:
    """A client that is connected; whatever the test leaves open is closed."""
    here: Meeting

    async def handle(conn: Any) -> None:
        here.handled.append(conn)
        if handler is None:
            await here.over.wait()
        else:
            await handler(conn)

    def resumed() -> None:
        here.resumed += 1

    of_server = {**QUICK, "sessions": SessionConfig(ttl=5), **(server or {})}
    of_client = {**QUICK, "reconnect_delays": soon, "on_resume": resumed, "reliable": True, **options}
    async with (
        asyncio.timeout(seconds),
        penstock.serve(handle, "127.0.0.1", 0, transport=transport, **of_server) as listening,
        relaying(port_of(listening)) as relay,
    ):
        here = Meeting(relay, listening)
        here.client = await penstock.connect(relay.url, transport=transport, **of_client)
        await until(lambda: here.handled)
        try:
            yield here
        finally:
            relay.is_refusing = False
            relay.go_on()
            here.over.set()
            if here.client.state.name != "CLOSED":
                here.client.abort()
            await here.client.wait_closed()


async def until(reached: Callable[[], Any], seconds: float = 10) -> None:
    """Wait for something that nothing tells of."""
    async with asyncio.timeout(seconds):
        while not reached():
            await asyncio.sleep(0.002)


async def take(conn: Any, count: int) -> list[Any]:
    """The next so many messages."""
    messages: list[Any] = []
    while len(messages) < count:
        messages += await conn.recv_many(count - len(messages))
    return messages


def numbers(count: int, start: int = 0) -> list[str]:
    return [str(number) for number in range(start, start + count)]
