"""Answers that are kept, and one call for all who ask for one that is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, runtime_checkable

from msgspec import Raw

from penstock.cache.flight import Flight
from penstock.rpc.stats import Counts


class AnswerCache(Protocol):
    """Where answers are kept; a `MessageCache` is one. Each question counts once: `find` counts hits alone."""

    def find(self, key: str, default: None = None) -> bytes | None:
        """The answer, if it is there and fresh; what is not found is asked for by `get_or_load`, which counts it."""

    def get_or_load(self, key: str, loader: Callable[[], Awaitable[bytes]], ttl: float, /) -> Awaitable[bytes]:
        """The answer; of one call of a loader if it is not there, however many ask."""


class AnswerLeads(Protocol):
    """Loads that need no task; see `penstock.cache.leads.Leads`."""

    def ask(
        self, key: str, ttl: float | None, waiter: asyncio.Future[Any], *, may_begin: bool = True
    ) -> Flight | None: ...
    def land(self, flight: Flight, value: bytes) -> None: ...
    def fail(self, flight: Flight, error: BaseException) -> None: ...
    def leave(self, flight: Flight, waiter: asyncio.Future[Any]) -> None: ...


@runtime_checkable
class LeadingCache(Protocol):
    """One in which loads may be begun that need no task; a `MessageCache` is one too."""

    @property
    def leads(self) -> AnswerLeads:
        """Where they are."""


class Answer(Protocol):
    """What settles a call, if it is not `penstock.rpc.asking.Gone`."""

    @property
    def raw(self) -> Raw: ...


class _NotKept(BaseException):
    """An answer that all who wait get, and that is not stored: no error, so that no cache takes it for one."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer


class Keeping:
    """A client's use of a cache, which it may share with others."""

    def __init__(self, cache: AnswerCache, counts: Counts) -> None:
        self._cache, self._counts = cache, counts
        self.find = cache.find
        self.leads: AnswerLeads | None = cache.leads if isinstance(cache, LeadingCache) else None
        self._loading: dict[str, int] = {}
        """Callers by key, while the answer is not there."""

    async def load(
        self, key: str, ttl: float, ask: Callable[[], Awaitable[Answer]], may_keep: Callable[[Answer], bool]
    ) -> bytes:
        """The answer as JSON, from the cache or of one call for all who ask for it, whatever becomes of any of them."""
        is_asked = False

        async def load() -> bytes:
            nonlocal is_asked
            is_asked = True
            answer = await ask()
            raw = bytes(answer.raw)
            if not may_keep(answer):
                raise _NotKept(raw)
            return raw

        others = self._loading.get(key, 0)
        self._loading[key] = others + 1
        try:
            found = await self._cache.get_or_load(key, load, ttl)
        except _NotKept as exc:
            found = exc.answer
        finally:
            self._loading[key] -= 1
            if not self._loading[key]:
                del self._loading[key]
        if not is_asked:
            if others:
                self._counts.coalesced += 1
            else:
                self._counts.cached += 1
        return found

    # Without a task

    def land(self, flight: Flight, answer: Answer, may_keep: Callable[[Answer], bool]) -> None:
        """A load has its answer: keep it if that may be, and tell all who wait."""
        assert self.leads is not None
        raw = bytes(answer.raw)
        if may_keep(answer):
            self.leads.land(flight, raw)
        else:
            self.leads.fail(flight, _NotKept(raw))

    def answer(self, flight: Flight, *, is_asked: bool) -> bytes:
        """What has come of a load, for who has made it or waited for another to make it."""
        try:
            found: bytes = flight.answer()
        except _NotKept as exc:
            found = exc.answer
        self._counts.coalesced += not is_asked
        return found
