"""The cache for calls, where it is in use and works; past it otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.cache.cache import MessageCache
from penstock.errors import PerformanceError
from penstock.manager.manager import PerformanceManager
from penstock.manager.switch import Stage

Loader = Callable[[], Awaitable[Any]]


class _FromLoader(Exception):  # noqa: N818 - not raised to applications
    """What a loader has raised, so that it is not taken for the cache's own failure, by whoever waits for it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Answers:
    """What clients of one URL use in place of a `MessageCache`.

    Args:
        patience: seconds that the cache may take while it does not wait for the server.
    """

    def __init__(self, cache: MessageCache, manager: PerformanceManager, url: str, patience: float) -> None:
        self._cache, self._manager, self._patience = cache, manager, patience
        self._switch = manager.switch(Stage.CACHE, url)
        self._sampler = manager.sampler()
        self._loading: dict[Any, int] = {}
        """Keys for which the server is being asked, and how often."""

    def find(self, key: Any, default: Any = None) -> Any:
        """See `MessageCache.find`."""
        if not self._switch.is_on or self._sampler.left == 1:  # the sample is due: see `get_or_load`
            return default
        try:
            value = self._cache.find(key, default)
        except Exception as exc:  # noqa: BLE001 - the cache's own failure: counted, logged, and passed by
            self._manager.failed(self._switch, exc)
            return default
        if value is default:
            return default
        if self._switch.is_shaky:
            self._manager.worked(self._switch)
        if self._sampler.left > 0:
            self._sampler.left -= 1
        return value

    async def get_or_load(self, key: Any, loader: Loader, ttl: float | None = None) -> Any:
        """See `MessageCache.get_or_load`. Where the cache fails, the loader is asked."""
        sampler = self._sampler
        if sampler.left > 0:
            sampler.left -= 1
        plain = sampler.turn(time.monotonic()) if sampler.left == 0 and self._switch.is_on else None
        began = time.perf_counter()
        if not self._switch.is_on or plain:
            value = await loader()
        else:
            value = await self._cached(key, loader, ttl)
        if plain is not None:
            self._manager.speedups[Stage.CACHE].record(time.perf_counter() - began, plain=plain)
        return value

    async def _cached(self, key: Any, loader: Loader, ttl: float | None) -> Any:
        try:
            value = await self._patiently(key, loader, ttl)
        except _FromLoader as exc:
            raise exc.error from None
        except PerformanceError:
            raise
        except Exception as exc:  # noqa: BLE001 - the cache's own failure, likewise
            self._manager.failed(self._switch, exc)
            return await loader()
        if self._switch.is_shaky:
            self._manager.worked(self._switch)
        return value

    async def _patiently(self, key: Any, loader: Loader, ttl: float | None) -> Any:
        """Wait for the cache for as long as it waits for the server. Raises TimeoutError."""

        async def load() -> Any:
            self._loading[key] = self._loading.get(key, 0) + 1
            try:
                return await loader()
            except Exception as exc:
                raise _FromLoader(exc) from exc
            finally:
                self._loading[key] -= 1
                if not self._loading[key]:
                    del self._loading[key]

        asking = asyncio.ensure_future(self._cache.get_or_load(key, load, ttl))
        try:
            while not (await asyncio.wait([asking], timeout=self._patience))[0]:
                if key not in self._loading:
                    raise TimeoutError(f"the cache has not answered within {self._patience} s")
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])
