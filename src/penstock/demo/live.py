"""The tour's traffic through one middleware, for who looks at its dashboard."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack
from random import Random
from urllib.parse import urlsplit

from penstock.errors import PerformanceError
from penstock.middleware.middleware import PerformanceMiddleware
from penstock.traffic.calls import RECENT
from penstock.traffic.processes import server
from penstock.traffic.relay import Relay, relaying
from penstock.transport.base import ConnectionClosed

PAUSE = 0.02
"""Seconds between bursts, at most; so that the machine is not kept busy for nothing."""
BREAK_EVERY = 15.0
"""Seconds, by and large, between two breaks."""
Tell = Callable[[str], object]


class Live:
    """Traffic of all kinds, without end, to embedded servers.

    Args:
        random: decides how much of what comes when.
    """

    def __init__(self, pipe: PerformanceMiddleware, random: Random) -> None:
        self._pipe, self._random = pipe, random

    async def drive(self, events: str, calls: str, relay: Relay) -> None:
        """Send to and borrow from the server at ``events``, call the one at ``calls``, and cut ``relay`` at times."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._send(events + "/sink"))
            group.create_task(self._borrow(events + "/echo"))
            group.create_task(self._call(calls))
            group.create_task(self._break(relay))

    async def _send(self, url: str) -> None:
        """Bursts of every size, a few messages with a time to live or urgent."""
        number = 0
        while True:
            for _ in range(self._random.choice((1, 10, 100, 1000))):
                number += 1
                try:
                    await self._pipe.send(url, json.dumps({"n": number, "level": self._random.random()}))
                except (PerformanceError, ConnectionClosed):
                    break  # the connection was cut; the dashboard shows it
            await self._rest()

    async def _borrow(self, url: str) -> None:
        """One to five connections at a time."""

        async def use() -> None:
            try:
                async with self._pipe.connection(url) as conn:
                    await conn.send("hello")
                    await conn.recv()
            except (PerformanceError, ConnectionClosed):
                pass  # likewise

        while True:
            await asyncio.gather(*(use() for _ in range(self._random.randint(1, 5))))
            await self._rest()

    async def _call(self, url: str) -> None:
        """Calls of which most repeat one of the last."""
        rpc, last = self._pipe.rpc(url), 0
        while True:
            last += self._random.randrange(20)
            asked = [max(0, last - self._random.randrange(RECENT)) for _ in range(50)]
            await asyncio.gather(*(rpc.call("double", [number], ttl=30) for number in asked), return_exceptions=True)
            await self._rest()

    async def _break(self, relay: Relay) -> None:
        while True:
            await asyncio.sleep(BREAK_EVERY * (0.5 + self._random.random()))
            relay.cut()

    async def _rest(self) -> None:
        await asyncio.sleep(PAUSE * self._random.random())


async def show(tell: Tell) -> None:
    """Open the dashboard, tell its URL, and drive traffic until cancelled.

    Raises:
        ImportError: the extra ``dashboard`` is missing.
        JobFailed: an embedded server did not start.
    """
    from penstock.dashboard.dashboard import Dashboard  # noqa: PLC0415 - it needs an extra

    async with AsyncExitStack() as stack:
        events = await stack.enter_async_context(server("penstock", None))
        calls = await stack.enter_async_context(server("jsonrpc", None))
        port = urlsplit(events).port
        assert port is not None
        relay = await stack.enter_async_context(relaying(port))
        pipe = await stack.enter_async_context(PerformanceMiddleware())
        board = await stack.enter_async_context(Dashboard(pipe, host="127.0.0.1", port=0))
        tell(board.url)
        live = Live(pipe, Random())  # noqa: S311 - traffic for the eye
        await live.drive(f"ws://127.0.0.1:{relay.port}", calls, relay)
