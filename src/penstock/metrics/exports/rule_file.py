"""Alert rules as a rule file of Prometheus. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from penstock.metrics.alerts.expressions import duration
from penstock.metrics.alerts.rules import AlertRule


def rule_file(rules: Iterable[AlertRule]) -> str:
    """A rule file, as YAML: ``promtool check rules`` accepts it. ``keep_firing_for`` needs Prometheus 2.42."""
    lines = ["groups:", "  - name: penstock", "    rules:"]
    for rule in rules:
        lines += _rule(rule)
    return "\n".join(lines) + "\n"


def annotations_of(rule: AlertRule) -> dict[str, str]:
    """What a rule tells people."""
    about = {"summary": rule.summary, "threshold": rule.describe()}
    return {**about, "action": rule.action} if rule.action else about


def _rule(rule: AlertRule) -> Iterator[str]:
    yield f"      - alert: {rule.name}"
    yield "        expr: |"
    yield from (f"          {line}" for line in rule.promql().splitlines())
    if rule.for_:
        yield f"        for: {duration(rule.for_)}"
    if rule.keep_firing_for:
        yield f"        keep_firing_for: {duration(rule.keep_firing_for)}"
    yield "        labels:"
    yield f"          severity: {rule.severity}"
    yield "        annotations:"
    yield from (f"          {name}: {json.dumps(text)}" for name, text in annotations_of(rule).items())
