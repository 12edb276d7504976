"""What the demo found, for people and for programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from rich.markup import escape
from rich.table import Table

from penstock.demo.criteria import CRITERIA, Criterion
from penstock.demo.tour import CALLS, PENSTOCK, PLAIN, REPEATS, UNPLUGGED_MESSAGES, Findings, Tour
from penstock.errors.urls import shown_url
from penstock.traffic.measure import Run, median_run
from penstock.traffic.unplug import CUTS

SCHEMA = 2


class Row(NamedTuple):
    """One figure of both."""

    name: str
    key: str
    of: Callable[[Findings], float | None]
    show: Callable[[float], str]
    better: Literal["more", "less"]
    embedded: bool = False
    """Whether only servers that the tour itself starts can tell it."""


def _of_sending(value: Callable[[Run], float | None]) -> Callable[[Findings], float | None]:
    return lambda findings: None if findings.sending is None else value(findings.sending)


def _of_answering(value: Callable[[Run], float]) -> Callable[[Findings], float | None]:
    return lambda findings: None if findings.answering is None else value(findings.answering)


def _of_calling(value: Callable[[Run], float]) -> Callable[[Findings], float | None]:
    return lambda findings: None if findings.calling is None else value(findings.calling)


def _hit_ratio(run: Run) -> float:
    return 1 - run.reached / run.messages


def _connect_seconds(findings: Findings) -> float | None:
    return None if findings.connecting is None else findings.connecting.p50


def _of_both_ends(findings: Findings) -> float | None:
    return median_run(findings.both_ends).rate if findings.both_ends else None


def _lost(findings: Findings) -> float | None:
    return None if findings.unplugged is None else findings.unplugged.lost


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} us"


def _bytes_each(run: Run) -> float | None:
    return None if run.wire_bytes is None else run.wire_bytes / run.messages


ROWS = (
    Row("messages a second", "messages_per_second", _of_sending(lambda run: run.rate), "{:,.0f}".format, "more"),
    Row("bytes on the wire a message", "bytes_per_message", _of_sending(_bytes_each), "{:.1f}".format, "less"),
    Row("system calls a message", "syscalls_per_message", lambda found: found.syscalls, "{:.3f}".format, "less"),
    Row("client CPU while sending", "client_cpu", _of_sending(lambda run: run.client_cpu), "{:.0%}".format, "less"),
    Row(
        "server CPU meanwhile",
        "server_cpu",
        _of_sending(lambda run: run.server_cpu),
        "{:.0%}".format,
        "less",
        embedded=True,
    ),
    Row("round trip, p50", "p50_seconds", _of_answering(lambda run: run.p50), _microseconds, "less"),
    Row("round trip, p99", "p99_seconds", _of_answering(lambda run: run.p99), _microseconds, "less"),
    Row(
        "messages a second, own server",
        "messages_per_second_both_ends",
        _of_both_ends,
        "{:,.0f}".format,
        "more",
        embedded=True,
    ),
    Row(
        f"lost of {UNPLUGGED_MESSAGES:,}, plug pulled {CUTS}x",
        "lost",
        _lost,
        "{:,.0f}".format,
        "less",
        embedded=True,
    ),
    Row("a connection: new, from the pool", "connect_seconds", _connect_seconds, _microseconds, "less"),
    Row(
        f"calls a second, {REPEATS:.0%} repeated",
        "calls_per_second",
        _of_calling(lambda run: run.rate),
        "{:,.0f}".format,
        "more",
        embedded=True,
    ),
    Row(
        f"calls of {CALLS:,} the server saw",
        "calls_reached",
        _of_calling(lambda run: run.reached),
        "{:,.0f}".format,
        "less",
        embedded=True,
    ),
    Row("calls that the cache spared", "hit_ratio", _of_calling(_hit_ratio), "{:.1%}".format, "more", embedded=True),
    Row(
        "a repeated call, p50",
        "repeated_p50_seconds",
        _of_calling(lambda run: run.p50),
        _microseconds,
        "less",
        embedded=True,
    ),
    Row(
        "a repeated call, p99",
        "repeated_p99_seconds",
        _of_calling(lambda run: run.p99),
        _microseconds,
        "less",
        embedded=True,
    ),
)


def table(tour: Tour) -> Table:
    """The figures side by side."""
    where = "an embedded server on loopback" if tour.url is None else escape(shown_url(tour.url))
    grid = Table(title=f"{tour.size_bytes}-byte messages to {where}", title_justify="left", title_style="bold")
    grid.add_column("")
    grid.add_column("the plain way", justify="right")
    grid.add_column("penstock", justify="right", style="bold")
    grid.add_column("ratio", justify="right")
    for row in ROWS:
        if row.embedded and tour.url is not None:
            continue
        plain, ours = _pair(row, tour)
        cells = ["not measured" if value is None else row.show(value) for value in (plain, ours)]
        grid.add_row(row.name, *cells, ratio(plain, ours))
    return grid


def criteria_table(tour: Tour) -> Table:
    """What was to be reached, and what was."""
    grid = Table(title="What penstock is to reach", title_justify="left", title_style="bold")
    grid.add_column("")
    for heading in ("target", "measured"):
        grid.add_column(heading, justify="right")
    grid.add_column("")
    for criterion in CRITERIA:
        if criterion.embedded and tour.url is not None:
            continue
        value = criterion.measured(tour)
        if value is None:
            grid.add_row(criterion.name, criterion.target, "not measured", "")
        else:
            verdict = "[green]met[/green]" if criterion.met(value) else "[red]missed[/red]"
            grid.add_row(criterion.name, criterion.target, criterion.show(value), verdict)
    return grid


def saving(tour: Tour) -> str | None:
    """What the pool saves, in a sentence; None if it was not measured."""
    plain, ours = (_connect_seconds(tour.findings[library]) for library in (PLAIN, PENSTOCK))
    if not plain or ours is None:
        return None
    return f"Borrowing a connection takes {(1 - ours / plain) * 100:.2f} % less time than opening a new one."


def ratio(plain: float | None, ours: float | None) -> str:
    """Penstock's figure in terms of the plain one: ``15.4x``, ``0.91x``, ``1/182``."""
    if not plain or ours is None:
        return ""
    if not ours:
        return "none"
    if ours / plain < 0.5:
        parts = plain / ours
        return f"1/{parts:.1f}" if parts < 9.95 else f"1/{parts:,.0f}"
    return f"{ours / plain:.{1 if ours / plain >= 1.95 else 2}f}x"


def as_json(tour: Tour) -> dict[str, Any]:
    """The same, with ratios penstock / plain."""
    figures = {}
    for row in ROWS:
        plain, ours = _pair(row, tour)
        figures[row.key] = {
            "plain": plain,
            "penstock": ours,
            "ratio": ours / plain if plain and ours is not None else None,
            "better": row.better,
        }
    return {
        "schema": SCHEMA,
        "url": None if tour.url is None else shown_url(tour.url),
        "size_bytes": tour.size_bytes,
        "figures": figures,
        "criteria": {criterion.key: _criterion_as_json(criterion, tour) for criterion in CRITERIA},
    }


def _criterion_as_json(criterion: Criterion, tour: Tour) -> dict[str, Any]:
    value = criterion.measured(tour)
    return {"target": criterion.bound, "measured": value, "met": None if value is None else criterion.met(value)}


def _pair(row: Row, tour: Tour) -> tuple[float | None, float | None]:
    return row.of(tour.findings[PLAIN]), row.of(tour.findings[PENSTOCK])
