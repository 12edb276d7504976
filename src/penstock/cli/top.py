"""``penstock top``."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from penstock.cli.run import FAILED, INTERRUPTED, UNREACHABLE
from penstock.top.programs import NoProgram, choose, reports
from penstock.top.view import line, screen


@click.command("top")
@click.argument("pid", type=int, required=False)
@click.option("--json", "as_json_", is_flag=True, help="Print a line of JSON each second.")
@click.option("--once", is_flag=True, help="Look once.")
def command(pid: int | None, as_json_: bool, once: bool) -> None:
    """Watch a running program of yours: what is wrong, what it sends, which stages are in use.

    The program lets you if its configuration is from `PerformanceConfig.load()`, and `PENSTOCK_METRICS__CONTROL=1`
    is in its environment, or `metrics.control = true` in its `penstock.toml`. On a terminal the view is renewed each
    second, elsewhere a line is printed; leave with Ctrl-C.

    Exit codes: 0 the program has ended (or --once), 1 it is stuck, 2 wrong usage, 3 there is no such program, 130
    interrupted.
    """
    try:
        asyncio.run(_watch(pid, as_json=as_json_, once=once))
    except NoProgram as exc:
        click.echo(str(exc), err=True)
        sys.exit(UNREACHABLE)
    except TimeoutError:
        click.echo("the program says nothing any more: its event loop is stuck, or it is stopped", err=True)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


async def _watch(pid: int | None, *, as_json: bool, once: bool) -> None:
    console = Console()
    seen = reports(await choose(pid))
    try:
        who = await anext(seen)
        is_live = console.is_terminal and not (as_json or once)
        with Live(console=console, screen=is_live, auto_refresh=False) as live:
            async for report in seen:
                if is_live:
                    live.update(screen(who, report), refresh=True)
                else:
                    _print(console, who, report, as_json=as_json)
                if once:
                    return
    except StopAsyncIteration:
        raise NoProgram("the program has just ended") from None
    finally:
        await seen.aclose()  # type: ignore[attr-defined]


def _print(console: Console, who: dict[str, Any], report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({**who, **report}))
    elif console.is_terminal:
        console.print(screen(who, report))
    else:
        click.echo(line(report))
