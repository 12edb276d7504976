"""Changes of a cache, one at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from threading import RLock
from typing import Any, TypeVar

from penstock.cache.entry import Cause, Dropped
from penstock.cache.store import Store, told

logger = logging.getLogger("penstock.cache")

T = TypeVar("T")


class Changes:
    """Makes each change of a store alone, then lets go of what it dropped.

    Finalizers run wherever memory is allocated, so in the middle of a change as well. What they want changed waits
    until that is complete. Values are freed, and ``on_evict`` is called, without the lock.
    """

    def __init__(self, store: Store, on_evict: Callable[[Any, Any, Cause], object] | None) -> None:
        self.lock = RLock()
        self.is_busy = False
        """A change is being made; the thread that makes it may come back, from a finalizer."""
        self._store = store
        self._on_evict = on_evict
        self._late: deque[Callable[[], object]] = deque()
        """Changes that came from finalizers."""

    def make(self, change: Callable[..., T], *args: Any) -> T | None:
        """Make a change; what it returns, or None if it comes from a finalizer and waits."""
        lock = self.lock
        lock.acquire()  # not `with`, which takes twice as long
        if self.is_busy:
            self._late.append(partial(change, *args))
            lock.release()
            return None
        self.is_busy = True
        try:
            result = change(*args)
            while self._late:
                self._late.popleft()()
        finally:
            dropped = self._store.dropped
            if dropped:
                self._store.dropped = []
            self.is_busy = False
            lock.release()
        if dropped and self._on_evict is not None:
            self._tell(dropped, self._on_evict)
        return result

    def put(self, key: Hashable, value: Any, expires_at: float, now: float) -> None:
        """Make `Store.put` of what has no weight and no tags where nobody is told, as `make` would.

        That of a new key is spelt out: by far the most changes are such.
        """
        lock, store = self.lock, self._store
        lock.acquire()
        if self.is_busy:
            lock.release()
            self.make(store.put, key, value, expires_at, 0, (), now)
            return
        self.is_busy = True
        gone = None
        """Is freed when this returns, and so without the lock."""
        try:
            nodes = store.nodes
            if key in nodes or store.is_indexed or store.loads or expires_at == now:
                store.put(key, value, expires_at, 0, (), now)
            else:
                if len(nodes) >= store.max_size:
                    gone = store.pop()
                    if gone[1].expires_at > now:
                        store.evictions += 1
                    else:
                        store.expirations += 1
                node = store.node_type()
                node.value = value
                node.expires_at = expires_at
                store.add(key, node)
            while self._late:
                self._late.popleft()()
        finally:
            dropped = store.dropped
            if dropped:
                store.dropped = []
            self.is_busy = False
            lock.release()

    def _tell(self, dropped: list[Dropped], on_evict: Callable[[Any, Any, Cause], object]) -> None:
        for key, value, cause in told(dropped):
            try:
                on_evict(key, value, cause)
            except Exception:
                logger.exception("on_evict failed")

    def begin_anew(self) -> bool:
        """In a child process: whether a thread of the parent was in the middle of a change."""
        was_busy, self.is_busy = self.is_busy, False
        self.lock = RLock()
        self._late.clear()
        return was_busy
