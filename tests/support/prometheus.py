"""Programs of the Prometheus project, and the series that they and penstock look at."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock.metrics.exposition import prometheus_text
from penstock.metrics.samples import MetricsSnapshot


def program(*names: str) -> str:
    """The path of a program under one of its names; skips the test without."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip(f"{names[0]} is not installed")


def promtool(*arguments: str | Path, stdin: str | None = None) -> str:
    """Run promtool; fails with what it says."""
    command = [program("promtool"), *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-8000:]
    return done.stdout + done.stderr


def series_of(snapshots: Iterable[MetricsSnapshot]) -> list[dict[str, str]]:
    """What Prometheus scrapes, in the form of ``promtool test rules``."""
    found: dict[str, list[str]] = {}
    for step, snapshot in enumerate(snapshots):
        for line in prometheus_text(snapshot).splitlines():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found.setdefault(name, ["_"] * step).append(value)
    return [{"series": name, "values": " ".join(values)} for name, values in found.items()]


def rule_test(
    directory: Path, rules: str, series: Sequence[Mapping[str, str]], expected: Sequence[Mapping[str, Any]]
) -> Path:
    """A file for ``promtool test rules``, one second a step."""
    (directory / "rules.yml").write_text(rules)
    test = {"interval": "1s", "input_series": series, "alert_rule_test": expected}
    content = {"rule_files": ["rules.yml"], "evaluation_interval": "1s", "tests": [test]}
    path = directory / "test.yml"
    path.write_text(json.dumps(content))
    return path
