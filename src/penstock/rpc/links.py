"""A client's connections: which one takes a call, when another is opened, when one is returned."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any, Generic, Protocol

from penstock.errors import CallTimeout, RpcClosed
from penstock.rpc.link import Link, Owner, S
from penstock.rpc.sources import Source

CROWD = 64
"""Callers of a link beyond which another is opened, if there may be more."""
WATCH = 0.5
"""Seconds between two looks at whether links are fit."""


class Keeper(Owner[S], Protocol):
    """Whose links they are."""

    def speak(self, known: Any) -> S:
        """The protocol's state for a connection; ``known`` is what it had when it was used before, if it was."""

    def needs(self, link: Link[S]) -> bool:
        """Whether a link is to be kept though nobody waits for an answer."""

    def leave(self, link: Link[S]) -> None:
        """A link is no longer fit: what keeps it has to move to another."""


class Links(Generic[S]):
    """The links of one client.

    Args:
        greeting: seconds for a server to let the client in, where it has to.
    """

    def __init__(self, source: Source, owner: Keeper[S], greeting: float) -> None:
        self._source, self._owner, self._greeting = source, owner, greeting
        self._links: dict[Link[S], None] = {}
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._opening: asyncio.Task[Link[S]] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._timers: dict[Link[S], asyncio.TimerHandle] = {}
        self._watch: asyncio.TimerHandle | None = None
        self.opened = 0
        """Links, ever."""
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._links)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that ends with the client."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def use(self, link: Link[S]) -> Use[S]:
        """With this somebody waits on a link, which is kept meanwhile."""
        return Use(self, link)

    def ready(self) -> Link[S] | None:
        """The link for a call, if there is one that is fit; else `pick` has to find one."""
        best: Link[S] | None = None
        for link in self._links:
            if best is None or link.users < best.users:
                best = link
        if best is None or best.is_lost or self.is_closed:
            return None
        if not best.was_fit:
            best.was_fit = self._source.is_fit(best)
        if not best.was_fit:
            return None
        if best.users >= CROWD and self._opening is None and len(self._links) < self._source.most:
            self._open()
        return best

    async def pick(self) -> Link[S]:
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
            self._waiting[waiter] = None
            try:
                await waiter
            finally:
                del self._waiting[waiter]

    # Opening

    def _open(self) -> None:
        context = Context()  # not that of the caller who happens to need a link: others use it too
        self._opening = asyncio.get_running_loop().create_task(self._connect(), context=context)
        self._opening.add_done_callback(self._opened)

    async def _connect(self) -> Link[S]:
        """A link that calls may be sent on."""
        source = self._source
        await asyncio.sleep(source.pace.before())
        while True:
            try:
                link = await source.open(self._owner)
                await self._greet(link)
            except Exception as exc:
                if not self.opened:
                    raise
                await asyncio.sleep(source.delay_after(exc))
            else:
                return link

    async def _greet(self, link: Link[S]) -> None:
        try:
            async with asyncio.timeout(self._greeting) as deadline:
                await link.wait_ready()
        except BaseException as exc:
            await self._source.end(link)
            if isinstance(exc, TimeoutError) and deadline.expired():
                raise CallTimeout("the server's greeting", self._greeting) from exc
            raise

    def _opened(self, task: asyncio.Task[Link[S]]) -> None:
        self._opening = None
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            link = task.result()
            self._links[link] = None
            self.opened += 1
            if link.is_lost:
                self.lost(link)
            elif self.is_closed:
                self.drop(link)
            else:
                self.unused(link)
                self._look_later()
        for waiter in self._waiting:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)

    # Ending

    def lost(self, link: Link[S]) -> None:
        """A link was lost."""
        if link in self._links:
            self._source.pace.lost(link.now - link.opened_at)
            self.drop(link)

    def drop(self, link: Link[S]) -> None:
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

    def unused(self, link: Link[S]) -> None:
        """Nobody waits on a link at present."""
        rest = self._source.rest
        if rest is not None and not link.users and link in self._links and link not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[link] = loop.call_later(rest, self._rest, link, link.uses)

    def _rest(self, link: Link[S], uses: int) -> None:
        del self._timers[link]
        if link.users or self._owner.needs(link):
            return
        if link.uses == uses:
            self.drop(link)
        else:
            self.unused(link)

    def tidy(self) -> None:
        """Links that were kept may not be needed any more."""
        for link in self._links:
            self.unused(link)

    def _look_later(self) -> None:
        if self._watch is None and self._source.rest is not None:
            self._watch = asyncio.get_running_loop().call_later(WATCH, self._look)

    def _look(self) -> None:
        """Leave links that are not fit any more: a pool that drains waits for them."""
        self._watch = None
        for link in list(self._links):
            link.was_fit = False
            if link.is_lost or self._source.is_fit(link):
                continue
            if self._owner.needs(link):
                self._owner.leave(link)
            if not link.users:
                self.drop(link)
        if self._links and not self.is_closed:
            self._look_later()

    async def close(self) -> None:
        """End all links, and all that was spawned. Cancelling ends the waiting, not the closing."""
        self.is_closed = True
        if self._watch is not None:
            self._watch.cancel()
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


class Use(Generic[S]):
    """Somebody waits on a link."""

    def __init__(self, links: Links[S], link: Link[S]) -> None:
        self._links, self._link = links, link

    def __enter__(self) -> None:
        self._link.users += 1
        self._link.uses += 1

    def __exit__(self, *_: object) -> None:
        self._link.users -= 1
        if not self._link.users:
            self._links.unused(self._link)
