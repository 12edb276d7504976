"""Calls to a JSON-RPC server by many tasks at a time, and the clients that make them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import Any, Protocol

from penstock.traffic.measure import Job, Run, quantile

RECENT = 500
"""Of the numbers asked for last, those that a repeat asks for again."""
STEPS = 20
"""Times that the job tells how far it is."""
WARM_UP = 2000
TIMED = 4000
"""Calls that are timed one by one, at most; after those that tell the rate, with the same others about."""


class Caller(Protocol):
    """A client of any library."""

    async def call(self, method: str, params: Any) -> Any:
        """The result of a call."""


class WrongAnswer(Exception):  # noqa: N818 - as the errors of the library
    """A call got another's answer, or none."""


class OneConnection:
    """A client as programs write it: one connection of ``websockets``, a dict of futures, a task that reads.

    Args:
        dumps, loads: what makes JSON, and reads it.
    """

    def __init__(self, ws: Any, dumps: Callable[[Any], str], loads: Callable[[Any], Any]) -> None:
        self._ws, self._dumps, self._loads = ws, dumps, loads
        self._last_id = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}

    async def call(self, method: str, params: Any) -> Any:
        self._last_id = id_ = self._last_id + 1
        future = self._pending[id_] = asyncio.get_running_loop().create_future()
        await self._ws.send(self._dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}))
        return await future

    async def read(self) -> None:
        """Hand out answers until the connection is closed."""
        try:
            async for message in self._ws:
                answer = self._loads(message)
                self._pending.pop(answer["id"]).set_result(answer["result"])
        finally:
            for future in self._pending.values():
                future.set_exception(ConnectionError("the connection is closed"))


@asynccontextmanager
async def one_connection(url: str, dumps: Callable[[Any], str], loads: Callable[[Any], Any]) -> AsyncIterator[Caller]:
    """A client over one connection of ``websockets``."""
    import websockets

    async with websockets.connect(url, compression=None) as ws:
        client = OneConnection(ws, dumps, loads)
        reader = asyncio.create_task(client.read())
        try:
            yield client
        finally:
            reader.cancel()
            await asyncio.wait([reader])


def with_json(url: str, *, cached: bool) -> AbstractAsyncContextManager[Caller]:  # noqa: ARG001 - it has no cache
    """With the JSON of the standard library."""
    return one_connection(url, json.dumps, json.loads)


def with_msgspec(url: str, *, cached: bool) -> AbstractAsyncContextManager[Caller]:  # noqa: ARG001 - it has no cache
    """With that of ``msgspec``."""
    from msgspec.json import Decoder, Encoder

    encode = Encoder().encode
    return one_connection(url, lambda message: encode(message).decode(), Decoder().decode)


@asynccontextmanager
async def pooled(url: str, *, cached: bool, arrays: bool = False) -> AsyncIterator[Caller]:
    """`penstock.Rpc` over a pool, both at their defaults; with a `MessageCache` at its defaults where answers repeat.

    Args:
        arrays: ``double`` may go in arrays.
    """
    from penstock import Batching, CachePolicy, ConnectionPool, MessageCache, Rpc

    kept: dict[str, Any] = {"cache": MessageCache(), "policy": CachePolicy({"double": 60})} if cached else {}
    batching = Batching(["double"]) if arrays else None
    async with ConnectionPool() as pool, Rpc(pool, url, batching=batching, **kept) as rpc:
        yield rpc


def in_arrays(url: str, *, cached: bool) -> AbstractAsyncContextManager[Caller]:
    """The same, with arrays allowed."""
    return pooled(url, cached=cached, arrays=True)


CALLERS: dict[str, Callable[..., AbstractAsyncContextManager[Caller]]] = {
    "websockets": with_json,
    "websockets, msgspec": with_msgspec,
    "penstock": pooled,
    "penstock, arrays": in_arrays,
}


def make_numbers(count: int, repeats: float, first: int = 0, seed: int = 1) -> list[int]:
    """Parameters of calls: ascending from ``first``, but for that share which repeats one of the `RECENT` before."""
    random = Random(seed)  # noqa: S311 - the same traffic in every run
    numbers: list[int] = []
    last = first - 1
    for _ in range(count):
        if last >= RECENT and random.random() < repeats:
            numbers.append(last - random.randrange(RECENT))
        else:
            last += 1
            numbers.append(last)
    return numbers


async def calls(job: Job, tell: Callable[[int], None]) -> Run:
    """Have so many tasks call at the same time; then time calls one by one: with repeats, those that repeat one."""
    warm_up = make_numbers(WARM_UP, 0)
    numbers = make_numbers(job.messages, job.repeats, WARM_UP)
    first = max(numbers) + 1
    async with CALLERS[job.library](job.url, cached=job.repeats > 0) as client:
        await _ask_all(client, warm_up, job.callers)
        await client.call("count", [])
        wall, cpu = time.perf_counter(), time.process_time()
        step = max(1, len(numbers) // STEPS)
        for start in range(0, len(numbers), step):
            await _ask_all(client, numbers[start : start + step], job.callers)
            tell(min(start + step, len(numbers)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        told = await client.call("count", [])
        times = await _time_all(client, make_numbers(min(TIMED, job.messages), job.repeats, first), first, job)
    return Run(
        messages=job.messages,
        seconds=wall,
        client_cpu=cpu / wall,
        server_cpu=told["cpu"] / wall,
        reached=told["calls"],
        p50=quantile(times, 0.5),
        p99=quantile(times, 0.99),
    )


async def _ask_all(client: Caller, numbers: Iterable[int], callers: int) -> None:
    """Each task takes the next number that no other has taken."""
    ahead = iter(numbers)

    async def ask() -> None:
        call = client.call
        for number in ahead:
            await call("double", [number])

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(ask())


async def _time_all(client: Caller, numbers: Iterable[int], first: int, job: Job) -> list[float]:
    """What calls take, ascending; of repeats those of what was answered before ``first`` was asked for."""
    ahead = iter(numbers)
    times: list[float] = []

    async def ask() -> None:
        now = time.perf_counter
        for number in ahead:
            before = now()
            doubled = await client.call("double", [number])
            seconds = now() - before
            if doubled != 2 * number:
                raise WrongAnswer(f"{number} doubled is {doubled!r}")
            if not job.repeats or number < first:
                times.append(seconds)

    async with asyncio.TaskGroup() as group:
        for _ in range(job.callers):
            group.create_task(ask())
    return sorted(times)
