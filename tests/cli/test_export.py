"""``penstock export``: what is measured, written down."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock import cli
from penstock.metrics.alerts.rules import default_rules
from penstock.metrics.exports.grafana import dashboard
from penstock.metrics.exports.reference import reference
from penstock.metrics.exports.rule_file import rule_file

TEXTS = {"rules": rule_file(default_rules()), "grafana": dashboard(), "catalogue": reference()}


@pytest.mark.parametrize("what", TEXTS)
def test_it_is_printed_or_written_into_a_file(tmp_path: Path, what: str) -> None:
    printed = CliRunner().invoke(cli.cli, ["export", what])
    assert (printed.exit_code, printed.stdout) == (0, TEXTS[what])
    path = tmp_path / "file"
    written = CliRunner().invoke(cli.cli, ["export", what, "--output", str(path)])
    assert (written.exit_code, written.output, path.read_text()) == (0, "", TEXTS[what])


def test_a_file_that_cannot_be_written_ends_with_1_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    result = CliRunner().invoke(cli.cli, ["export", "rules", "--output", str(path)])
    assert result.exit_code == 1
    assert f"cannot write {path}: No such file or directory" in result.stderr


@pytest.mark.parametrize("arguments", [["export", "poem"], ["export", "rules", "--output", "."]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.cli, arguments).exit_code == 2
