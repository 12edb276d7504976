"""``penstock cache``."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import click
import zstandard
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penstock.cache.policy import EvictionPolicy
from penstock.cache.simulate import CHUNK, Curve, Trace, TraceError, ceiling, fitting_sizes, from_lines, from_u64, hits
from penstock.cli.plot import name_of, svg_plot, text_plot
from penstock.cli.run import Report, run_reporting

SCHEMA = 1
"""Of the JSON; a change that breaks its readers takes a new number."""

SHORT = 1000
"""Requests that a trace should have, so that its hit ratios say something."""

Format = Literal["auto", "lines", "u64"]


@click.group("cache")
def command() -> None:
    """Find out what a cache would do for you."""


@command.command("simulate")
@click.argument("trace", type=click.File("rb"))
@click.option("--size", "sizes", multiple=True, type=click.IntRange(1), help="Entries; repeatable. Default: fitting.")
@click.option(
    "--policy",
    "policies",
    multiple=True,
    type=click.Choice([policy.value for policy in EvictionPolicy]),
    help="Only this; repeatable.",
)
@click.option(
    "--format",
    "format_",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "lines", "u64"]),
    help="auto: u64 if the name says so, before .zst.",
)
@click.option("--json", "as_json_", is_flag=True, help="Print JSON instead of a table and a plot.")
@click.option("--svg", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Draw it into this file.")
def simulate(
    trace: BinaryIO,
    sizes: tuple[int, ...],
    policies: tuple[str, ...],
    format_: Format,
    as_json_: bool,
    svg: Path | None,
) -> None:
    """Hit ratios that caches of several sizes and policies would have had for the requests in TRACE.

    TRACE has a key a line, or is an array of 64-bit keys, the least significant byte first; either may be compressed
    with zstd if its name ends in .zst. With - it is read from standard input. Nothing expires in a trace, so the TTL
    policy is first in, first out. Progress goes to standard error, results to standard output.

    Exit codes: 0 done, 1 the trace cannot be read, 2 wrong usage, 130 interrupted (what was found is printed).
    """
    keys = read_trace(trace, format_)
    wanted = sorted(set(sizes)) or fitting_sizes(keys)
    if len(keys) < SHORT:
        click.echo(
            f"the trace is short: hit ratios of {len(keys):,} requests say little, record some thousands", err=True
        )
    curves = [Curve(EvictionPolicy(value), {}) for value in policies or [policy.value for policy in EvictionPolicy]]
    code = run_reporting(lambda report: fill(curves, keys, wanted, report))
    found = [curve for curve in curves if curve.points]
    best = ceiling(keys)
    if as_json_:
        click.echo(json.dumps(_as_json(trace.name, keys, best, found), indent=2))
    elif found:
        _print(trace.name, keys, best, found)
    if svg is not None and found:
        title = f"{Path(trace.name).name}: {len(keys):,} requests for {len(set(keys)):,} keys"
        try:
            svg.write_text(svg_plot(found, best, title))
        except OSError as exc:
            raise click.ClickException(f"cannot write {svg}: {exc.strerror}") from None
    sys.exit(code)


def read_trace(file: BinaryIO, format_: Format) -> Trace:
    """All keys of a trace.

    Raises:
        click.ClickException: it is none.
    """
    name = file.name
    try:
        if name.endswith(".zst"):
            name = name.removesuffix(".zst")
            content = zstandard.ZstdDecompressor().stream_reader(file).read()
        else:
            content = file.read()
        binary = format_ == "u64" or (format_ == "auto" and name.endswith(".u64"))
        return from_u64(content) if binary else from_lines(content)
    except (TraceError, zstandard.ZstdError, OSError) as exc:
        raise click.ClickException(f"cannot read {file.name}: {exc}") from None


async def fill(curves: Sequence[Curve], keys: Trace, sizes: Sequence[int], report: Report) -> None:
    """Find the points of all curves. Cancelled, it keeps those that were found until then."""
    steps, done = len(curves) * len(sizes), 0
    for size in sizes:
        for curve in curves:
            label, found = f"{name_of(curve.policy)}, {size:,} {'entry' if size == 1 else 'entries'}", 0
            for chunk, so_far in enumerate(hits(keys, curve.policy, size)):
                report(label, (done + min(1, chunk * CHUNK / len(keys))) / steps)
                await asyncio.sleep(0)
                found = so_far
            curve.points[size] = found / len(keys)
            done += 1
    report("done", 1)


def _as_json(name: str, keys: Trace, best: float, curves: Sequence[Curve]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "trace": name,
        "requests": len(keys),
        "keys": len(set(keys)),
        "ceiling": best,
        "hit_ratios": {
            curve.policy.value: [{"size": size, "hit_ratio": ratio} for size, ratio in curve.points.items()]
            for curve in curves
        },
    }


def _print(name: str, keys: Trace, best: float, curves: Sequence[Curve]) -> None:
    console = Console()
    title = f"{escape(Path(name).name)}: hit ratios for {len(keys):,} requests, {len(set(keys)):,} keys"
    grid = Table(title=title, title_justify="left", title_style="bold")
    grid.add_column("entries", justify="right")
    for curve in curves:
        grid.add_column(name_of(curve.policy), justify="right")
    sizes = sorted({size for curve in curves for size in curve.points})
    for size in sizes:
        ratios = [curve.points.get(size) for curve in curves]
        most = max(ratio for ratio in ratios if ratio is not None)
        cells = ["" if ratio is None else f"{ratio:.2%}" for ratio in ratios]
        grid.add_row(
            f"{size:,}",
            *(f"[bold]{cell}[/bold]" if ratio == most else cell for cell, ratio in zip(cells, ratios, strict=True)),
        )
    console.print(grid)
    if len(sizes) == 1:  # the table has the only point of each curve
        console.print(f"ceiling {best:.1%}", highlight=False)
        return
    console.print(text_plot(curves, best), highlight=False, markup=False, soft_wrap=True)
