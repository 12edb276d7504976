"""Answers that are kept for a while: the tier in this process."""

from __future__ import annotations

import asyncio
import logging
import os
import random as chance
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload
from weakref import WeakSet

from penstock.cache.changes import Changes
from penstock.cache.checks import as_tags, check_bounds, check_failures, check_seconds
from penstock.cache.entry import CacheEntry, Cause, Failure, Node, payload_bytes
from penstock.cache.flight import Flight, Loaded, Loader, current
from penstock.cache.leads import Leads
from penstock.cache.loads import Answer, Loads
from penstock.cache.policy import EvictionPolicy
from penstock.cache.shared.notes import Change, Note
from penstock.cache.stats import CacheStats
from penstock.cache.store import Store

if TYPE_CHECKING:  # it needs an extra
    from penstock.cache.shared.tier import SharedTier

logger = logging.getLogger("penstock.cache")

T = TypeVar("T")

_NOTHING = object()


class MessageCache:
    """Keeps answers by key, for a while, within bounds.

    ::

        cache = MessageCache(max_size=10_000, ttl=60)
        block = await cache.get_or_load(("block", 17), fetch_block)

    Keys are those of a dictionary: hashable, and equal keys have one entry. Values are kept as they are, not copied: do
    not change one that was stored. All methods but `get_or_load` are synchronous; all may be called from every thread,
    from ``on_evict`` and from finalizers. A call from a finalizer that runs in the middle of another one takes effect
    when that one ends.

    Args:
        max_size: entries; 0 keeps none, and still has each key loaded only once at a time.
        ttl: seconds for which an entry is fresh; ``math.inf`` for no limit. At the end of the last one it is a miss.
        eviction_policy: which entry goes for want of room.
        max_bytes: what all values may weigh. One that is heavier is not stored, and the one before is dropped.
        clock: seconds that never go back.
        stale_ttl: seconds after its ``ttl`` for which `get_or_load` still answers with an entry, at once, while it
            loads another; one that fails leaves the entry as it is. `get` never answers with a stale one.
        negative_ttl: classes of exceptions, with the seconds for which `get_or_load` raises one again without calling
            the loader. The first that fits counts. An entry like any other, but for `get`, which sees none.
        jitter: share of each ttl, from 0 to 1, up to which it is cut by chance, so that what was stored together does
            not expire together.
        size_of: what a value weighs in bytes; only called with ``max_bytes``. By default the length of text in UTF-8
            and of bytes; of other values the memory that they take, with what standard containers contain.
        on_evict: called with key, value and cause for each value that leaves: ``capacity``, ``expired``, ``replaced``,
            ``deleted``, ``invalidated`` or ``cleared``. It is called when the change is complete, in the thread that
            made it. What expires leaves when it is next asked for, or is in the way.
        random: uniform in [0, 1); for the jitter.
        shared: where to ask before a loader is called; what is stored and dropped here is there as well, soon after.

    Raises:
        ValueError: an argument is out of bounds; the message names it, its value and the bound.
        TypeError: a key of ``negative_ttl`` is no class of exceptions.
    """

    def __init__(
        self,
        max_size: int = 1000,
        ttl: float = 300.0,
        eviction_policy: EvictionPolicy = EvictionPolicy.LRU,
        max_bytes: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        stale_ttl: float = 0.0,
        negative_ttl: Mapping[type[Exception], float] | None = None,
        jitter: float = 0.0,
        size_of: Callable[[Any], int] = payload_bytes,
        on_evict: Callable[[Any, Any, Cause], object] | None = None,
        random: Callable[[], float] = chance.random,
        shared: SharedTier | None = None,
    ) -> None:
        check_bounds(max_size, max_bytes, jitter)
        check_seconds("ttl", ttl)
        check_seconds("stale_ttl", stale_ttl)
        negative_ttl = dict(negative_ttl or {})
        check_failures(negative_ttl)
        self._ttl, self._max_bytes, self._clock = ttl, max_bytes, clock
        self._jitter, self._random = jitter, random
        self._size_of = None if max_bytes is None else size_of
        self._store = Store(EvictionPolicy(eviction_policy), max_size, max_bytes, stale_ttl)
        self._loads = Loads(self._store, negative_ttl, shared)
        self._look: Callable[[Hashable], Any]
        self._touch: Callable[[Hashable], object] | None
        self._look_there()
        self._hits = self._misses = 0
        """Counted without the lock: between reading and writing one, the interpreter does not change threads."""
        self._changes = Changes(self._store, on_evict)
        self._change = self._changes.make
        self.leads = Leads(self._loads, self._changes, clock, self._seconds, self._size_of, is_alone=shared is None)
        self._tasks = set[asyncio.Task[Loaded]]()
        _all.add(self)
        self._shared = shared
        self._is_plain = shared is None and max_bytes is None and on_evict is None and max_size > 0
        """Values are neither weighed nor told of nor shared, and there is room for them."""
        if shared is not None:
            shared.attach(self._take_over, stale_ttl)

    def _look_there(self) -> None:
        """Where readers look, who take no lock."""
        self._look, self._touch = self._store.order.nodes.get, self._store.order.touch

    # Asking

    def get(self, key: Hashable, default: Any = None) -> Any:
        """The value of a key that is fresh; ``default`` if there is none. ``None`` is a value like any other.

        Raises:
            TypeError: the key is not hashable; nothing was counted.
        """
        node = self._look(key)
        if node is None or node.expires_at <= self._clock():
            self._misses += 1
            if node is not None:
                self._drop_expired(key, node)
            return default
        self._hits += 1
        touch = self._touch
        if touch is None:
            node.visits += 1
        else:
            try:  # noqa: SIM105 - suppress() would take longer than all the rest
                touch(key)
            except KeyError:  # another thread has dropped it in this moment
                pass
        return node.value

    def find(self, key: Hashable, default: Any = None) -> Any:
        """As `get`, but what is not found is not counted: for who goes on with `get_or_load`, which counts it.

        Raises:
            TypeError: the key is not hashable.
        """
        node = self._look(key)
        if node is None or node.expires_at <= self._clock():
            return default
        self._hits += 1
        touch = self._touch
        if touch is None:
            node.visits += 1
        else:
            try:  # noqa: SIM105 - as in get()
                touch(key)
            except KeyError:
                pass
        return node.value

    def _drop_expired(self, key: Hashable, node: Node) -> None:
        now = self._clock()
        if self._store.is_over(node, now):
            self._change(self._store.drop_expired, key, node, now)

    @overload
    async def get_or_load(
        self, key: Hashable, loader: Callable[[], Awaitable[T]], ttl: float | None = None, *, tags: Iterable[str] = ()
    ) -> T: ...
    @overload
    async def get_or_load(
        self, key: Hashable, loader: Callable[[], T], ttl: float | None = None, *, tags: Iterable[str] = ()
    ) -> T: ...
    async def get_or_load(
        self, key: Hashable, loader: Loader, ttl: float | None = None, *, tags: Iterable[str] = ()
    ) -> Any:
        """The value of a key; if it is not in the cache, what ``loader()`` returns, which is stored.

        However many ask for a key at the same time, in whatever threads, one load is made. It runs in a task of its
        own, so that cancelling a caller does no harm to the others; when all have been cancelled, so is the loader.
        What it raises is raised to all who wait, and not stored, but for ``negative_ttl``. If the key is set, deleted
        or invalidated meanwhile, those who wait get the result, but it is not stored, and whoever asks later has it
        loaded again.

        Args:
            loader: called without arguments; may be a coroutine function. Of several callers' loaders the first one's.
            ttl: seconds for which the result is fresh, from when it was loaded; by default the cache's own.
            tags: for `invalidate`.

        Raises:
            LoadCycle: a loader asked for the key that it loads, directly or through others.
            TypeError: the key is not hashable.
            Exception: whatever the loader raises.
        """
        found = self.find(key, _NOTHING)
        if found is not _NOTHING:
            return found
        seconds, kept_tags = self._seconds(ttl), as_tags(tags)
        answer = self._ask(key, loader, seconds, kept_tags)
        if answer.kept:
            self._hits += 1
        else:
            self._misses += 1
        while answer.flight is not None:
            flight, waiter = answer.flight, answer.waiter
            assert waiter is not None
            await self._wait(flight, waiter)
            if not flight.was_cancelled or flight.loop is waiter.get_loop():
                return flight.answer()
            answer = self._ask(key, loader, seconds, kept_tags)  # the loader's event loop has ended, this one goes on
        if answer.error is not None:
            raise answer.error.with_traceback(None)
        return answer.value

    def peek(self, key: Hashable) -> CacheEntry | None:
        """What there is for a key, stale or not, without counting it as asked for; None if there is nothing."""
        now, node = self._clock(), self._look(key)
        if node is None or isinstance(node.value, Failure) or self._store.is_over(node, now):
            return None
        return CacheEntry(key, node.value, node.expires_at - now, node.weight, self._store.tags.of.get(key, ()))

    def __len__(self) -> int:
        return len(self._store.order.nodes)

    def get_cache_stats(self) -> CacheStats:
        """What the cache has, and has done."""
        store, loads = self._store, self._loads
        return CacheStats(
            size=len(store.order.nodes),
            capacity=store.max_size,
            size_bytes=None if self._max_bytes is None else store.weight,
            max_bytes=self._max_bytes,
            hits=self._hits,
            misses=self._misses + loads.led,
            evictions=store.evictions,
            expirations=store.expirations,
            refused=store.refused,
            coalesced=loads.coalesced,
            stale_hits=loads.stale_hits,
            loads=loads.begun,
            load_errors=loads.errors,
            shared=None if self._shared is None else self._shared.stats(),
        )

    # Changing

    def set(self, key: Hashable, value: Any, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        """Store a value in place of the one before, if any.

        Args:
            ttl: seconds for which it is fresh; by default the cache's own. 0 stores nothing, and drops the one before.
            tags: for `invalidate`.

        Raises:
            TypeError: the key is not hashable, or the tags are one text.
            ValueError: the ttl is below 0.
            SerializationError: there is a shared tier, and other processes would not get the value back as it is.
        """
        seconds = self._ttl if ttl is None and not self._jitter else self._seconds(ttl)
        now = self._clock()
        if self._is_plain and not tags:
            self._changes.put(key, value, now + seconds, now)
            return
        kept_tags, weight = as_tags(tags), 0 if self._size_of is None else self._size_of(value)
        packed = None if self._shared is None else self._shared.pack(key, value, seconds, kept_tags)
        note = Change("key", key) if packed is None or not seconds else packed
        self._change_both(note, self._store.put, key, value, now + seconds, weight, kept_tags, now)

    def delete(self, key: Hashable) -> bool:
        """Drop what there is for a key; whether there was anything.

        Raises:
            TypeError: the key is not hashable.
        """
        if self._shared is not None:
            self._shared.check(key)
        return bool(self._change_both(Change("key", key), self._store.drop, key, "deleted"))

    def invalidate(self, *, tag: str | None = None, prefix: str | None = None) -> int:
        """Drop all entries with a tag, or with keys that are text and begin so; how many.

        Neither looks at the other entries. The first call with a prefix sorts the keys; they are kept sorted from then
        on, which makes a `set` of a new key slower by about a microsecond.

        Raises:
            TypeError: not just one of both was given.
        """
        if (tag is None) == (prefix is None):
            raise TypeError("invalidate() takes a tag or a prefix, one of both")
        if tag is not None:
            return self._change_both(Change("tag", tag), self._store.drop_tagged, tag) or 0
        return self._change_both(Change("prefix", prefix), self._store.drop_beginning, prefix) or 0

    def clear(self) -> None:
        """Drop everything; counters go on."""
        self._change_both(Change("all"), self._clear)

    def _clear(self) -> None:
        self._store.drop_all()
        self._look_there()

    def _seconds(self, ttl: float | None) -> float:
        if ttl is None:
            ttl = self._ttl
        else:
            check_seconds("ttl", ttl)
        return ttl * (1 - self._jitter * self._random()) if self._jitter else ttl

    def _change_both(self, note: Note, change: Callable[..., T], *args: Any) -> T | None:
        """Make a change, and tell the shared tier: of several, in the order in which they are made."""
        shared = self._shared
        if shared is None:
            return self._change(change, *args)
        result = self._change(_noted, shared, note, change, *args)
        shared.wake()
        return result

    def _take_over(self, changes: list[Change]) -> None:
        """Drop what other processes have changed."""
        self._change(self._drop_changed, changes)

    def _drop_changed(self, changes: list[Change]) -> None:
        for kind, what in changes:
            if kind == "all":
                self._clear()
            else:
                self._store.drop_changed(kind, what)

    # Loading

    def _ask(self, key: Hashable, loader: Loader, seconds: float, tags: tuple[str, ...]) -> Answer:
        loop = asyncio.get_running_loop()
        answer = cast("Answer", self._change(self._loads.ask, key, seconds, tags, self._clock(), loop))
        if answer.begins is not None:
            flight = answer.begins
            shared = self._shared if seconds else None
            task = flight.task = loop.create_task(flight.load(loader, self._size_of, shared))
            self._tasks.add(task)
            task.add_done_callback(partial(self._land, flight))
        return answer

    def _land(self, flight: Flight, task: asyncio.Task[Loaded]) -> None:
        self._tasks.discard(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        now = self._clock()
        if error is None:
            value, weight = task.result()
            flight.end(value, None)
            waiters = self._change(self._loads.land, flight, value, now, weight)
            if flight.packed is not None and self._shared is not None:
                self._shared.wake()
        else:
            flight.end(None, error)
            waiters = self._change(self._loads.fail, flight, error, now)
            if not waiters and isinstance(error, Exception):
                logger.warning("a load that nobody waits for has failed", exc_info=error)
        flight.wake(waiters or set())
        flight.task = None  # its context has the flight: a circle, which only the garbage collector would undo

    async def _wait(self, flight: Flight, waiter: asyncio.Future[None]) -> None:
        asking = current.get()
        try:
            await waiter
        except asyncio.CancelledError:
            if self._change(self._loads.leave, flight, waiter):
                flight.cancel(asyncio.get_running_loop())
            raise
        finally:
            if asking is not None:
                asking.needs.discard(flight)

    def _begin_anew(self) -> None:
        """In a child process: loads are the parent's, whose other threads may have been in the middle of a change."""
        self._store.loads.clear()
        self._tasks.clear()
        if self._changes.begin_anew():
            self._clear()
        if self._shared is not None:
            self._shared.begin_anew()


def _noted(shared: SharedTier, note: Note, change: Callable[..., T], *args: Any) -> T:
    result = change(*args)
    shared.note(note)
    return result


_all: WeakSet[MessageCache] = WeakSet()


def _tell_children() -> None:
    for cache in _all:
        cache._begin_anew()


os.register_at_fork(after_in_child=_tell_children)
