"""The pool: does what its state decides."""

from __future__ import annotations

import asyncio
import random as chance
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from math import isnan
from threading import get_ident
from typing import Any

from penstock.connection.connect import connect as open_connection
from penstock.connection.connection import Connection
from penstock.connection.gate import SHUT
from penstock.errors import ConnectionFailed, PoolClosed, PoolExhausted, WrongLoop
from penstock.pool.actions import Actions, logger
from penstock.pool.care import Care
from penstock.pool.config import ConnectionPoolConfig
from penstock.pool.forks import FOREIGN, remember
from penstock.pool.hooks import Hook
from penstock.pool.lease import REPLACED, PooledConnection, loan
from penstock.pool.opening import Opener
from penstock.pool.places import caller_place
from penstock.pool.slots import Key, Member
from penstock.pool.state import PoolState
from penstock.pool.stats import Counts, PoolStats
from penstock.pool.target import check_url, check_weight, is_kept, url_of, weights_of
from penstock.pool.waiting import Caller, Deadlines
from penstock.transport.base import HeadersLike, Subprotocol


class ConnectionPool:
    """Lends open connections, and keeps them open, watched and bounded in between.

    ::

        async with ConnectionPool() as pool:
            async with pool.get_connection("ws://localhost:8765") as conn:
                await conn.send("hello")
                print(await conn.recv())

    A pool belongs to the event loop in which it is first used.

    Args:
        config: its bounds.
        connect: opens a connection to a URL; gets ``additional_headers``, ``subprotocols`` and ``ssl`` where they were
            asked for. An open connection of ``websockets`` will do as well.
        on_connect: prepares each connection once, before it is lent: authenticates, subscribes. It gets a loan that
            ends with it; ``connect_timeout`` is for both. If it raises, the connection is closed and the caller told.
            It must not borrow from this pool: hooks that wait for one host can hold all its ``max_connecting`` places.
        on_release: tidies up each connection that is returned, within ``connect_timeout``. If it raises, the
            connection is closed.
        endpoints: servers that share the load of a URL, each with its weight: new connections go to the one with fewest
            for its weight, and not to one that fails.
        before_connect: awaited before each attempt to open a connection; the time it takes counts for no time-out.
        random: uniform in [0, 1); spreads lifetimes and attempts.
    """

    def __init__(
        self,
        config: ConnectionPoolConfig | None = None,
        *,
        connect: Callable[..., Awaitable[Any]] = open_connection,
        on_connect: Hook | None = None,
        on_release: Hook | None = None,
        endpoints: Mapping[str, Mapping[str, float] | Sequence[str]] | None = None,
        before_connect: Callable[[], Awaitable[object]] | None = None,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self.config = config = ConnectionPoolConfig() if config is None else config
        self._opener = Opener(config, connect, weights_of(endpoints or {}), random, before_connect)
        self._on_connect, self._on_release, self._random = on_connect, on_release, random
        self._state: PoolState[Connection] = PoolState(
            max_connections=config.max_connections,
            min_connections=config.min_connections,
            max_total=config.max_total,
            max_uses=config.max_request_count,
            tidied=on_release is not None,
            capacity=config.shared_capacity,
            spread=self._opener.is_spread,
            kept=is_kept,
        )
        self._counts = Counts()
        self._traced = config.lease_warning is not None
        self._loop: asyncio.AbstractEventLoop
        self._now: Callable[[], float]
        self._is_running: Callable[[], bool]
        self.thread: int | None = None
        """Of the pool's event loop; in a child process none that there is."""
        self._deadlines: Deadlines[Connection]
        self._actions: Actions
        self._care: asyncio.Task[None]

    # Lending

    def get_connection(
        self,
        url: str,
        timeout: float | None = None,  # by name, please: Python is slower to call what insists on it
        additional_headers: HeadersLike | None = None,
        subprotocols: Sequence[Subprotocol] | None = None,
        ssl: ssl.SSLContext | None = None,
        shared: bool = False,
        weight: int = 1,
    ) -> PooledConnection:
        """Borrow a connection to ``url``, opening one if the pool may grow: ``await`` it or ``async with`` it.

        Cancelling is safe: a connection handed over too late goes back to the pool.

        Args:
            timeout: seconds to wait; 0 means now or never, None the pool's own.
            additional_headers: of the opening handshake, as for `penstock.connect`; callers who ask for others, or for
                other subprotocols or another TLS context, do not get each other's connections.
            shared: have a part of a connection on which others send and receive at the same time.
            weight: what the part takes of ``shared_capacity``.

        Raises:
            PoolExhausted: none became free in time.
            ConnectionFailed: the peer refused a new one; the cause is chained.
            PoolClosed: the pool is closed.
            WrongLoop: called from another event loop or thread, or in a child process.
            ValueError: ``url`` is no WebSocket URL, ``timeout`` no number, or ``weight`` not one that a connection can
                carry.
        """
        if not (shared or additional_headers or subprotocols or ssl):
            return PooledConnection(self, url, timeout)  # at once: nearly every loan begins here
        if shared:
            check_weight(weight, self.config.shared_capacity)
        return loan(self, url, timeout, additional_headers, subprotocols, ssl, weight if shared else 0)

    def take(self, key: Key) -> Member[Connection] | None:
        """Lend an idle connection now; None if there is none. Raises as `get_connection`."""
        if get_ident() != self.thread or not self._is_running():
            self._start(key)
        member = self._state.take(key, self._now())
        if member is None:
            self._none_is_idle()
            return None
        if member.connection.reader.items and not self._clear(member.connection):
            self.give_back(member, "dirty")
            return self.take(key)
        if self._traced:
            member.lent_from = caller_place()
        return member

    def take_share(self, key: Key, weight: int) -> Member[Connection] | None:
        """Lend a part of a connection now; None if there is none. Raises as `get_connection`."""
        if get_ident() != self.thread or not self._is_running():
            self._start(key)
        member = self._state.take_share(key, weight, self._now())
        if member is None:
            self._none_is_idle()
            return None
        if member.share == weight and member.connection.unread and not self._clear(member.connection):
            self.give_back_share(member, weight, "dirty")
            return self.take_share(key, weight)
        if self._traced:
            member.lent_from = caller_place()
        return member

    def _none_is_idle(self) -> None:
        if self._state.closing:
            raise PoolClosed
        if self._state.todo:
            self._actions.act()

    def _clear(self, connection: Connection) -> bool:
        """Drop what came while nobody had borrowed a connection; False if the rest of a message is still to come."""
        self._actions.drop_unread(connection)
        return not connection.unread

    async def wait(self, key: Key, timeout: float | None, weight: int = 0) -> Member[Connection]:
        """Queue up for a connection. Raises as `get_connection`, and cancelling is safe likewise."""
        seconds = self.config.acquire_timeout if timeout is None else timeout
        counts, state = self._counts, self._state
        if key not in state.keys:
            check_url(url_of(key))
        if not seconds > 0 or (state.waiting >= self.config.max_waiting and not state.may_grow(key)):
            if isnan(seconds):
                raise ValueError(f"timeout={timeout!r}: must be a number of seconds; 0 for now or never")
            counts.timeouts += 1
            raise self._exhausted(key, 0.0, seconds)
        now = self._now()
        caller: Caller[Connection] = Caller(key, weight, self._loop.create_future(), now, now + seconds)
        self._deadlines.add(caller, seconds)
        state.wait(key, caller)
        if state.todo:
            self._actions.act()
        try:
            member = await caller.future
        except asyncio.CancelledError:
            counts.cancelled += 1
            self._give_up(caller)
            raise
        except PoolExhausted:
            counts.timeouts += 1
            raise
        except ConnectionFailed:
            counts.errors += 1
            raise
        counts.waited += 1
        counts.wait.record(self._now() - now)
        if self._traced:
            member.lent_from = caller_place()
        return member

    def _give_up(self, caller: Caller[Connection]) -> None:
        future = caller.future
        if not future.cancelled() and future.exception() is None:  # handed over in the same moment
            self._counts.refused += 1
            if caller.weight:
                self.give_back_share(future.result(), caller.weight, None)
            else:
                self.give_back(future.result(), None)
        else:
            self._state.forget(caller.key, caller, self._now())
            self._actions.act()

    def _expire(self, caller: Caller[Connection]) -> None:
        now = self._now()
        self._state.forget(caller.key, caller, now)
        caller.refuse(self._exhausted(caller.key, now - caller.since, caller.deadline - caller.since))
        self._actions.act()

    def _exhausted(self, key: Key, waited: float, timeout: float) -> PoolExhausted:
        state, slots = self._state, self._state.keys.get(key)
        in_use, opening, closing = (slots.leased, slots.opening, slots.closing) if slots is not None else (0, 0, 0)
        retry_in = self._opener.retry_in(key, self._now())
        error = PoolExhausted(waited, in_use, opening, state.total, state.waiting, closing, retry_in, timeout)
        error.__cause__ = self._opener.trouble(key)
        return error

    # Taking back

    def give_back(self, member: Member[Connection], reason: str | None) -> None:
        """A borrower returns a connection; ``reason`` tells why it is not to be lent again, if so."""
        if member.uses & 15 == 1:
            self._counts.use.record(self._now() - member.used_at)
        if reason is None:
            connection = member.connection
            reader = connection.reader
            if not (reader.items or reader.busy or connection.outbox.gate is SHUT) and self._state.park(member):
                return
            if self._on_release is not None and member.retired is None:
                self._actions.tidy_up(member, self._on_release)
                return
            reason = self._actions.dirt(connection)
        elif reason == REPLACED:
            self._counts.replaced += 1
        self._state.give_back(member, self._now(), broken=reason)
        if self._state.todo:
            self._actions.act()

    def give_back_share(self, member: Member[Connection], weight: int, reason: str | None) -> None:
        """A borrower returns a part of a connection."""
        if member.share > weight:
            self._state.give_back_share(member, weight, self._now(), broken=reason)
            if self._state.todo:
                self._actions.act()
        else:
            self._state.leave(member, weight)
            self.give_back(member, reason)

    def collected(self, member: Member[Connection], weight: int) -> None:
        """A loan was collected as garbage, in whatever thread: its connection is closed, and the slot free again."""
        if self.thread == FOREIGN:
            return
        where = f", borrowed at {member.lent_from}," if member.lent_from else ""
        logger.error(
            "a connection to %s%s was never returned: use `async with`, or release() it", member.endpoint.shown, where
        )
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._reclaim, member, weight)

    def _reclaim(self, member: Member[Connection], weight: int) -> None:
        self._counts.leaked += 1
        if weight:
            self.give_back_share(member, weight, "leaked")
        else:
            self.give_back(member, "leaked")

    # The life of the pool

    async def warm_up(self, url: str) -> None:
        """Open connections to ``url`` until there are ``min_connections``, and wait until one is open.

        Raises:
            ConnectionFailed: none could be opened.
            PoolExhausted: none was open in time.
            PoolClosed: the pool is closed.
            WrongLoop: called from another event loop or thread, or in a child process.
            ValueError: ``url`` is no WebSocket URL.
        """
        self._check_loop()
        slots = self._state.keys.get(url)
        if slots is None or not slots.members:
            (await self.get_connection(url)).release()
        self._state.refill(url)
        self._actions.act()

    def resize(self, max_connections: int) -> None:
        """Allow more connections for each URL, or fewer: idle ones are closed now, lent ones when they return.

        Raises:
            ValueError: ``max_connections`` is not 1 to ``max_total``.
            WrongLoop: called from another event loop or thread, or in a child process.
        """
        self._check_loop()
        self.config.check_most(max_connections)
        self._state.resize(max_connections)
        if self._state.todo:
            self._actions.act()

    async def drain(self, url: str | None = None) -> None:
        """Retire the connections to ``url`` (None: to all) that are open now, and wait until they are gone.

        Callers go on getting new ones. Cancelling ends the waiting, not the draining.

        Raises:
            WrongLoop: called from another event loop or thread, or in a child process.
        """
        self._check_loop()
        slots = {key: slots for key, slots in self._state.keys.items() if url is None or url_of(key) == url}
        retired = [member for one in slots.values() for member in one.members]
        for key in slots:
            self._state.drain(key)
        if self._state.todo:
            self._actions.act()
        for member in retired:
            await member.connection.wait_closed()

    async def close(self, timeout: float = 10.0) -> None:
        """Lend no more; close what is idle now, what is lent when it returns, and all that is left after ``timeout``.

        Callers that wait get `PoolClosed`, and what is being opened is given up. Cancelling drops all connections. When
        the pool's event loop has ended, or in a child process, there is nothing to close: the pool forgets all it has.

        Raises:
            WrongLoop: called from another event loop or thread.
        """
        if self.thread is None:
            self._state.closing = True
            return
        if self.thread == FOREIGN or self._loop.is_closed():
            self._state.vanish()
            return
        self._check_loop()
        self._state.close(PoolClosed)
        self._care.cancel()
        self._deadlines.stop()
        self._actions.act()
        try:
            async with asyncio.timeout(timeout):
                await self._actions.wait_empty()
        except TimeoutError:
            pass
        finally:
            await self._actions.drop_all()

    def _check_loop(self) -> None:
        """Raise WrongLoop outside the pool's event loop, if it has one already."""
        if self.thread is not None and (get_ident() != self.thread or not self._is_running()):
            raise WrongLoop("pool", "use(pool)")

    def stats(self) -> PoolStats:
        """What the pool has and has done."""
        return self._counts.snapshot(self._state, self._opener.seconds)

    def _start(self, key: Key) -> None:
        """Make the running loop the pool's own, at its first use."""
        check_url(url_of(key))
        if self.thread is not None:
            raise WrongLoop("pool", "use(pool)")
        if self._state.closing:
            raise PoolClosed
        loop = asyncio.get_running_loop()
        self._loop, self.thread = loop, get_ident()
        self._now, self._is_running = loop.time, loop.is_running
        self._deadlines = Deadlines(loop, self._expire)
        self._actions = Actions(
            self.config, self._state, self._opener, self._counts, on_connect=self._on_connect, random=self._random
        )
        care = Care(self.config, self._state, self._opener, self._actions)
        self._care = self._actions.spawn(care.run())
        remember(self)

    def disown(self) -> None:
        """The process is a child: the connections are its parent's."""
        self.thread = FOREIGN
        self._actions.powerless = True

    async def __aenter__(self) -> ConnectionPool:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
