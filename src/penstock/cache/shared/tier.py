"""The tier that processes share, on a Valkey or Redis server."""

from __future__ import annotations

import asyncio
import logging
import random as chance
from collections.abc import Callable
from contextvars import Context
from functools import partial
from secrets import token_bytes
from types import TracebackType
from typing import Any, Protocol, Self

from penstock.cache.shared.entries import GRACE, EntryDamaged, Kept, Packer, head
from penstock.cache.shared.link import CLOSED, Address, Link, failure
from penstock.cache.shared.names import Names
from penstock.cache.shared.notes import Change, Keep, Note, Put, Ticket
from penstock.cache.shared.rest import LONGEST_REST, Rest, delays
from penstock.cache.shared.stats import SharedStats
from penstock.cache.shared.writes import Writes
from penstock.errors import ConnectionFailed

logger = logging.getLogger("penstock.cache")

CONNECT_TIMEOUT = 5.0
INTERVAL = 0.5
"""Seconds in each of which the server has to say something."""
MOST_PENDING = 10_000
"""Commands without an answer, beyond which no more questions are asked."""


class Refused(Exception):  # noqa: N818 - as those of penstock.errors
    """The server has answered with an error, or not at all."""


class Load(Protocol):
    """A load that asks the server first."""

    key: Any
    tags: tuple[str, ...]
    ticket: Ticket | None
    is_waiting: bool


class SharedTier:
    """Lets the caches of several processes share what they load, and tell each other what has changed.

    ::

        async with SharedTier("redis://cache.internal", prefix="blocks:") as tier:
            cache = MessageCache(max_size=10_000, ttl=60, shared=tier)

    `MessageCache` asks it before it calls a loader. All questions and changes go over one connection, on which the
    server also tells of changes by other processes (``CLIENT TRACKING``, Redis 6 or Valkey), so they come in order.
    When that connection breaks, the entries of this process are dropped, for changes may have been missed. While the
    server is down or slow, loaders are called as if there were no shared tier: nobody gets an error, or waits longer
    than ``timeout``; `stats` counts it. Changes are kept, and sent when the server is back.

    A tier belongs to one cache, and to the event loop that first used it; when that has ended, to the next one. Loads
    on other event loops do without it; changes are passed on from every thread.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as the ``redis`` library takes it; of one server, not of
            a cluster.
        prefix: begins all names on the server. Caches that shall not share entries need different ones, none of which
            begins with another.
        timeout: seconds that a question may take in all.
        value_type: what values are, as ``msgspec`` understands it. The default takes None, booleans, numbers, text,
            bytes, and lists and dictionaries of these. Tuples and objects do not come back as they were: name their
            type, and they do.
        options: for the connections of the ``redis`` library: ``password``, ``ssl_ca_certs``, ``credential_provider``.

    Raises:
        ImportError: the extra ``valkey`` is not installed.
        ValueError: the URL is none, or an argument is out of bounds.
        TypeError: there is no such option.
    """

    def __init__(
        self, url: str, *, prefix: str = "penstock:", timeout: float = 0.05, value_type: Any = Any, **options: Any
    ) -> None:
        if not isinstance(timeout, int | float) or not 0 < timeout <= CONNECT_TIMEOUT:
            raise ValueError(f"timeout={timeout!r}: must be more than 0 and at most {CONNECT_TIMEOUT:g} seconds")
        if not prefix:
            raise ValueError("prefix='': must have at least one character, for others may use the server as well")
        self._names = Names(prefix)
        self._address = Address(url, self._names.prefix, options)
        self._timeout = timeout
        self._packer = Packer(value_type)
        self._writes = Writes(self._names, _number)
        self._rest = Rest(chance.random)
        self._forget: Callable[[list[Change]], object] | None = None
        self._stale_ttl = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._attempted: asyncio.Future[None] | None = None
        """Done when the first attempt to connect has ended, one way or the other."""
        self._is_closed = self._woken = self._told_down = False
        self._hits = self._misses = self._timeouts = self._failures = self._skipped = 0
        self._damaged = self._invalidations = self._flushes = 0

    async def __aenter__(self) -> Self:
        """Wait for the first attempt to connect; if that fails, others follow."""
        if self._start() and self._attempted is not None:
            await asyncio.wait({self._attempted})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.flush()
        await self.close()

    async def flush(self, timeout: float = 1.0) -> bool:
        """Wait until the server has confirmed all changes, ``timeout`` seconds at most; whether it has."""
        self._start()
        self._writes.drain()
        try:
            async with asyncio.timeout(timeout):
                await self._writes.settled()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Close the connection; the cache goes on without. Changes that were not confirmed are lost."""
        self._is_closed = True
        task, self._task = self._task, None
        if task is not None and task.get_loop() is asyncio.get_running_loop():
            self._writes.end()
            task.cancel()
            await asyncio.wait({task})

    def stats(self) -> SharedStats:
        """What it has, and has done."""
        writes = self._writes
        return SharedStats(
            is_up=writes.link is not None,
            hits=self._hits,
            misses=self._misses,
            timeouts=self._timeouts,
            failures=self._failures,
            skipped=self._skipped,
            damaged=self._damaged,
            stored=writes.stored,
            outdated=writes.outdated,
            unwritten=writes.unwritten,
            invalidations=self._invalidations,
            flushes=self._flushes,
            owed=writes.owed,
        )

    # For the cache

    def attach(self, forget: Callable[[list[Change]], object], stale_ttl: float) -> None:
        """Tell a cache what to drop, from now on.

        Args:
            stale_ttl: seconds for which it answers with a value after its time.

        Raises:
            ValueError: another cache has it: the server does not tell a process of what that has changed itself.
        """
        if self._forget is not None:
            raise ValueError("this shared tier has a cache already; make another one, with another connection")
        self._forget, self._stale_ttl = forget, stale_ttl

    def check(self, key: Any) -> None:
        """
        Raises:
            SerializationError: the key cannot be shared.
        """
        self._names.entry(key)

    def pack(self, key: Any, value: Any, ttl: float, tags: tuple[str, ...]) -> Put:
        """A value as it is sent.

        Raises:
            SerializationError: the key or the value cannot be shared.
        """
        self.check(key)
        return Put(key, self._packer.pack(value, ttl, self._stale_ttl, tags, _number()), tags)

    def note(self, one: Note) -> None:
        """Something is to be sent; called with the cache's lock held. `wake` follows."""
        self._writes.note(one)

    def keep(self, ticket: Ticket, loaded: Put) -> None:
        """A value was loaded; likewise."""
        if asyncio.get_running_loop().time() - ticket.begun < GRACE / 2:
            self._writes.note(Keep(ticket.names, loaded.packed, ticket.expected))

    def wake(self) -> None:
        """Send what was noted soon; from every thread, and from finalizers."""
        if self._woken or self._is_closed:
            return
        if self._task is None or self._task.done():
            try:
                self._start()
            except RuntimeError:  # no event loop here: the next one that uses it sends it
                return
        loop = self._loop
        assert loop is not None
        self._woken = True
        try:
            loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # it has been closed
            self._woken = False

    def _drain(self) -> None:
        self._woken = False
        self._writes.drain()

    async def fetch(self, load: Load) -> Kept | None:
        """The fresh entry that the server has for a load; None if there is none, or no telling in time.

        Leaves a ticket with which its value may be stored, and the tags of an entry that it gives.
        """
        until = asyncio.get_running_loop().time() + self._timeout
        link = await self._usable(load)
        if link is None:
            self._skipped += 1
            return None
        assert self._loop is not None
        tags = load.tags
        try:
            async with asyncio.timeout_at(until):
                kept = await self._read(link, load)
        except TimeoutError:
            self._timeouts += 1
            self._rest.failed(self._loop.time())
            kept = None
        except Refused:
            self._failures += 1
            self._rest.failed(self._loop.time())
            kept = None
        except asyncio.CancelledError:
            self._rest.abandoned()
            raise
        else:
            self._rest.succeeded()
            self._hits += kept is not None
            self._misses += kept is None
        if kept is None:
            load.tags = tags
        return kept

    async def _usable(self, load: Load) -> Link | None:
        if not self._start():
            return None
        attempted, writes = self._attempted, self._writes
        if attempted is not None and not attempted.done():
            load.is_waiting = True
            await asyncio.wait({attempted}, timeout=self._timeout)
            load.is_waiting = False
        writes.drain()
        link = writes.link
        assert self._loop is not None
        if link is None or link.pending > MOST_PENDING or self._rest.refuses(self._loop.time()):
            return None
        return link

    async def _read(self, link: Link, load: Load) -> Kept | None:
        names = self._names
        entry = names.entry(load.key)
        asked = [entry, names.beginnings, names.all, *map(names.tag, load.tags)]
        answer = link.ask(("MGET", *asked))
        left_ms = _checked(await link.ask(("PTTL", entry)))  # whose answer comes after the other one
        raw, *generations = _checked(answer.result())
        expected = [head(raw or b""), *(one or b"" for one in generations)]
        assert self._loop is not None
        load.ticket = Ticket(asked, expected, self._loop.time())
        if raw is None:
            return None
        try:
            kept = self._packer.unpack(raw, left_ms)
        except EntryDamaged:
            self._damaged += 1
            return None
        if kept is None or kept.left <= 0:
            return None
        known = dict(zip(load.tags, generations[2:], strict=True))
        if more := [tag for tag in kept.tags if tag not in known]:
            load.tags = (*load.tags, *more)  # first, so that an invalidation which comes now is not missed
            known |= zip(more, _checked(await link.ask(("MGET", *map(names.tag, more)))), strict=True)
        stamps = [generations[1], *(known[tag] for tag in kept.tags)]
        return None if None in stamps or b"".join(stamps) != kept.stamps else kept

    # The connection

    def _start(self) -> bool:
        """Belong to this event loop; False if another one has it."""
        loop, task = asyncio.get_running_loop(), self._task
        if task is not None and not task.done():
            if self._loop is loop:
                return True
            if self._loop is not None and not self._loop.is_closed():
                return False
        if self._is_closed:
            return False
        self._went_down(CLOSED)
        self._loop, self._woken = loop, False
        self._attempted = loop.create_future()
        self._task = loop.create_task(self._keep_up(loop, self._attempted), context=Context())
        return True

    async def _keep_up(self, loop: asyncio.AbstractEventLoop, attempted: asyncio.Future[None]) -> None:
        pauses = delays(chance.random)
        while True:
            try:
                link = await self._address.open(self._others_changed, self._lost, CONNECT_TIMEOUT)
            except ConnectionFailed as error:
                self._say_down(error.reason)
            else:
                begun = loop.time()
                self._came_up(link)
                if not attempted.done():
                    attempted.set_result(None)
                try:
                    while not (await asyncio.wait({link.lost}, timeout=INTERVAL))[0]:
                        link.look_after()
                        self._writes.retry()
                finally:
                    link.abort(CLOSED)
                if loop.time() - begun > LONGEST_REST:
                    pauses = delays(chance.random)
            if not attempted.done():
                attempted.set_result(None)
            await asyncio.sleep(next(pauses))

    def _came_up(self, link: Link) -> None:
        if not link.is_open:
            return
        if self._told_down:
            logger.info("the shared cache at %s is back", self._address.shown)
            self._told_down = False
        self._flush()  # what was stored meanwhile may have been changed by others
        self._rest.succeeded()
        self._writes.came_up(link)

    def _lost(self, link: Link, reason: str) -> None:
        if link is self._writes.link:
            self._went_down(reason)

    def _went_down(self, reason: str) -> None:
        if self._writes.link is not None:
            self._writes.went_down()
            self._flush()
            if reason != CLOSED:
                self._say_down(reason)

    def _say_down(self, reason: str) -> None:
        if not self._told_down:
            self._told_down = True
            logger.warning("the shared cache at %s is down: %s", self._address.shown, reason)

    def _flush(self) -> None:
        self._flushes += 1
        if self._forget is not None:
            self._forget([Change("all")])

    def _others_changed(self, names: list[bytes] | None) -> None:
        if names is None:
            self._flush()
            return
        changes: list[Change] = []
        for name in names:
            change = self._names.change(name)
            if change is not None and self._writes.is_echo(name):
                self._writes.ask_whether(name, partial(self._take_over, [change]))
            elif change is not None:
                changes.append(change)
        self._take_over(changes)

    def _take_over(self, changes: list[Change]) -> None:
        self._invalidations += len(changes)
        if changes and self._forget is not None:
            self._forget(changes)

    def begin_anew(self) -> None:
        """In a child process: the connection is the parent's."""
        self._parents = self._task, self._writes.link
        self._loop = self._task = None
        self._writes = Writes(self._names, _number)


def _number() -> bytes:
    return token_bytes(8)


def _checked(answer: Any) -> Any:
    if (reason := failure(answer)) is not None:
        raise Refused(reason)
    return answer
