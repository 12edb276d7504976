"""A dashboard for Grafana: a panel for each metric, in a row for each part of penstock. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from penstock.metrics.catalogue import BUILD_INFO, CATALOGUE, Metric

SCHEMA = 39
"""Of the dashboard: that of Grafana 11."""
COLUMNS = 3
WIDTH, HEIGHT = 8, 7
"""Of a panel, in the 24ths of Grafana's grid."""
_ROWS = {
    "pool": {"pool"},
    "batch": {"batch"},
    "cache": {"cache"},
    "fallback": {"fallback", "optimization"},
    "program": {"memory", "memory_budget", "event_loop_lag", "self", "self_failures", "alerts", "build_info"},
}
"""The parts of penstock, by what follows it in a metric's name; the rest is about connections."""
QUANTILES = (0.5, 0.9, 0.99)

_DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_TARGET = 'job=~"$job", instance=~"$instance"'
_UNITS = {"": "short", "ratio": "none", "seconds": "s", "bytes": "bytes"}
_RATES = {"": "ops", "ratio": "ops", "seconds": "percentunit", "bytes": "Bps"}


def dashboard(metrics: Iterable[Metric] = CATALOGUE.values()) -> str:
    """The dashboard as JSON, to be imported into Grafana."""
    content = {
        "uid": "penstock",
        "title": "penstock",
        "tags": ["penstock"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(metrics),
    }
    return json.dumps(content, indent=2) + "\n"


def _panels(metrics: Iterable[Metric]) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for part, members in groupby(metrics, key=_part):
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": part,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": top, "w": 24, "h": 1},
            }
        )
        top += 1
        shown = list(members)
        for place, metric in enumerate(shown):
            row, column = divmod(place, COLUMNS)
            position = {"x": column * WIDTH, "y": top + row * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append(_panel(metric, len(panels) + 1, position))
        top += -(-len(shown) // COLUMNS) * HEIGHT
    return panels


def _part(metric: Metric) -> str:
    part = metric.name.split(".")[1]
    return next((row for row, parts in _ROWS.items() if part in parts), "connections")


def _panel(metric: Metric, number: int, position: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + at), "datasource": _DATA_SOURCE, "expr": expression, "legendFormat": legend}
        for at, (expression, legend) in enumerate(_queries(metric))
    ]
    unit = (_RATES if metric.kind == "counter" else _UNITS)[metric.unit]
    return {
        "id": number,
        "type": "timeseries",
        "title": metric.prometheus_name.removeprefix("penstock_"),
        "description": metric.help,
        "datasource": _DATA_SOURCE,
        "gridPos": position,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _queries(metric: Metric) -> list[tuple[str, str]]:
    """Expressions, and how to name what they find."""
    name, labels = metric.prometheus_name, ", ".join(metric.labels)
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or "{{instance}}"
    by = f"sum by ({labels or 'instance'})"
    if metric is BUILD_INFO:
        return [(f"{name}{{{_TARGET}}}", "{{instance}} {{version}}")]
    if metric.kind == "counter":
        return [(f"{by} (rate({name}{{{_TARGET}}}[$__rate_interval]))", legend)]
    if metric.kind == "gauge":
        return [(f"{by} ({name}{{{_TARGET}}})", legend)]
    within = ", ".join(("le", *metric.labels))
    buckets = f"sum by ({within}) (rate({name}_bucket{{{_TARGET}}}[$__rate_interval]))"
    legend = legend if metric.labels else ""
    return [(f"histogram_quantile({q:g}, {buckets})", f"p{q * 100:g} {legend}".strip()) for q in QUANTILES]


def _variables() -> list[dict[str, Any]]:
    up = BUILD_INFO.prometheus_name
    each = {"type": "query", "datasource": _DATA_SOURCE, "includeAll": True, "multi": True, "refresh": 2}
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {"name": "job", "query": f"label_values({up}, job)", **each},
        {"name": "instance", "query": f'label_values({up}{{job=~"$job"}}, instance)', **each},
    ]
