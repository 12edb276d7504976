"""``penstock export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from penstock.metrics.alerts.rules import default_rules
from penstock.metrics.exports.grafana import dashboard
from penstock.metrics.exports.reference import reference
from penstock.metrics.exports.rule_file import rule_file


@click.group("export")
def command() -> None:
    """Write down what penstock measures, for other programs.

    Exit codes: 0 done, 1 the file cannot be written, 2 wrong usage.
    """


def _add(name: str, text: Callable[[], str], help_: str) -> None:
    @command.command(name, help=help_)
    @click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write into this file.")
    def export(output: Path | None) -> None:
        if output is None:
            click.echo(text(), nl=False)
            return
        try:
            output.write_text(text(), encoding="utf-8")
        except OSError as exc:
            raise click.ClickException(f"cannot write {output}: {exc.strerror}") from None


_add("rules", lambda: rule_file(default_rules()), "The default alerts, as a rule file of Prometheus.")
_add("grafana", dashboard, "A dashboard, as JSON to import into Grafana.")
_add("catalogue", reference, "All metrics, as a page of Markdown.")
