"""``penstock demo``."""

from __future__ import annotations

import asyncio
import json
import sys
from importlib.util import find_spec

import click
from rich.console import Console

from penstock.cli.run import FAILED, INTERRUPTED, run_reporting
from penstock.demo.live import show
from penstock.demo.table import as_json, criteria_table, saving, table
from penstock.demo.tour import Tour
from penstock.traffic.processes import JobFailed
from penstock.transport.base import InvalidURI, parse_uri

_INTRODUCTION = """\
The same program twice: one [bold]await ws.send(message)[/bold] after the other, once with [bold]websockets[/bold] \
(the plain way), once with [bold]penstock[/bold]; only the import differs. Client and server run in a process each.
"""


@click.command("demo")
@click.option("--url", metavar="URL", help="A server of yours, ws:// or wss://; by default an embedded one is started.")
@click.option(
    "--size", default=64, show_default=True, type=click.IntRange(0, 65_536), help="Bytes of each message's payload."
)
@click.option("--json", "as_json_", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--dashboard", "with_dashboard", is_flag=True, help="Drive traffic until Ctrl-C, and show it in a browser."
)
def command(url: str | None, size: int, as_json_: bool, with_dashboard: bool) -> None:
    """Drive real traffic the plain way and through penstock, side by side, within 40 s; tell what is reached.

    A server of yours, which should be one for tests, gets as many messages as it takes in about 6 s, a million or
    more, and some 400 connections. The messages are digits as text; whatever it answers is read and dropped, and round
    trips are those of pings.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 unreachable, 130 interrupted (what was measured is printed).
    """
    if with_dashboard:
        if url is not None or as_json_:
            raise click.UsageError("--dashboard goes with neither --url nor --json")
        sys.exit(_show())
    if url is not None:
        try:
            parse_uri(url)
        except InvalidURI as exc:
            raise click.BadParameter(str(exc), param_hint="--url") from None
    tour = Tour(url, size)
    console = Console()
    if not as_json_:
        console.print(_INTRODUCTION)
    code = run_reporting(tour.run)
    if as_json_:
        click.echo(json.dumps(as_json(tour), indent=2))
    elif any(findings.one_way for findings in tour.findings.values()):
        console.print(table(tour))
        if (sentence := saving(tour)) is not None:
            console.print(sentence, highlight=False)
        console.print(criteria_table(tour))
        if code == 0:
            console.print("\nMore, against more peers: [bold]penstock bench[/bold]")
    sys.exit(code)


def _show() -> int:
    """Drive traffic until interrupted; return the exit code."""
    if any(find_spec(name) is None for name in ("starlette", "uvicorn")):
        click.echo('the dashboard needs more packages: pip install "penstock[dashboard]"', err=True)
        return FAILED
    try:
        asyncio.run(show(lambda board: click.echo(f"Dashboard: {board}\nTraffic runs until Ctrl-C.")))
    except JobFailed as failure:
        click.echo(str(failure), err=True)
        return FAILED
    except KeyboardInterrupt:
        pass
    return INTERRUPTED
