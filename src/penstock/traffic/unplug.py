"""Sending while the plug is pulled, and what has arrived in the end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from penstock.traffic.measure import Job, Run
from penstock.traffic.relay import relaying

CUTS = 5
BURST = 50
"""Messages in a row; then the event loop has its turn."""

Next = Callable[[int], Awaitable[None]]


async def unplug(job: Job, tell: Callable[[int], None]) -> Run:
    """Send numbered messages through a relay that cuts the connection `CUTS` times; the server tells what it got."""
    parts = urlsplit(job.url)
    assert parts.port is not None
    async with relaying(parts.port) as relay:
        step = job.messages // (CUTS + 1)

        async def before(number: int) -> None:
            if number % BURST == 0:
                await asyncio.sleep(0)
            if number and number % step == 0 and number // step <= CUTS:
                relay.cut()
                tell(number)

        url = urlunsplit(parts._replace(netloc=f"127.0.0.1:{relay.port}"))
        began = time.perf_counter()
        await SENDERS[job.library](url, job.messages, before)
        seconds = time.perf_counter() - began
    told = await _ask(job.url)
    return Run(messages=job.messages, seconds=seconds, lost=job.messages - told["distinct"], doubled=told["doubled"])


async def _send_with_websockets(url: str, count: int, before: Next) -> None:
    """As its documentation shows it: connect again, and go on."""
    import websockets  # noqa: PLC0415 - only in the process that uses it

    number = 0
    async for ws in websockets.connect(url, compression=None):
        try:
            while number < count:
                await before(number)
                await ws.send(str(number))
                number += 1
            await (await ws.ping())
            await ws.close()
        except websockets.ConnectionClosed:
            continue
        return


async def _send_with_penstock(url: str, count: int, before: Next) -> None:
    import penstock  # noqa: PLC0415 - only in the process that uses it

    async with penstock.connect(url, reliable=True) as conn:
        for number in range(count):
            await before(number)
            await conn.send(str(number))
        await conn.delivered()


async def _ask(url: str) -> Any:
    import websockets  # noqa: PLC0415 - only in the process that uses it

    async with websockets.connect(url) as ws:
        await ws.send("count")
        return json.loads(await ws.recv())


SENDERS: dict[str, Callable[[str, int, Next], Awaitable[None]]] = {
    "websockets": _send_with_websockets,
    "penstock": _send_with_penstock,
}
