"""One call for all who ask for its answer. It needs no task: what settles it has it stored, and wakes them up."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Generic

from penstock.cache.flight import Flight
from penstock.errors import GraphQLError, RpcError, SerializationError
from penstock.rpc.asking import LATE, Asking, Gone, Request
from penstock.rpc.keeping import Answer, Keeping
from penstock.rpc.link import Link, S


class Leading(Generic[S]):
    """A client's calls whose answers are kept."""

    def __init__(self, asking: Asking[S], keeping: Keeping) -> None:
        self._asking, self._keeping = asking, keeping
        self.find = keeping.find
        self._again: set[asyncio.Task[Answer]] = set()
        """Calls that are sent again, for whoever waits."""

    async def load(self, key: str, request: Request[S], ttl: float, timeout: float | None) -> bytes:
        """The answer as JSON, in time.

        Cancelled or late, it leaves the call to the others who wait; the last one has it forgotten.
        """
        asking, keeping, loop = self._asking, self._keeping, asyncio.get_running_loop()
        link = None if asking.is_full else asking.links.ready()
        waiter: asyncio.Future[Any] = loop.create_future()
        has_time = timeout is None or timeout > 0
        flight = keeping.ask(key, ttl, waiter, may_begin=link is not None) if has_time else None
        if flight is None:
            work = keeping.load(key, ttl, partial(asking.ask, request, None), request.may_keep)
            return await asking.limited(request.name, timeout, work)
        began = loop.time()
        is_first = flight.task is None
        if is_first and link is not None:
            self._send(flight, request, link, loop, began)
        asking.deadlines.add(waiter, timeout, began)
        try:
            is_late = await waiter is LATE
        except asyncio.CancelledError:
            keeping.leave(flight, waiter)
            raise
        finally:
            asking.deadlines.remove(waiter, timeout)
        if is_late:
            keeping.leave(flight, waiter)
            raise asking.late(request.name, timeout)
        return keeping.answer(flight, is_asked=is_first)

    def _send(
        self, flight: Flight, request: Request[S], link: Link[S], loop: asyncio.AbstractEventLoop, now: float
    ) -> None:
        settled: asyncio.Future[Any] = loop.create_future()
        try:
            call = request.send(link, settled)
        except SerializationError as exc:
            self._keeping.fail(flight, exc)
            raise
        self._asking.pending += 1
        link.users += 1
        link.uses += 1
        flight.task = settled
        settled.add_done_callback(partial(self._settled, flight, request, link, call, now))

    def _settled(
        self, flight: Flight, request: Request[S], link: Link[S], call: Any, began: float, settled: asyncio.Future[Any]
    ) -> None:
        asking = self._asking
        asking.pending -= 1
        asking.leave(link)
        if settled.cancelled():
            asking.forget(link, call)
        elif (error := settled.exception()) is not None:
            if isinstance(error, RpcError | GraphQLError):
                asking.counts.errors += 1
                asking.counts.took(settled.get_loop().time() - began)
        elif isinstance(gone := settled.result(), Gone):
            flight.task = again = settled.get_loop().create_task(asking.ask(request, None, gone, began))
            self._again.add(again)
            again.add_done_callback(self._again.discard)
            again.add_done_callback(partial(self._landed, flight, request))
            return
        else:
            asking.counts.took(settled.get_loop().time() - began)
        self._landed(flight, request, settled)

    def _landed(self, flight: Flight, request: Request[S], settled: asyncio.Future[Any]) -> None:
        error = asyncio.CancelledError() if settled.cancelled() else settled.exception()
        if error is None:
            self._keeping.land(flight, settled.result(), request.may_keep)
        else:
            self._keeping.fail(flight, error)
