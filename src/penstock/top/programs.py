"""Programs of this user that can be looked at, and what they say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from penstock.middleware.control import directory, ensure_private
from penstock.middleware.report import SCHEMA

LONGEST_LINE = 16 * 1024 * 1024
PATIENCE = 10.0
"""Seconds without a report after which a program counts as stuck."""


class NoProgram(Exception):  # noqa: N818 - told to people as it is
    """There is nothing to look at, or it does not say which."""


def sockets(pid: int | None = None) -> list[Path]:
    """Those of running programs, or of one; some may be left over from programs that were killed."""
    found = []
    for path in directory().glob("*.sock" if pid is None else f"{pid}.*.sock"):
        with suppress(FileNotFoundError):  # a program may end meanwhile
            found.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(found)]


def forget(path: Path) -> None:
    """Remove what a program has left that was killed."""
    path.unlink(missing_ok=True)


def _check_place() -> None:
    place = directory()
    if place.exists():
        try:
            ensure_private(place)
        except OSError as exc:
            raise NoProgram(f"penstock top cannot look: {exc}") from exc


async def choose(pid: int | None = None) -> Path:
    """The socket of the program that is meant.

    What programs have left that were killed is removed.

    Raises:
        NoProgram: there is none, or several, or others may put something there.
    """
    _check_place()
    alive = [path for path in sockets(pid) if await _answers(path)]
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
    except ConnectionRefusedError:  # nobody listens
        forget(path)
        return False
    except OSError:
        return False
    writer.transport.abort()
    return True


async def reports(path: Path) -> AsyncIterator[dict[str, Any]]:
    """Who the program is, then what it is doing, once a second, until it ends.

    Raises:
        NoProgram: it is gone before it said anything, or what is there is no program with this version of penstock.
        TimeoutError: it says nothing for `PATIENCE` seconds.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=LONGEST_LINE)
    except OSError as exc:
        raise NoProgram(f"the program has ended ({exc})") from exc
    try:
        who = None
        while line := await _line(reader):
            said = _read(line)
            if who is None:
                who = said
            elif said.get("schema") != SCHEMA:
                raise NoProgram("the program has another version of penstock; look with the penstock top of that one")
            yield said
    finally:
        writer.transport.abort()


async def _line(reader: asyncio.StreamReader) -> bytes:
    """The next that is whole; empty when the program has ended, be it in the middle of one."""
    try:
        line = await asyncio.wait_for(reader.readline(), PATIENCE)
    except ConnectionError:
        return b""
    except ValueError as exc:
        raise NoProgram(f"a program said more than {LONGEST_LINE} bytes at once") from exc
    return line if line.endswith(b"\n") else b""


def _read(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line)
    except ValueError as exc:
        raise NoProgram("what answers there is no program with penstock") from exc
    if not isinstance(said, dict):
        raise NoProgram("what answers there is no program with penstock")
    return said
