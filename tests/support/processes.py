"""Python programs in processes of their own, which a test may kill."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_TESTS = Path(__file__).parents[1]


@asynccontextmanager
async def program(source: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``source``; it is killed at the end if it has not ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(source),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(_TESTS)},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        assert process.stdout is not None
        await process.stdout.read()
        await process.wait()


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line that the program prints."""
    assert process.stdout is not None
    async with asyncio.timeout(15):
        return (await process.stdout.readline()).decode().strip()
