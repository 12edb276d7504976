"""The stages, as the configuration says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from penstock.batch.batcher import MessageBatcher
from penstock.batch.processor import BatchProcessor
from penstock.batch.sender import Deliver, OnDrop
from penstock.cache.cache import MessageCache
from penstock.config.performance import PerformanceConfig
from penstock.config.sections import AlertsConfig, CacheConfig, FallbackConfig, SendingConfig
from penstock.manager.manager import PerformanceManager
from penstock.manager.switch import Stage
from penstock.metrics.alerts.engine import Alert
from penstock.metrics.alerts.rules import FALL_BACK
from penstock.metrics.alerts.sinks import AlertmanagerSink, CallbackSink, LogSink, Sink, WebhookSink
from penstock.pool.config import ConnectionPoolConfig

if TYPE_CHECKING:  # it needs an extra
    from penstock.cache.shared.tier import SharedTier


def pool_config(config: PerformanceConfig) -> ConnectionPoolConfig:
    """The pool's bounds, and no more connections than there may be over all."""
    pool, most = config.pool, config.limits.max_connections
    if most is None or most >= pool.max_total:
        return pool
    fewer = min(pool.max_connections, most)
    return replace(pool, max_total=most, max_connections=fewer, min_connections=min(pool.min_connections, fewer))


def manager_of(fallback: FallbackConfig) -> PerformanceManager:
    """What decides which stages are used."""
    return PerformanceManager(
        {stage: getattr(fallback, stage) for stage in Stage},
        failures=fallback.failures,
        probe_after=fallback.probe_after,
        sample_every=fallback.sample_every,
    )


def tier_of(cache: CacheConfig) -> SharedTier | None:
    """Where processes share answers."""
    if not cache.enabled or cache.shared is None:
        return None
    from penstock.cache.shared.tier import SharedTier  # noqa: PLC0415 - it needs an extra

    return SharedTier(cache.shared, prefix=cache.prefix)


def cache_of(cache: CacheConfig, tier: SharedTier | None, memory_bytes: int | None) -> MessageCache | None:
    """Where answers are kept; half of a common budget at most, so that there is always room for messages."""
    if not cache.enabled:
        return None
    bounds = [cache.max_bytes, None if memory_bytes is None else memory_bytes // 2]
    return MessageCache(
        cache.max_size,
        cache.ttl,
        cache.eviction_policy,
        min((bound for bound in bounds if bound is not None), default=None),
        stale_ttl=cache.stale_ttl,
        jitter=cache.jitter,
        shared=tier,
    )


def batcher_of(sending: SendingConfig, deliver: Deliver, on_drop: OnDrop) -> MessageBatcher:
    """What gathers the messages to one URL."""
    processor = BatchProcessor(
        compression_enabled=False,
        deduplication_enabled=sending.deduplicate == "content",
        ordering_enabled=True,
        dedup_window=sending.deduplicate if isinstance(sending.deduplicate, int | float) else 0.0,
    )
    return MessageBatcher(
        deliver,
        sending.batch_size,
        sending.batch_timeout,
        processor,
        max_pending_messages=sending.max_pending_messages,
        max_pending_bytes=sending.max_pending_bytes,
        overflow=sending.overflow,
        on_drop=on_drop,
    )


def sinks_of(alerts: AlertsConfig, manager: PerformanceManager, probe_after: float) -> list[Sink]:
    """Who is told of alerts: the manager, for the actions of their rules, and whoever is configured."""
    sinks: list[Sink] = [CallbackSink(fall_back(manager, probe_after))]
    if alerts.log:
        sinks.append(LogSink())
    if alerts.webhook is not None:
        sinks.append(WebhookSink(alerts.webhook))
    if alerts.alertmanager is not None:
        sinks.append(AlertmanagerSink(alerts.alertmanager))
    return sinks


def fall_back(manager: PerformanceManager, probe_after: float) -> Callable[[Alert], None]:
    """Does what the rule of an alert that fires asks for."""

    def act(alert: Alert) -> None:
        if alert.state == "firing" and not alert.error and alert.rule.action == FALL_BACK:
            stage = alert.all_labels()["stage"]
            manager.bypass(stage, reason=alert.name, seconds=probe_after)

    return act
