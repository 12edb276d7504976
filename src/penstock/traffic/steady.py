"""Many connections at once through a middleware, and one that works for a while: what both take."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from penstock.traffic.measure import Job, Run, quantile
from penstock.traffic.resources import allow_descriptors, resident_bytes

if TYPE_CHECKING:
    from penstock import PooledConnection

AT_ONCE = 50
"""Connections that are opened, or asked, at the same time."""
WARM_UP_ROUNDS = 5
SENDS, LOANS, CALLS = 2000, 50, 500
"""Of one round."""

Tell = Callable[[int], None]


async def crowd(job: Job, tell: Tell) -> Run:
    """Borrow connections of one middleware, all at the same time, and have each of them bring an answer."""
    from penstock import ConnectionPoolConfig, PerformanceConfig, PerformanceMiddleware  # noqa: PLC0415 - as others

    allow_descriptors(job.connections + 100)
    pool = ConnectionPoolConfig(max_connections=job.connections, max_connecting=AT_ONCE, connect_rate=inf)
    times: list[float] = []
    async with PerformanceMiddleware(PerformanceConfig(pool=pool)) as pipe:
        began = time.perf_counter()
        kept: list[PooledConnection] = []
        while len(kept) < job.connections:
            missing = min(AT_ONCE, job.connections - len(kept))
            kept += await asyncio.gather(*(pipe.connection(job.url) for _ in range(missing)))
            tell(len(kept))
        seconds = time.perf_counter() - began
        for number, conn in enumerate(kept):
            before = time.perf_counter()
            await conn.send(str(number))
            if await conn.recv() == str(number):
                times.append(time.perf_counter() - before)
        for conn in kept:
            conn.release()
    times.sort()
    return Run(messages=len(times), seconds=seconds, p50=quantile(times, 0.5), p99=quantile(times, 0.99))


async def rounds(job: Job, tell: Tell) -> Run:
    """Send, borrow and call through one middleware, round after round; ``job.url`` is a JSON-RPC server's."""
    from penstock import PerformanceMiddleware  # noqa: PLC0415 - as others

    async with PerformanceMiddleware() as pipe:
        rpc = pipe.rpc(job.url)

        async def go_round(number: int) -> None:
            asked = _double(number)
            for _ in range(SENDS):
                await pipe.send(job.url, asked)
            for _ in range(LOANS):
                async with pipe.connection(job.url) as conn:
                    await conn.send(asked)
                    await conn.recv()
            first = number * CALLS // 2
            for _ in range(2):
                await asyncio.gather(*(rpc.call("double", [first + one], ttl=60) for one in range(CALLS // 2)))

        for number in range(WARM_UP_ROUNDS):
            await go_round(number)
        tells_memory = sys.platform.startswith("linux")
        before = resident_bytes() if tells_memory else 0
        began = time.perf_counter()
        for number in range(WARM_UP_ROUNDS, WARM_UP_ROUNDS + job.messages):
            await go_round(number)
            tell(number - WARM_UP_ROUNDS + 1)
        seconds = time.perf_counter() - began
        grown = resident_bytes() - before if tells_memory else None
    return Run(messages=job.messages, seconds=seconds, grown_bytes=grown)


def _double(number: int) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "double", "params": [number]})
