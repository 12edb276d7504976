"""What the middleware reports to a `MetricsCollector`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from penstock.cache.stats import CacheStats
from penstock.manager.manager import PerformanceManager
from penstock.manager.switch import Mode, Stage
from penstock.metrics import catalogue as m
from penstock.metrics.samples import Sample, distribution
from penstock.pool.stats import PoolStats

if TYPE_CHECKING:
    from penstock.middleware.middleware import PerformanceMiddleware
    from penstock.middleware.stats import SendingStats

POOL = "main"
"""The label of the only pool there is."""


def samples_of(pipe: PerformanceMiddleware) -> Callable[[], Iterable[Sample]]:
    """A source of all that a middleware counts."""

    def samples() -> Iterable[Sample]:
        stats = pipe.stats()
        yield from of_pool(stats.pool)
        yield from of_sending(stats.sending)
        yield Sample(m.BATCH_WAIT_MAX, pipe.config.sending.batch_timeout)
        yield Sample(m.BATCH_PENDING_MESSAGES_MAX, pipe.most_pending)
        if stats.cache is not None:
            yield from of_cache(stats.cache)
        yield from of_manager(pipe.manager)
        yield Sample(m.MEMORY, stats.memory_bytes)
        if pipe.config.limits.memory_bytes is not None:
            yield Sample(m.MEMORY_BUDGET, pipe.config.limits.memory_bytes)

    return samples


def of_pool(pool: PoolStats) -> Iterable[Sample]:
    """What a pool counts."""
    for state in ("idle", "in_use", "connecting", "closing"):
        yield Sample(m.POOL_CONNECTIONS, getattr(pool, state), (POOL, state))
    yield Sample(m.POOL_CONNECTIONS_MAX, min(pool.max_total, pool.max_connections * max(1, pool.urls)), (POOL,))
    yield Sample(m.POOL_CONNECTIONS_MIN, pool.min_connections * pool.urls, (POOL,))
    yield Sample(m.POOL_WAITERS, pool.waiting, (POOL,))
    for outcome, count in (
        ("immediate", pool.immediate),
        ("waited", pool.waited),
        ("timeout", pool.timeouts),
        ("cancelled", pool.cancelled),
        ("error", pool.errors),
    ):
        yield Sample(m.POOL_ACQUIRES, count, (POOL, outcome))
    yield Sample(m.POOL_ACQUIRE_WAIT, pool.wait, (POOL,))
    yield Sample(m.POOL_USE, pool.use, (POOL,))
    yield Sample(m.POOL_CONNECT, pool.connect, (POOL,))
    yield Sample(m.POOL_CONNECTS, pool.opened, (POOL, "opened"))
    yield Sample(m.POOL_CONNECTS, pool.failed, (POOL, "failed"))
    for reason, count in pool.closed.items():
        yield Sample(m.POOL_CLOSED, count, (POOL, reason))


def of_sending(sending: SendingStats) -> Iterable[Sample]:
    """What is counted of messages that are sent through the middleware."""
    yield Sample(m.BATCH_PENDING_MESSAGES, sending.pending_messages)
    yield Sample(m.BATCH_PENDING, sending.pending_bytes)
    for reason, count in sending.batches.items():
        yield Sample(m.BATCH_FLUSHES, count, (reason,))
    yield Sample(m.BATCH_MESSAGES, distribution(sending.sizes, sending.delivered))
    yield Sample(m.BATCH_WAIT, sending.wait)
    for reason in {"expired", "overflow", "failed", "closed", *sending.dropped}:
        yield Sample(m.BATCH_DROPPED, sending.dropped.get(reason, 0), (reason,))
    yield Sample(m.BATCH_DEDUPLICATED, sending.deduplicated, ("duplicate",))
    yield Sample(m.BATCH_DEDUPLICATED, sending.conflated, ("conflated",))


def of_cache(cache: CacheStats) -> Iterable[Sample]:
    """What a cache counts."""
    yield Sample(m.CACHE_REQUESTS, cache.hits - cache.stale_hits, ("hit",))
    yield Sample(m.CACHE_REQUESTS, cache.stale_hits, ("stale",))
    yield Sample(m.CACHE_REQUESTS, cache.misses - cache.coalesced, ("miss",))
    yield Sample(m.CACHE_REQUESTS, cache.coalesced, ("coalesced",))
    yield Sample(m.CACHE_EVICTIONS, cache.evictions, ("capacity",))
    yield Sample(m.CACHE_EVICTIONS, cache.expirations, ("expired",))
    yield Sample(m.CACHE_ENTRIES, cache.size)
    yield Sample(m.CACHE_SIZE, cache.size_bytes or 0)


def of_manager(manager: PerformanceManager) -> Iterable[Sample]:
    """Which stages are used, and what they gain."""
    modes = manager.modes().values()
    for stage in Stage:
        is_bypassed = any(of_url[stage] is Mode.BYPASSED for of_url in modes)
        yield Sample(m.FALLBACK_ACTIVE, float(is_bypassed), (stage.value,))
        ratio = manager.speedups[stage].ratio
        if ratio is not None:
            yield Sample(m.OPTIMIZATION_SPEEDUP, ratio, (stage.value,))
        if not any(counted is stage for counted, _, _ in manager.counts):
            yield Sample(m.FALLBACK_TRANSITIONS, 0, (stage.value, Mode.BYPASSED.value, "failure"))
    for (stage, mode, reason), count in manager.counts.items():
        yield Sample(m.FALLBACK_TRANSITIONS, count, (stage.value, mode.value, reason))
