"""One call for all who ask for its answer. It needs no task: what settles it has it stored, and wakes them up."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import Any, Generic

from penstock.cache.flight import Flight
from penstock.errors import GraphQLError, RpcClosed, RpcError, SerializationError
from penstock.rpc.asking import LATE, Asking, Gone, Request, Waiting
from penstock.rpc.keeping import Answer, Keeping
from penstock.rpc.link import Link, S


class Leading(Generic[S]):
    """A client's calls whose answers are kept."""

    def __init__(self, asking: Asking[S], keeping: Keeping) -> None:
        self.asking, self._keeping = asking, keeping
        self.find = keeping.find
        self._leads = keeping.leads
        self._again: set[asyncio.Task[Answer]] = set()
        """Calls that are sent again, for whoever waits."""
        self._following: set[asyncio.Future[Any]] = set()
        """Who wait for calls of others, which may be another client's."""

    async def load(self, key: str, request: Request[S], ttl: float, timeout: float | None) -> bytes:
        """The answer as JSON, in time.

        Cancelled or late, it leaves the call to the others who wait; the last one has it forgotten.
        """
        asking, leads, flight = self.asking, self._leads, None
        if leads is not None and (timeout is None or timeout > 0):
            link = None if asking.is_full else asking.links.ready()
            loop = asyncio.get_running_loop() if link is None else link.loop  # which costs more to ask for
            waiter: asyncio.Future[Any] = loop.create_future()
            flight = leads.ask(key, ttl, waiter, may_begin=link is not None)
        if leads is None or flight is None:
            began = monotonic()
            work = self._keeping.load(key, ttl, partial(asking.ask, request, None), request.may_keep)
            try:
                return await asking.limited(request.name, timeout, work)
            except RpcClosed:
                return await self._load_anew(key, request, ttl, timeout, began)
        is_first = flight.task is None
        if is_first and link is not None:
            self._send(flight, request, link)
        else:
            self._following.add(waiter)
        began = 0.0 if is_first else monotonic()
        asking.deadlines.add(waiter, timeout, loop)
        try:
            is_late = await waiter is LATE
        except asyncio.CancelledError:
            leads.leave(flight, waiter)
            raise
        finally:
            asking.deadlines.remove(waiter, timeout)
            self._following.discard(waiter)
        if is_late:
            leads.leave(flight, waiter)
            if asking.links.is_closed:
                raise RpcClosed
            raise asking.late(request.name, timeout)
        try:
            return self._keeping.answer(flight, is_asked=is_first)
        except RpcClosed:
            return await self._load_anew(key, request, ttl, timeout, began)

    async def _load_anew(self, key: str, request: Request[S], ttl: float, timeout: float | None, began: float) -> bytes:
        """The answer, in what is left of the time, where a client was closed: it may be another's, whose call it was.

        Raises:
            RpcClosed: it is this one.
        """
        if self.asking.links.is_closed:
            raise RpcClosed
        left = None if timeout is None else timeout - (monotonic() - began)
        return await self.asking.limited(request.name, timeout, self.load(key, request, ttl, None), left)

    def close(self) -> None:
        """The client is closed: nobody waits any more, not even for another client's call."""
        for waiter in self._following:
            if not waiter.done():
                waiter.set_result(LATE)

    def _send(self, flight: Flight, request: Request[S], link: Link[S]) -> None:
        lead = _Lead(self, flight, request, link)
        try:
            lead.call = request.send(link, lead)
        except SerializationError as exc:
            self.failed(flight, exc)
            raise
        self.asking.pending += 1
        link.users += 1
        link.uses += 1
        flight.task = lead

    def answered(self, flight: Flight, request: Request[S], answer: Answer) -> None:
        """Store the answer, and wake up all who wait for it."""
        self._keeping.land(flight, answer, request.may_keep)

    def failed(self, flight: Flight, error: BaseException) -> None:
        """There is no answer."""
        assert self._leads is not None
        self._leads.fail(flight, error)

    def ask_again(self, flight: Flight, request: Request[S], gone: Gone, began: float) -> None:
        """A call was lost that others wait for."""
        task = asyncio.get_running_loop().create_task(self.asking.ask(request, None, gone, began))
        flight.task = task
        self._again.add(task)
        task.add_done_callback(partial(self._landed, flight, request))

    def _landed(self, flight: Flight, request: Request[S], task: asyncio.Task[Answer]) -> None:
        self._again.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is None:
            self.answered(flight, request, task.result())
        else:
            self.failed(flight, error)


class _Lead(Waiting, Generic[S]):
    """The owner of a call that others may wait for as well; it needs no task, and no turn of the event loop."""

    __slots__ = ("_began", "_flight", "_is_done", "_leading", "_link", "_request", "call")

    def __init__(self, leading: Leading[S], flight: Flight, request: Request[S], link: Link[S]) -> None:
        self._leading, self._flight, self._request, self._link = leading, flight, request, link
        self._began = monotonic()
        self._is_done = False
        self.call: Any = None

    def done(self) -> bool:
        return self._is_done

    def set_result(self, outcome: Answer | Gone) -> None:
        request = self._end()
        if isinstance(outcome, Gone):
            self._leading.ask_again(self._flight, request, outcome, self._began)
        else:
            self._leading.asking.counts.took(monotonic() - self._began)
            self._leading.answered(self._flight, request, outcome)

    def set_exception(self, error: Exception) -> None:
        self._end()
        if isinstance(error, RpcError | GraphQLError):
            counts = self._leading.asking.counts
            counts.errors += 1
            counts.took(monotonic() - self._began)
        self._leading.failed(self._flight, error)

    def cancel(self) -> None:
        """Nobody waits any more."""
        if not self._is_done:
            call = self.call
            self._end()
            self._leading.asking.forget(self._link, call)
            self._leading.failed(self._flight, asyncio.CancelledError())

    def _end(self) -> Request[S]:
        self._is_done = True
        self._leading.asking.pending -= 1
        self._leading.asking.leave(self._link)
        request = self._request
        del self._request, self.call  # which have it: a circle
        return request
