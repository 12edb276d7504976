"""What the page tells beside its charts: alerts, modes, and what was counted."""

from __future__ import annotations

from typing import Any

from penstock.errors.urls import shown_url
from penstock.manager.switch import Mode, Transition
from penstock.metrics import catalogue as m
from penstock.metrics.alerts.engine import Alert
from penstock.middleware.middleware import PerformanceMiddleware
from penstock.middleware.stats import PerformanceStats

URLS = 50
"""Of which the modes are shown, at most; those with a stage that is not used as it should be come first."""
TRANSITIONS = 30
"""That are shown, at most."""
MINUTE = 60.0


def state_of(pipe: PerformanceMiddleware, offset: float) -> dict[str, Any]:
    """All of it, with JSON's types; times are seconds since 1970: those of the monotonic clock, and ``offset`` more."""
    stats = pipe.stats()
    urls = _urls(stats, offset)
    latest = list(stats.transitions)[-TRANSITIONS:]
    return {
        "alerts": [_alert(alert, offset) for alert in pipe.alerts.alerts],
        "urls": urls[:URLS],
        "more_urls": len(urls[URLS:]),
        "transitions": [_transition(one, offset) for one in reversed(latest)],
        "speedups": {stage.value: ratio for stage, ratio in stats.speedups.items()},
        "failures": {stage.value: number for stage, number in stats.failures.items()},
        "flushes": _flushes(pipe, stats.sending.batches),
        **_facts(stats),
    }


def _facts(stats: PerformanceStats) -> dict[str, Any]:
    pool, sending, cache = stats.pool, stats.sending, stats.cache
    return {
        "pool": {
            "urls": pool.urls,
            "opened": pool.opened,
            "failed": pool.failed,
            "timeouts": pool.timeouts,
            "connecting": pool.connecting,
            "plain": stats.plain_connections,
        },
        "batch": {
            "delivered": sending.delivered,
            "dropped": sum(sending.dropped.values()),
            "pending_bytes": sending.pending_bytes,
            "undelivered": sending.undelivered,
            "breaks": sending.breaks,
        },
        "cache": None
        if cache is None
        else {
            "size": cache.size,
            "capacity": cache.capacity,
            "hits": cache.hits,
            "misses": cache.misses,
            "evictions": cache.evictions,
            "hit_ratio": cache.hit_ratio,
        },
        "memory_bytes": stats.memory_bytes,
    }


def _alert(alert: Alert, offset: float) -> dict[str, Any]:
    labels = alert.all_labels()
    return {
        "name": labels.pop("alertname"),
        "severity": labels.pop("severity"),
        "state": alert.state,
        "summary": alert.summary,
        "labels": labels,
        "value": alert.value,
        "rule": alert.rule.describe(),
        "since": _wall(alert.since, offset),
        "fired_at": _wall(alert.fired_at, offset),
        "resolved_at": _wall(alert.resolved_at, offset),
    }


def _urls(stats: PerformanceStats, offset: float) -> list[dict[str, Any]]:
    latest = {(one.url, one.stage): one for one in stats.transitions}
    rows = []
    for url, modes in stats.modes.items():
        stages = {stage.value: _mode(mode, latest.get((url, stage)), offset) for stage, mode in modes.items()}
        rows.append({"url": shown_url(url), "stages": stages})
    return sorted(rows, key=_is_optimized)


def _mode(mode: Mode, last: Transition | None, offset: float) -> dict[str, Any]:
    if last is None or last.to is not mode:
        return {"mode": mode.value, "reason": "configured", "since": None}
    return {"mode": mode.value, "reason": last.reason, "since": _wall(last.at, offset)}


def _is_optimized(row: dict[str, Any]) -> bool:
    return all(one["mode"] == Mode.OPTIMIZED for one in row["stages"].values())


def _transition(one: Transition, offset: float) -> dict[str, Any]:
    return {
        "at": _wall(one.at, offset),
        "stage": one.stage.value,
        "url": shown_url(one.url),
        "to": one.to.value,
        "reason": one.reason,
    }


def _flushes(pipe: PerformanceMiddleware, totals: dict[str, int]) -> list[dict[str, Any]]:
    lately = pipe.metrics.history.increases(m.BATCH_FLUSHES, MINUTE)
    return [
        {"reason": reason, "minute": lately.get((reason,), 0), "total": totals[reason]} for reason in sorted(totals)
    ]


def _wall(at: float | None, offset: float) -> float | None:
    return None if at is None else round(at + offset, 3)
