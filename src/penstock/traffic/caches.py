"""Caches of every library, full and behind one function; each is imported only in the process that uses it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, TypeAlias

ENTRIES = 1000
_TTL = 300.0

Get: TypeAlias = Callable[[str], Any]
"""What a cache has for a key."""
KEYS = [f"key-{number}" for number in range(ENTRIES)]


def penstock_cache(policy: str = "lru") -> tuple[Get, list[str]]:
    """The cache of penstock."""
    from penstock import EvictionPolicy, MessageCache

    cache = MessageCache(2 * ENTRIES, _TTL, EvictionPolicy(policy))
    for key in KEYS:
        cache.set(key, key)
    return cache.get, KEYS


def cachetools_cache() -> tuple[Get, list[str]]:
    """``cachetools.TTLCache``, with a lock, without which threads may not share it."""
    import cachetools

    cache: Any = cachetools.TTLCache(2 * ENTRIES, _TTL)
    lock = Lock()
    for key in KEYS:
        cache[key] = key

    def get(key: str) -> Any:
        with lock:
            return cache.get(key)

    return get, KEYS


def moka_cache() -> tuple[Get, list[str]]:
    """``moka_py``."""
    import moka_py

    cache: Any = moka_py.Moka(2 * ENTRIES, ttl=_TTL)
    for key in KEYS:
        cache.set(key, key)
    return cache.get, KEYS


def theine_cache() -> tuple[Get, list[str]]:
    """``theine``."""
    from datetime import timedelta

    import theine

    cache: Any = theine.Cache(2 * ENTRIES)
    for key in KEYS:
        cache.set(key, key, ttl=timedelta(seconds=_TTL))
    return cache.get, KEYS


CACHES: dict[str, Callable[[], tuple[Get, list[str]]]] = {
    "cachetools": cachetools_cache,
    "moka_py": moka_cache,
    "theine": theine_cache,
    "penstock": penstock_cache,
    "penstock, S3-FIFO": partial(penstock_cache, "s3-fifo"),
}
"""Each gives what to ask, and keys that are there."""
