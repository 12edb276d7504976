"""Results as a table for people and as JSON for programs."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from penstock.bench.rounds import Outcome
from penstock.bench.scenarios import Figure, Target

SCHEMA = 1
"""Of the JSON; a change that breaks its readers takes a new number."""

_PACKAGES = ("penstock", "picows", "websockets", "uvloop", "asyncpg", "psycopg_pool", "cachetools", "moka-py", "theine")


def machine() -> dict[str, Any]:
    """Where it was measured."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    return {"system": platform.platform(), "processor": model, "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """What was measured."""
    found = {"python": sys.version.split()[0]}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def as_json(outcomes: list[Outcome], *, interrupted: bool) -> dict[str, Any]:
    """Everything; ratios are of medians."""
    return {
        "schema": SCHEMA,
        "interrupted": interrupted,
        "machine": machine(),
        "versions": versions(),
        "scenarios": [_scenario(outcome) for outcome in outcomes],
    }


def _scenario(outcome: Outcome) -> dict[str, Any]:
    medians = outcome.medians
    return {
        "name": outcome.scenario.name,
        "title": outcome.scenario.title,
        "rounds": outcome.rounds,
        "missing": sorted(outcome.missing),
        "runs": {library: [run.as_json() for run in runs] for library, runs in outcome.runs.items()},
        "medians": {library: run.as_json() for library, run in medians.items()},
        "targets": [_target(target, outcome) for target in outcome.scenario.targets if reached(target, outcome)],
    }


def _target(target: Target, outcome: Outcome) -> dict[str, Any]:
    value = target.value(outcome.medians)
    return {
        "figure": target.figure.name,
        "of": target.of,
        "against": target.against,
        "value": value,
        "bound": target.bound,
        "met": target.met(value),
    }


def reached(target: Target, outcome: Outcome) -> bool:
    """Whether the runs that it compares have been made."""
    return {target.of, target.against or target.of} <= outcome.medians.keys()


def table(outcome: Outcome) -> Table:
    """One scenario, a row to a library."""
    scenario, medians = outcome.scenario, outcome.medians
    grid = Table(title=f"{scenario.name}: {scenario.title}", title_justify="left", title_style="bold")
    grid.add_column("library", no_wrap=True)
    for figure in scenario.figures:
        grid.add_column(f"{figure.name} ({figure.unit})", justify="right")
        grid.add_column("+-", justify="right", style="dim")
    grid.add_column("client CPU", justify="right")
    grid.add_column("server CPU", justify="right")
    for library, run in medians.items():
        cells = [library]
        for figure in scenario.figures:
            cells += [number(figure.of(run) * figure.scale), _spread(figure, outcome, library)]
        server = "" if run.server_cpu is None else f"{run.server_cpu:.0%}"
        grid.add_row(*cells, f"{run.client_cpu:.0%}" if run.client_cpu else "", server)
    return grid


def verdicts(outcome: Outcome) -> list[str]:
    """Each target and what was reached, a line each."""
    lines = [f"{package} is not installed: what needs it was left out" for package in sorted(outcome.missing)]
    for target in outcome.scenario.targets:
        name = target.figure.name if target.of == "penstock" else f"{target.figure.name} of {target.of}"
        if not reached(target, outcome):
            lines.append(f"{name}: not measured")
            continue
        value = target.value(outcome.medians)
        sign = ">=" if target.saving or target.figure.better == "more" else "<="
        unit, against = _terms(target)
        verdict = "met" if target.met(value) else "missed"
        lines.append(f"{name}: {value:.2f}{unit}{against} (target {sign} {target.bound:g}{unit}: {verdict})")
    return lines


def _terms(target: Target) -> tuple[str, str]:
    """The unit of a target's value, and what it is compared with."""
    if target.against is None:
        return f" {target.figure.unit}", ""
    if target.saving:
        return " % less", f" than {target.against}"
    if target.difference:
        return f" {target.figure.unit}", f" over {target.against}"
    return "x", f" of {target.against}"


def number(value: float) -> str:
    """A figure with about four digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _spread(figure: Figure, outcome: Outcome, library: str) -> str:
    """Half the distance from the lowest to the highest round, of the median."""
    values = sorted(figure.of(run) * figure.scale for run in outcome.runs[library])
    return f"{(values[-1] - values[0]) / 2 / median(values):.0%}"
