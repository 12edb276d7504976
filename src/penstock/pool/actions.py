"""Doing what the pool's state decides, in tasks of the pool's own: no caller's cancelling reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from penstock.connection.connection import Connection
from penstock.errors import PoolClosed
from penstock.pool.config import ConnectionPoolConfig
from penstock.pool.endpoints import Endpoint
from penstock.pool.hooks import Hook, call_hook
from penstock.pool.opening import Opener, is_hopeless
from penstock.pool.slots import Close, Key, Member, Open
from penstock.pool.state import PoolState
from penstock.pool.stats import Counts
from penstock.transport.base import CloseCode


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
        self.tasks: set[asyncio.Task[Any]] = set()
        self.emptied = asyncio.Event()
        """The pool has no connection any more."""
        self._loop = asyncio.get_running_loop()
        self._config, self._state, self._opener, self._counts = config, state, opener, counts
        self._on_connect, self._random = on_connect, random

    def act(self) -> None:
        """Do what is to be done; nothing once the event loop is closed, and every connection with it."""
        todo, self._state.todo = self._state.todo, []
        if self._loop.is_closed():
            return
        for action in todo:
            match action:
                case Open(key):
                    self.spawn(self._open(key))
                case Close(member, reason):
                    self._counts.closed[reason] = self._counts.closed.get(reason, 0) + 1
                    self.spawn(self._close(member))
        if self._state.total == 0:
            self.emptied.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in a task of the pool's."""
        task = self._loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _open(self, key: Key) -> None:
        state = self._state
        try:
            endpoint, connection = await self._opener.open(key, partial(self._prepare, key))
        except asyncio.CancelledError:
            state.failed(key, PoolClosed())
            self.act()
            raise
        except Exception as exc:  # noqa: BLE001 - the top of a task: whoever waits is told
            self._counts.failed += 1
            state.failed(key, exc, everyone=is_hopeless(exc))
            self._forget_if_unused(key)
        else:
            self._counts.opened += 1
            now = self._loop.time()
            lifetime = self._config.max_lifetime * (1 - self._random() / 10)
            member = Member(key, endpoint, connection, now, now + lifetime)
            member.check_at = now + self._config.check_interval * (0.5 + self._random() / 2)  # not all at once
            state.opened(member, now)
            connection.watch(on_end=partial(self._ended, member), on_full=partial(self._make_room, member))
            if connection.outbox.ended:
                self._ended(member)
        self.act()

    async def _prepare(self, key: Key, endpoint: Endpoint, connection: Connection) -> None:
        if self._on_connect is not None:
            await call_hook(self._on_connect, Member(key, endpoint, connection, self._loop.time(), 0.0))
            self.drop_unread(connection)  # as whatever comes before a loan

    def _ended(self, member: Member[Connection]) -> None:
        self._loop.call_soon(self._judge, member)  # the CLOSE frame that ends it is still being looked at
        self._state.lost(member, "peer")
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

    async def _close(self, member: Member[Connection]) -> None:
        connection = member.connection
        try:
            await connection.close(CloseCode.NORMAL_CLOSURE)
        finally:
            member.endpoint.open -= 1
            self._state.closed(member)
            self._forget_if_unused(member.key)
            self.act()

    def _forget_if_unused(self, key: Key) -> None:
        if key not in self._state.keys:
            self._opener.forget(key)
