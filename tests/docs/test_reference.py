"""The reference is complete, and no link leads nowhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import penstock
from penstock import errors, sync
from penstock.cli import COMMANDS
from penstock.metrics.alerts.rules import default_rules

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]


def test_every_public_name_is_in_the_reference() -> None:
    page = (DOCS / "api.md").read_text()
    names = [f"penstock.{name}" for name in penstock._HOMES if name not in errors.__all__]
    names += [f"penstock.sync.{name}" for name in sync.__all__]
    assert [name for name in names if not re.search(rf"^\.\. auto\w+:: {name}$", page, re.MULTILINE)] == []


def test_every_error_is_in_the_table_of_errors() -> None:
    page = (DOCS / "errors.md").read_text()
    kinds = [name for name in errors.__all__ if issubclass(getattr(errors, name), Exception)]
    assert [name for name in kinds if not re.search(rf"^\| `{name}` \|", page, re.MULTILINE)] == []


def test_every_default_alert_has_a_section() -> None:
    page = (DOCS / "alerts.md").read_text()
    assert [rule.name for rule in default_rules() if f"\n### {rule.name}\n" not in page] == []


def test_every_command_is_on_its_page() -> None:
    page = (DOCS / "command.md").read_text()
    assert [name for name in COMMANDS if f"$ penstock {name}" not in page] == []


def test_every_extra_for_users_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for extra in ("valkey", "dashboard", "prometheus", "otel", "web3", "gql"):
        assert f"`{extra}`" in readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
