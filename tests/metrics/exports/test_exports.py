"""Texts for other programs."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock import AlertRule
from penstock.metrics import catalogue as m
from penstock.metrics.alerts.expressions import Gauge, select
from penstock.metrics.alerts.rules import default_rules
from penstock.metrics.catalogue import CATALOGUE
from penstock.metrics.exports.grafana import dashboard
from penstock.metrics.exports.reference import reference
from penstock.metrics.exports.rule_file import rule_file
from support.prometheus import promtool

ROOT = Path(__file__).parents[3]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(dashboard())["panels"]
    return found


def test_a_rule_file_has_all_that_a_rule_says() -> None:
    rule = AlertRule(
        name="Full",
        expression=Gauge(select(m.CACHE_ENTRIES)),
        fire=5,
        for_=90,
        keep_firing_for=120,
        severity="info",
        action="call us",
        summary='it says "full": \\o/',
    )
    [group] = yaml.safe_load(rule_file([rule]))["groups"]
    [written] = group["rules"]
    assert written == {
        "alert": "Full",
        "expr": "sum by (job, instance) (penstock_cache_entries) > 5\n",
        "for": "90s",
        "keep_firing_for": "2m",
        "labels": {"severity": "info"},
        "annotations": {"summary": 'it says "full": \\o/', "threshold": "> 5 for 90s", "action": "call us"},
    }


def test_each_default_rule_is_in_the_file_once() -> None:
    [group] = yaml.safe_load(rule_file(default_rules()))["groups"]
    assert [(rule["alert"], rule["labels"]["severity"]) for rule in group["rules"]] == [
        (rule.name, rule.severity) for rule in default_rules()
    ]


def test_the_dashboard_shows_each_metric_once() -> None:
    titles = [panel["title"] for panel in panels() if panel["type"] != "row"]
    assert sorted(titles) == sorted(metric.prometheus_name[len("penstock_") :] for metric in CATALOGUE.values())
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert len(rows) == len(set(rows))


def test_panels_lie_side_by_side() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for one, other in combinations([panel["gridPos"] for panel in panels()], 2):
        apart = [one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at] for at, size in ("xw", "yh")]
        assert any(apart), (one, other)
        assert one["x"] + one["w"] <= 24


def test_prometheus_understands_the_queries_of_the_dashboard(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    rules = [
        {"record": f"query:{number}", "expr": re.sub(r"\$__rate_interval", "1m", query)}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", path)


def test_the_reference_page_in_the_documentation_is_up_to_date() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == reference(), (
        "run penstock export catalogue --output docs/metrics.md"
    )


@pytest.mark.parametrize("metric", CATALOGUE.values(), ids=str)
def test_the_reference_page_has_each_metric(metric: m.Metric) -> None:
    assert f"| `{metric.prometheus_name}`<br>`{metric.name}` |" in reference()


def test_each_default_alert_has_a_section_that_gives_its_thresholds() -> None:
    page = (ROOT / "docs" / "alerts.md").read_text()
    sections = dict(re.findall(r"^### (\w+)\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL))
    assert list(sections) == [*dict.fromkeys(rule.name for rule in default_rules()), "AlertRuleFailed"]
    for rule in default_rules():
        assert f"{rule.severity}: `{rule.describe()}`" in sections[rule.name]
        assert "**What to do**" in sections[rule.name]
