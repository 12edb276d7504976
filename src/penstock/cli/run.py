"""Running long work at the command line: progress on standard error, and an exit code at the end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.traffic.processes import JobFailed

FAILED = 1
UNREACHABLE = 3
INTERRUPTED = 130

Report = Callable[[str, float], object]
"""Told what is being done, and the share of all that is done."""


def run_reporting(work: Callable[[Report], Awaitable[None]]) -> int:
    """Run ``work`` to its end, or until the user interrupts it; return the exit code.

    On a terminal progress is a bar, elsewhere a line for each thing that is begun.
    """
    return asyncio.run(_run(work, Console(stderr=True)))


async def _run(work: Callable[[Report], Awaitable[None]], errors: Console) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        bar = progress.add_task("", total=1.0)
        said = ""

        def report(label: str, share: float) -> None:
            nonlocal said
            progress.update(bar, description=label, completed=share)
            if label != said and not errors.is_terminal:
                errors.print(f"{share:>4.0%} {escape(label)}", highlight=False, soft_wrap=True)
            said = label

        try:
            await work(report)
        except JobFailed as failure:
            errors.print(f"[red]{escape(str(failure))}[/red]", highlight=False, soft_wrap=True)
            return UNREACHABLE if failure.unreachable else FAILED
        except asyncio.CancelledError:
            errors.print("interrupted; what was measured until then:")
            return INTERRUPTED
    return 0
