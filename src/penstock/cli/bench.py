"""``penstock bench``."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console

from penstock.bench.report import as_json, table, verdicts
from penstock.bench.rounds import Outcome, run_all
from penstock.bench.scenarios import SCENARIOS
from penstock.cli.run import INTERRUPTED, run_reporting


@click.command("bench")
@click.option("--scenario", "names", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only this; repeatable.")
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(1, 100), help="Turns of each library.")
@click.option("--json", "as_json_", is_flag=True, help="Print JSON instead of tables.")
@click.option("--list", "list_", is_flag=True, help="List the scenarios and end.")
def command(names: tuple[str, ...], rounds: int, as_json_: bool, list_: bool) -> None:
    """Measure penstock against its peers on this machine.

    Each library's client runs in a process of its own, the server in another, on a core each where there are two; the
    order turns round every round, and medians are compared. A client CPU of 100 % means that the client was the limit,
    not the server. Progress goes to standard error, results to standard output.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unreachable, 130 interrupted (what was measured is printed).
    """
    if list_:
        for scenario in SCENARIOS.values():
            click.echo(f"{scenario.name:20} {scenario.title} ({', '.join(scenario.messages)})")
        return
    outcomes = [Outcome(SCENARIOS[name]) for name in names or SCENARIOS]
    code = run_reporting(lambda report: run_all(outcomes, rounds, report))
    measured = [outcome for outcome in outcomes if outcome.medians or outcome.missing]
    if as_json_:
        click.echo(json.dumps(as_json(measured, interrupted=code == INTERRUPTED), indent=2))
    else:
        _print(measured)
    sys.exit(code)


def _print(outcomes: list[Outcome]) -> None:
    console = Console()
    for outcome in outcomes:
        console.print(table(outcome))
        for line in verdicts(outcome):
            console.print(f"  {line}", highlight=False)
        console.print()
