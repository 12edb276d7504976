"""A client's connections: which one takes a call, when another is opened, when one is returned."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from penstock.errors import RpcClosed
from penstock.protocols.batching import Batching
from penstock.rpc.link import Link, Owner
from penstock.rpc.sources import Source

CROWD = 32
"""Callers of a link beyond which another is opened, if there may be more."""


class Links:
    """The links of one client.

    Args:
        is_needed: whether links are to be kept though nobody waits for an answer.
    """

    def __init__(self, source: Source, owner: Owner, batching: Batching | None, is_needed: Callable[[], bool]) -> None:
        self._source, self._owner, self._batching, self._is_needed = source, owner, batching, is_needed
        self._links: dict[Link, None] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._opening: asyncio.Task[Link] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._timers: dict[Link, asyncio.TimerHandle] = {}
        self.is_closed = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that ends with the client."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def pick(self) -> Link:
        """The link for a call; waits while there is none. Cancelling is safe.

        Raises:
            RpcClosed: the client is closed, or was meanwhile.
            Exception: what opening a connection raises.
        """
        while True:
            if self.is_closed:
                raise RpcClosed
            fit = [link for link in self._links if not link.is_lost and self._source.is_fit(link)]
            best = min(fit, key=lambda link: link.users, default=None)
            if (best is None or best.users >= CROWD) and self._opening is None and len(fit) < self._source.most:
                self._open()
            if best is not None:
                return best
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)

    def _open(self) -> None:
        self._opening = asyncio.get_running_loop().create_task(self._source.open(self._owner, self._batching))
        self._opening.add_done_callback(self._opened)

    def _opened(self, task: asyncio.Task[Link]) -> None:
        self._opening = None
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            link = task.result()
            self._links[link] = None
            if link.is_lost or self.is_closed:
                self.drop(link)
            else:
                self.unused(link)
        for waiter in self._waiting:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    def drop(self, link: Link) -> None:
        """Be done with a link: it was lost, or nobody needs it."""
        if link not in self._links:
            return
        del self._links[link]
        timer = self._timers.pop(link, None)
        if timer is not None:
            timer.cancel()
        task = asyncio.get_running_loop().create_task(self._source.end(link))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def unused(self, link: Link) -> None:
        """Nobody waits on a link at present."""
        rest = self._source.rest
        if rest is not None and not link.users and link in self._links and link not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[link] = loop.call_later(rest, self._rest, link, link.uses)

    def _rest(self, link: Link, uses: int) -> None:
        del self._timers[link]
        if link.users or self._is_needed():
            return
        if link.uses == uses:
            self.drop(link)
        else:
            self.unused(link)

    def tidy(self) -> None:
        """Links that were kept may not be needed any more."""
        for link in self._links:
            self.unused(link)

    async def close(self) -> None:
        """End all links, and all that was spawned. Cancelling ends the waiting, not the closing."""
        self.is_closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(RpcClosed())
        opening = () if self._opening is None else (self._opening,)
        for task in (*opening, *self._tasks):
            task.cancel()
        for link in list(self._links):
            self.drop(link)
        while left := {*opening, *self._tasks, *self._ending} - {asyncio.current_task()}:
            await asyncio.wait(left)
            opening = ()
            await asyncio.sleep(0)  # an end may begin when an attempt to open has ended
