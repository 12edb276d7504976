"""Programs of this user that can be looked at, and what they say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from penstock.middleware.control import directory

LONGEST_LINE = 16 * 1024 * 1024
PATIENCE = 10.0
"""Seconds without a report after which a program counts as stuck."""


class NoProgram(Exception):  # noqa: N818 - told to people as it is
    """There is nothing to look at, or it does not say which."""


def sockets(pid: int | None = None) -> list[Path]:
    """Those of running programs, or of one; some may be left over from programs that were killed."""
    found = directory().glob("*.sock" if pid is None else f"{pid}.*.sock")
    return sorted(found, key=lambda path: path.stat().st_mtime)


def forget(path: Path) -> None:
    """Remove what a program has left that was killed."""
    path.unlink(missing_ok=True)


async def choose(pid: int | None = None) -> Path:
    """The socket of the program that is meant.

    Raises:
        NoProgram: there is none, or several.
    """
    alive = []
    for path in sockets(pid):
        if await _answers(path):
            alive.append(path)
        else:
            forget(path)
    if not alive:
        which = "no program of yours" if pid is None else f"no program with PID {pid}"
        raise NoProgram(
            f"{which} lets penstock top look: have it load its configuration with PerformanceConfig.load(), "
            "and set PENSTOCK_METRICS__CONTROL=1 in its environment, "
            "or metrics.control = true in penstock.toml"
        )
    if len(alive) > 1 and pid is None:
        pids = ", ".join(path.name.partition(".")[0] for path in alive)
        raise NoProgram(f"several programs can be looked at; name one of them by its PID: {pids}")
    return alive[-1]


async def _answers(path: Path) -> bool:
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def reports(path: Path) -> AsyncIterator[dict[str, Any]]:
    """Who the program is, then what it is doing, once a second, until it ends.

    Raises:
        NoProgram: it is gone before it said anything.
        TimeoutError: it says nothing for `PATIENCE` seconds.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=LONGEST_LINE)
    except OSError as exc:
        raise NoProgram(f"the program has ended ({exc})") from exc
    try:
        while line := await asyncio.wait_for(reader.readline(), PATIENCE):
            yield json.loads(line)
    finally:
        writer.transport.abort()
