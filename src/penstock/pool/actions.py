"""Doing what the pool's state decides, in tasks of the pool's own: no caller's cancelling reaches them.

What a task leads to is done when it has ended, however it has: a task that is cancelled before its first step runs
nothing of its own, not even a ``finally``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from penstock.connection.connection import Connection
from penstock.errors import ConnectionFailed
from penstock.metrics.traffic import tally
from penstock.pool.config import ConnectionPoolConfig
from penstock.pool.endpoints import Endpoint
from penstock.pool.hooks import Hook, call_hook
from penstock.pool.opening import Opener, is_hopeless
from penstock.pool.slots import Abandon, Close, Key, Member, Open
from penstock.pool.state import PoolState
from penstock.pool.stats import Counts
from penstock.pool.target import url_of
from penstock.transport.base import CloseCode

T = TypeVar("T")
Opening = asyncio.Task[tuple[Endpoint, Connection]]

logger = logging.getLogger("penstock.pool")


class Actions:
    """Opens and closes connections, and tells the state what became of it.

    Made in the pool's event loop.
    """

    def __init__(
        self,
        config: ConnectionPoolConfig,
        state: PoolState[Connection],
        opener: Opener,
        counts: Counts,
        *,
        on_connect: Hook | None,
        random: Callable[[], float],
    ) -> None:
        self.powerless = False
        """The connections are another process's."""
        self._loop = asyncio.get_running_loop()
        self._config, self._state, self._opener, self._counts = config, state, opener, counts
        self._on_connect, self._random = on_connect, random
        self._tasks: set[asyncio.Task[Any]] = set()
        self._opening: dict[Opening, Key] = {}
        """Those that are not to be abandoned, in the order of their beginning."""
        self._closing: dict[asyncio.Task[None], Member[Connection]] = {}
        self._emptied = asyncio.Event()

    def act(self) -> None:
        """Do what is to be done; nothing once the event loop is closed, and every connection with it."""
        todo, self._state.todo = self._state.todo, []
        if self.powerless or self._loop.is_closed():
            return
        for action in todo:
            match action:
                case Open(key):
                    self._open(key)
                case Abandon(key):
                    self._abandon(key)
                case Close(member, reason):
                    self._close(member, reason)
        if self._state.total == 0:
            self._emptied.set()

    async def wait_empty(self) -> None:
        """Wait until the pool has no connection any more."""
        while self._state.total:
            self._emptied.clear()
            await self._emptied.wait()

    async def drop_all(self) -> None:
        """Drop what is left, and end what is under way."""
        for slots in self._state.keys.values():
            for member in slots.members:
                member.connection.abort()
        for member in self._closing.values():
            member.connection.abort()
        own = {asyncio.current_task()}
        for task in self._tasks.difference(self._closing, own):  # closing ends by itself now, and in order
            task.cancel()
        try:
            async with asyncio.timeout(0.1):
                while left := self._tasks - own:  # what has ended may have led to another closing
                    await asyncio.wait(left)
        except TimeoutError:
            pass

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something in a task of the pool's."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Opening

    def _open(self, key: Key) -> None:
        task = self.spawn(self._opener.open(key, partial(self._prepare, key)))
        self._opening[task] = key
        task.add_done_callback(partial(self._opened, key))

    def _abandon(self, key: Key) -> None:
        task = next((one for one in reversed(self._opening) if self._opening[one] == key and not one.done()), None)
        if task is not None:  # else it tells what became of it in this very moment
            del self._opening[task]
            task.cancel()

    def _opened(self, key: Key, task: Opening) -> None:
        state = self._state
        abandoned = self._opening.pop(task, None) is None
        if abandoned and task.cancelled():
            state.abandoned(key)
            self._forget_if_unused(key)
        elif task.cancelled():
            self._failed(key, ConnectionFailed(url_of(key), "the attempt was cancelled"))
        elif (exc := task.exception()) is not None:
            self._failed(key, exc)
        else:
            self._join(key, *task.result())
        self.act()

    def _failed(self, key: Key, exc: BaseException) -> None:
        if not isinstance(exc, Exception):
            exc = ConnectionFailed(url_of(key), repr(exc))
        self._counts.failed += 1
        self._state.failed(key, exc, everyone=is_hopeless(exc))
        self._forget_if_unused(key)

    def _join(self, key: Key, endpoint: Endpoint, connection: Connection) -> None:
        self._counts.opened += 1
        now = self._loop.time()
        lifetime = self._config.max_lifetime * (1 - self._random() / 10)
        member = Member(key, endpoint, connection, now, now + lifetime)
        member.check_at = now + self._config.check_interval * (0.5 + self._random() / 2)  # not all at once
        self._state.opened(member, now)
        connection.watch(
            on_end=partial(self._ended, member),
            on_full=partial(self._make_room, member),
            on_detached=partial(self._detached, member),
        )
        if connection.outbox.ended:
            self._ended(member)

    async def _prepare(self, key: Key, endpoint: Endpoint, connection: Connection) -> None:
        if self._on_connect is not None:
            await call_hook(self._on_connect, Member(key, endpoint, connection, self._loop.time(), 0.0))
            self.drop_unread(connection)  # as whatever comes before a loan

    # While it is open

    def _ended(self, member: Member[Connection]) -> None:
        self._loop.call_soon(self._judge, member)  # the CLOSE frame that ends it is still being looked at
        self._state.lost(member, "peer")
        if self._state.todo:
            self.act()

    def _detached(self, member: Member[Connection]) -> None:
        """A session has lost its socket: its borrower may wait until it goes on, but nobody else is to."""
        self._state.lost(member, "detached")
        if self._state.todo:
            self.act()

    def _judge(self, member: Member[Connection]) -> None:
        self._opener.closed(member.endpoint, member.connection.close_received, self._loop.time())

    def _make_room(self, member: Member[Connection]) -> bool:
        return member.idle and self.drop_unread(member.connection) > 0

    def drop_unread(self, connection: Connection) -> int:
        """Drop, and count, what nobody will receive."""
        dropped = connection.discard_unread()
        self._counts.dropped += dropped
        return dropped

    def dirt(self, connection: Connection) -> str | None:
        """Why a connection that was returned as it is cannot be lent again, if so."""
        if connection.reader.busy or connection.outbox.busy:
            return "dirty"
        if connection.unread and self._config.on_dirty == "drain":
            self.drop_unread(connection)
        return "dirty" if connection.unread else None

    def tidy_up(self, member: Member[Connection], hook: Hook) -> None:
        """Have a returned connection tidied up before it is lent again."""
        if not (self.powerless or self._loop.is_closed()):
            self.spawn(self._call(hook, member)).add_done_callback(partial(self._tidied, member))

    async def _call(self, hook: Hook, member: Member[Connection]) -> None:
        async with asyncio.timeout(self._config.connect_timeout):
            await call_hook(hook, member)

    def _tidied(self, member: Member[Connection], task: asyncio.Task[None]) -> None:
        reason: str | None = "hook"
        if not task.cancelled() and task.exception() is None:
            reason = self.dirt(member.connection)
        elif not self._state.closing:
            what = "it was cancelled" if task.cancelled() else repr(task.exception())
            logger.warning("on_release failed for a connection to %s: %s", member.endpoint.shown, what)
        self._state.give_back(member, self._loop.time(), broken=reason)
        self.act()

    # Closing

    def _close(self, member: Member[Connection], reason: str) -> None:
        tally(self._counts.closed, reason)
        if member.connection.is_detached:
            member.connection.abort()  # else it would wait for a socket first
        task = self.spawn(member.connection.close(CloseCode.NORMAL_CLOSURE))
        self._closing[task] = member
        task.add_done_callback(self._closed)

    def _closed(self, task: asyncio.Task[None]) -> None:
        member = self._closing.pop(task)
        if task.cancelled() or task.exception() is not None:
            member.connection.abort()
        member.endpoint.open -= 1
        self._state.closed(member)
        self._forget_if_unused(member.key)
        self.act()

    def _forget_if_unused(self, key: Key) -> None:
        if key not in self._state.keys:
            self._opener.forget(key)
