"""A local socket through which programs of the same user can look, and nobody else; nothing can be changed."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

logger = logging.getLogger("penstock.middleware")

INTERVAL = 1.0
"""Seconds between two reports."""
SLOW = 65_536
"""Bytes that may wait for somebody who looks, and reads slowly; what comes then is left out."""

_numbers = count(1)


def directory() -> Path:
    """Where the sockets of this user are: in ``XDG_RUNTIME_DIR``, or a directory for temporary files."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "penstock" if runtime else Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}"


def ensure_private(path: Path) -> None:
    """Make a directory that only this user can look into.

    Raises:
        PermissionError: it belongs to somebody else, or others may write there.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory of yours that nobody else may use (chmod 700)")


class Control:
    """Sends what ``report`` gives once a second, as lines of JSON, to whoever connects; the first says who it is."""

    def __init__(self, report: Callable[[], dict[str, Any]]) -> None:
        self._report = report
        self.path = directory() / f"{os.getpid()}.{next(_numbers)}.sock"
        """Of the socket."""
        self._opening: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen from now on; if that cannot be it is logged, and nobody can look."""
        self._opening = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        try:
            ensure_private(self.path.parent)
            server = await asyncio.start_unix_server(self._connected, self.path)
        except OSError as exc:
            logger.warning("penstock top cannot look: %s", exc)
            return
        try:
            async with server:
                await asyncio.Event().wait()
        finally:
            self.path.unlink(missing_ok=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._tell(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = asyncio.ensure_future(reader.read(1))  # nobody has anything to say
        try:
            writer.write(_line({"pid": os.getpid(), "program": Path(sys.argv[0]).name or "python"}))
            while not gone.done():
                if writer.transport.get_write_buffer_size() < SLOW:
                    writer.write(_line(self._report()))
                await asyncio.wait([gone], timeout=INTERVAL)
        finally:
            gone.cancel()
            writer.transport.abort()

    async def close(self) -> None:
        """Remove the socket, and tell nobody any more."""
        tasks = [task for task in (self._opening, *self._tasks) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"
