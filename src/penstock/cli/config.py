"""``penstock config``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from penstock.config.checks import masked
from penstock.config.fields import paths_of
from penstock.config.loader import DEFAULT, Loaded
from penstock.config.performance import PerformanceConfig
from penstock.config.schema import schema_of
from penstock.config.toml import to_toml
from penstock.config.values import plain
from penstock.errors import ConfigError, ConfigProblem

FAILED = 1
SCHEMA = 1
"""Of the JSON; a change that breaks its readers takes a new number."""


@click.group("config")
def command() -> None:
    """Show and check what is set, in files and in the environment."""


@command.command("show")
@click.option("--origin", is_flag=True, help="Say where each value is from.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of TOML.")
def show(origin: bool, as_json: bool) -> None:
    """Print the configuration that a program gets here, as a file that would give it, but for the secrets of URLs:
    users and passwords, keys in paths, values of queries.

    Exit codes: 0 done, 1 the configuration cannot be used.
    """
    loaded = _load(None)
    if as_json:
        values = {path: _json(_value(loaded.config, path)) for path in paths_of(PerformanceConfig)}
        content: dict[str, Any] = {"schema": SCHEMA, "config": _nested(values)}
        click.echo(json.dumps(content | ({"origins": _nested(loaded.origins)} if origin else {}), indent=2))
    else:
        click.echo(to_toml(loaded.config, loaded.origins if origin else None, shown=masked), nl=False)


@command.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text, on standard output in any case.")
def check(file: Path | None, as_json: bool) -> None:
    """Check FILE, or the one that a program gets here, together with the environment variables; list all problems.

    Exit codes: 0 all is well, 1 there are problems.
    """
    if as_json:
        problems = _problems(file)
        content = {"schema": SCHEMA, "problems": [problem._asdict() for problem in problems]}
        click.echo(json.dumps(content, indent=2))
        sys.exit(FAILED if problems else 0)
    loaded = _load(file)
    count = sum(origin != DEFAULT for origin in loaded.origins.values())
    click.echo(f"no problems; {count} of {len(loaded.origins)} fields are set, all others have their defaults")


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema of penstock.toml; editors complete and check with it."""
    click.echo(json.dumps(schema_of(PerformanceConfig), indent=2))


def _load(file: Path | None) -> Loaded[PerformanceConfig]:
    try:
        return PerformanceConfig.load_with_origins(file)
    except ConfigError as exc:
        for problem in exc.problems:
            click.echo(problem, err=True)
        sys.exit(FAILED)


def _problems(file: Path | None) -> Sequence[ConfigProblem]:
    try:
        PerformanceConfig.load(file)
    except ConfigError as exc:
        return exc.problems
    return ()


def _value(config: PerformanceConfig, path: str) -> Any:
    section, _, field = path.partition(".")
    return getattr(getattr(config, section), field)


def _json(value: Any) -> Any:
    return None if value is None else masked(plain(value))


def _nested(values: Any) -> dict[str, dict[str, Any]]:
    tables: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _, field = path.partition(".")
        tables.setdefault(section, {})[field] = value
    return tables
