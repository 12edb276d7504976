"""The cache for calls, where it is in use and works; past it otherwise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from penstock.cache.cache import MessageCache
from penstock.cache.flight import Flight
from penstock.cache.leads import Leads
from penstock.errors import PerformanceError
from penstock.manager.manager import PerformanceManager
from penstock.manager.speedup import Sampler
from penstock.manager.switch import Stage, Switch

Loader = Callable[[], Awaitable[Any]]


class _FromLoader(Exception):  # noqa: N818 - not raised to applications
    """What a loader has raised, so that it is not taken for the cache's own failure, by whoever waits for it."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Loading:
    """Keys for which the server is being asked."""

    def __init__(self) -> None:
        self._times: dict[Any, int] = {}

    def __contains__(self, key: Any) -> bool:
        return key in self._times

    def begin(self, key: Any) -> None:
        """It is asked, perhaps once more."""
        self._times[key] = self._times.get(key, 0) + 1

    def end(self, key: Any) -> None:
        """It has answered, or will not."""
        self._times[key] -= 1
        if not self._times[key]:
            del self._times[key]


class _Leads:
    """What clients of one URL use in place of the cache's `Leads`."""

    def __init__(
        self, leads: Leads, manager: PerformanceManager, switch: Switch, sampler: Sampler, loading: _Loading
    ) -> None:
        self._leads, self._manager, self._switch, self._sampler = leads, manager, switch, sampler
        self._loading = loading

    def ask(self, key: Any, ttl: float | None, waiter: asyncio.Future[Any], *, may_begin: bool = True) -> Flight | None:
        """See `Leads.ask`. None where the stage is passed by, or a sample is due: see `Answers.get_or_load`."""
        if not self._switch.is_on or self._sampler.left == 1:
            return None
        try:
            flight = self._leads.ask(key, ttl, waiter, may_begin=may_begin)
        except Exception as exc:  # noqa: BLE001 - the cache's own failure: counted, logged, and passed by
            self._manager.failed(self._switch, exc)
            return None
        if flight is not None:
            if flight.task is None:
                self._loading.begin(key)
            if self._sampler.left > 0:
                self._sampler.left -= 1
        return flight

    def land(self, flight: Flight, value: Any) -> None:
        """See `Leads.land`."""
        self._end(flight, self._leads.land, value)

    def fail(self, flight: Flight, error: BaseException) -> None:
        """See `Leads.fail`."""
        self._end(flight, self._leads.fail, error)

    def _end(self, flight: Flight, end: Callable[[Flight, Any], None], what: Any) -> None:
        self._loading.end(flight.key)
        try:
            end(flight, what)
        except Exception as exc:  # noqa: BLE001 - likewise; those who wait get what has come
            self._manager.failed(self._switch, exc)
            waiters = set(flight.waiters)
            flight.wake(waiters)
            for waiter in waiters:  # else others would wait for it, who ask later
                self._leads.leave(flight, waiter)
        else:
            if self._switch.is_shaky:
                self._manager.worked(self._switch)

    def leave(self, flight: Flight, waiter: asyncio.Future[Any]) -> None:
        """See `Leads.leave`."""
        self._leads.leave(flight, waiter)


class Answers:
    """What clients of one URL use in place of a `MessageCache`.

    Args:
        patience: seconds that the cache may take while it does not wait for the server.
    """

    def __init__(self, cache: MessageCache, manager: PerformanceManager, url: str, patience: float) -> None:
        self._cache, self._manager, self._patience = cache, manager, patience
        self._switch = manager.switch(Stage.CACHE, url)
        self._sampler = manager.sampler()
        self._loading = _Loading()
        self.leads = _Leads(cache.leads, manager, self._switch, self._sampler, self._loading)

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
        loaded: list[Any] = []
        try:
            value = await self._patiently(key, loader, ttl, loaded)
        except _FromLoader as exc:
            raise exc.error from None
        except PerformanceError:
            raise
        except Exception as exc:  # noqa: BLE001 - the cache's own failure, likewise
            self._manager.failed(self._switch, exc)
            return loaded[0] if loaded else await loader()
        if self._switch.is_shaky:
            self._manager.worked(self._switch)
        return value

    async def _patiently(self, key: Any, loader: Loader, ttl: float | None, loaded: list[Any]) -> Any:
        """Wait for the cache for as long as it waits for the server. Raises TimeoutError.

        Args:
            loaded: gets what the loader returns: whatever the cache does then, nothing is loaded twice.
        """

        async def load() -> Any:
            self._loading.begin(key)
            try:
                value = await loader()
            except Exception as exc:
                raise _FromLoader(exc) from exc
            finally:
                self._loading.end(key)
            loaded.append(value)
            return value

        asking = asyncio.ensure_future(self._cache.get_or_load(key, load, ttl))
        was_loading = False
        try:
            while not (await asyncio.wait([asking], timeout=self._patience))[0]:
                is_loading = key in self._loading
                if not is_loading and not was_loading:  # else the server may have answered in this moment
                    raise TimeoutError(f"the cache has not answered within {self._patience} s")
                was_loading = is_loading
            return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait([asking])


class NoAnswers:
    """In place of a cache that is turned off: calls may still say ``ttl``, and each asks the server."""

    def find(self, key: str, default: None = None) -> None:
        """Nothing is kept."""

    async def get_or_load(self, key: str, loader: Loader, ttl: float, /) -> Any:
        """What the loader returns."""
        return await loader()
