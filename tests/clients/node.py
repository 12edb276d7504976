"""Programs in JavaScript that use the client, in a Node process of their own."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CLIENT = Path(__file__).parents[2] / "clients" / "js"
_FROM = (20, 10)
"""What has a WebSocket, by an option until it came of age."""


@cache
def _version(program: str) -> tuple[int, ...]:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return tuple(int(part) for part in said.strip().removeprefix("v").split(".")[:2])


def node() -> list[str]:
    """The command that starts Node; skips the test where there is none that will do."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("node is not installed: apt-get install nodejs")
    version = _version(program)
    if version < _FROM:
        pytest.skip(f"node {version[0]}.{version[1]} has no WebSocket: 20.10 or later is needed")
    return [program] if version >= (22, 0) else [program, "--experimental-websocket", "--no-warnings"]


async def run(source: str, *arguments: str, seconds: float = 20) -> Any:
    """Run a module that gets ``penstock`` and ``args``, and give what it prints, which is JSON."""
    head = f"import * as penstock from {(CLIENT / 'penstock.js').as_uri()!r};\nconst args = process.argv.slice(1);\n"
    process = await asyncio.create_subprocess_exec(
        *node(),
        "--input-type=module",
        "--eval",
        head + textwrap.dedent(source),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert not errors, errors.decode()
    return json.loads(output)
