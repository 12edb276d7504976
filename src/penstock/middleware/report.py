"""What a middleware is doing, as JSON: for programs beside it, such as ``penstock top``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from penstock.errors.urls import shown_url
from penstock.manager.switch import Mode, Stage
from penstock.metrics import catalogue as m
from penstock.metrics.catalogue import Metric
from penstock.metrics.collector import MetricsCollector

if TYPE_CHECKING:
    from penstock.middleware.middleware import PerformanceMiddleware

SCHEMA = 1
WINDOW = 10.0
"""Seconds over which rates and quantiles are taken."""
QUANTILES = (0.5, 0.99)


def report(pipe: PerformanceMiddleware) -> dict[str, Any]:
    """One moment. Times are seconds, sizes bytes; what is not known is None."""
    stats, metrics, now = pipe.stats(), pipe.metrics, time.monotonic()
    pool, sending = stats.pool, stats.sending
    return {
        "schema": SCHEMA,
        "uptime": stats.uptime,
        "traffic": {
            direction: {
                "messages_per_second": _rate(metrics, m.MESSAGES, direction),
                "bytes_per_second": _rate(metrics, m.MESSAGE_BYTES, direction),
            }
            for direction in ("sent", "received")
        },
        "latency": {
            "acquire_wait": _quantiles(metrics, m.POOL_ACQUIRE_WAIT),
            "connect": _quantiles(metrics, m.POOL_CONNECT),
            "batch_wait": _quantiles(metrics, m.BATCH_WAIT),
            "ping_rtt": _quantiles(metrics, m.PING_RTT),
            "event_loop_lag": _quantiles(metrics, m.EVENT_LOOP_LAG),
        },
        "pool": {
            "urls": pool.urls,
            "in_use": pool.in_use,
            "idle": pool.idle,
            "connecting": pool.connecting,
            "closing": pool.closing,
            "waiting": pool.waiting,
            "max_total": pool.max_total,
            "plain": stats.plain_connections,
        },
        "sending": {
            "pending_messages": sending.pending_messages,
            "pending_bytes": sending.pending_bytes,
            "waiting": sending.waiting,
            "dropped": sum(sending.dropped.values()),
            "undelivered": sending.undelivered,
            "breaks": sending.breaks,
        },
        "cache": None
        if stats.cache is None
        else {
            "size": stats.cache.size,
            "capacity": stats.cache.capacity,
            "hit_ratio": stats.cache.hit_ratio,
            "hits": stats.cache.hits,
            "misses": stats.cache.misses,
            "evictions": stats.cache.evictions,
        },
        "modes": _modes(stats.modes),
        "speedups": {stage.value: ratio for stage, ratio in stats.speedups.items()},
        "alerts": [
            {
                "name": alert.name,
                "severity": alert.severity,
                "state": alert.state,
                "labels": alert.all_labels(),
                "summary": alert.summary,
                "seconds": now - alert.since,
            }
            for alert in pipe.alerts.alerts
        ],
        "transitions": [
            {
                "stage": one.stage.value,
                "url": shown_url(one.url),
                "to": one.to.value,
                "reason": one.reason,
                "seconds_ago": now - one.at,
            }
            for one in stats.transitions[-10:]
        ],
        "memory_bytes": stats.memory_bytes,
        "memory_budget": pipe.config.limits.memory_bytes,
    }


def _modes(modes: Mapping[str, Mapping[Stage, Mode]]) -> dict[str, dict[str, str]]:
    """By URL, without its secrets; those that differ in nothing else are numbered."""
    shown: dict[str, dict[str, str]] = {}
    alike: Counter[str] = Counter()
    for url, of_url in modes.items():
        name = shown_url(url)
        alike[name] += 1
        number = f" ({alike[name]})" if alike[name] > 1 else ""
        shown[name + number] = {stage.value: mode.value for stage, mode in of_url.items()}
    return shown


def _rate(metrics: MetricsCollector, metric: Metric, direction: str) -> float:
    return metrics.rate(metric, WINDOW, direction=direction)


def _quantiles(metrics: MetricsCollector, metric: Metric) -> dict[str, float | None]:
    return {f"p{round(q * 100)}": metrics.quantile(metric, q, WINDOW) for q in QUANTILES}
