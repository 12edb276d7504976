"""The page about the configuration says what the dataclasses say."""

from __future__ import annotations

import json
import tomllib
from dataclasses import MISSING
from pathlib import Path
from re import DOTALL, findall

import pytest

from penstock import PerformanceConfig
from penstock.config.documentation import meanings, summary
from penstock.config.fields import Field, fields_of, sections_of
from penstock.config.sources import from_environment
from penstock.config.values import plain

PAGE = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def described(name: str) -> str:
    """A section as it has to be on the page."""
    section = sections_of(PerformanceConfig)[name]
    texts = meanings(section)
    rows = [f"| `{field.name}` | {_default(field)} | {field.unit} | {texts[field.name]} |" for field in _fields(name)]
    return "\n".join(
        (f"### `[{name}]`", "", summary(section), "", "| field | default | unit | |", "|---|---|---|---|", *rows)
    )


def _fields(name: str) -> list[Field]:
    return list(fields_of(sections_of(PerformanceConfig)[name]).values())


def _default(field: Field) -> str:
    return "depends" if field.default is MISSING else f"`{json.dumps(plain(field.default))}`"


@pytest.mark.parametrize("name", sections_of(PerformanceConfig))
def test_the_page_lists_every_field_with_its_default_its_unit_and_its_meaning(name: str) -> None:
    assert described(name) in PAGE


def test_the_page_lists_no_other_section() -> None:
    assert findall(r"### `\[(\w+)\]`", PAGE) == list(sections_of(PerformanceConfig))


def test_the_examples_can_be_loaded(tmp_path: Path) -> None:
    files = findall(r"```toml\n(.*?)```", PAGE, DOTALL)
    assert files
    for content in files:
        name = "pyproject.toml" if "tool" in tomllib.loads(content) else "penstock.toml"
        (tmp_path / name).write_text(content)
        assert PerformanceConfig.load(tmp_path / name, {}) != PerformanceConfig()


def test_the_variables_on_the_page_exist() -> None:
    environ = dict(findall(r"(PENSTOCK_[A-Z_]+)=([^\s`]+)", PAGE))
    assert environ
    assert from_environment(environ).values
    PerformanceConfig.load(environ={name: value for name, value in environ.items() if name != "PENSTOCK_CONFIG"})
