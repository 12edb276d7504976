"""Alerts as others read them: JSON for webhooks and for Alertmanager. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from penstock.metrics.alerts.engine import Alert

RESOLVE_TIMEOUT = 240.0
"""Seconds after which Alertmanager takes an alert for resolved of which it hears no more."""
NEVER = "0001-01-01T00:00:00Z"
"""How Alertmanager writes the end of an alert that fires."""

Shift = float
"""Seconds to add to the monotonic clock to get the time of day."""


def webhook(alerts: Sequence[Alert], shift: Shift, labels: Mapping[str, str]) -> dict[str, Any]:
    """What Alertmanager sends to a webhook, version 4, with all of these alerts in one group.

    Args:
        labels: of the program, added to those of each alert.
    """
    each = [_for_webhook(alert, shift, labels) for alert in alerts]
    firing = any(one["status"] == "firing" for one in each)
    return {
        "version": "4",
        "groupKey": "penstock",
        "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved",
        "receiver": "penstock",
        "groupLabels": {},
        "commonLabels": _common([one["labels"] for one in each]),
        "commonAnnotations": _common([one["annotations"] for one in each]),
        "externalURL": "",
        "alerts": each,
    }


def alertmanager(alerts: Iterable[Alert], now: float, shift: Shift, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The body of ``POST /api/v2/alerts``. An alert that fires ends in four minutes, unless it is sent again.

    Args:
        now: seconds on the monotonic clock.
        labels: as for `webhook`.
    """
    return [
        {
            "labels": {**labels, **alert.all_labels()},
            "annotations": _annotations(alert),
            "startsAt": _time(began(alert) + shift),
            "endsAt": _time((now + RESOLVE_TIMEOUT if alert.resolved_at is None else alert.resolved_at) + shift),
        }
        for alert in alerts
    ]


def began(alert: Alert) -> float:
    """When an alert began to fire, on the monotonic clock."""
    return alert.since if alert.fired_at is None else alert.fired_at


def _for_webhook(alert: Alert, shift: Shift, labels: Mapping[str, str]) -> dict[str, Any]:
    every = {**labels, **alert.all_labels()}
    return {
        "status": alert.state,
        "labels": every,
        "annotations": _annotations(alert),
        "startsAt": _time(began(alert) + shift),
        "endsAt": NEVER if alert.resolved_at is None else _time(alert.resolved_at + shift),
        "generatorURL": "",
        "fingerprint": fingerprint(every),
    }


def fingerprint(labels: Mapping[str, str]) -> str:
    """Sixteen digits that tell one set of labels from another: FNV-1a of 64 bits."""
    value = 0xCBF29CE484222325
    for name, text in sorted(labels.items()):
        for byte in f"{name}\xff{text}\xff".encode():
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def _annotations(alert: Alert) -> dict[str, str]:
    annotations = {"summary": alert.summary, "value": f"{alert.value:.6g}"}
    if alert.rule.action:
        annotations["action"] = alert.rule.action
    return annotations


def _common(mappings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first = mappings[0] if mappings else {}
    return {name: text for name, text in first.items() if all(one.get(name) == text for one in mappings)}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
