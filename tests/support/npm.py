"""Servers for Node.js that others wrote, as programs meet them; installed once, beside the packages of Python."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

_HOME = Path(sys.prefix) / "npm-servers"

_GRAPHQL = """
import { buildSchema } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';

const schema = buildSchema(`
  type Query { echo(text: String): String, asked: Int, never: Int }
  type Mutation { add(n: Int): Int }
  type Subscription { count(to: Int): Int }
`);
let asked = 0;
let sum = 0;
const roots = {
  query: {
    echo: ({ text }) => { asked += 1; return text; },
    asked: () => asked,
    never: () => new Promise(() => {}),
  },
  mutation: { add: ({ n }) => { sum += n; return sum; } },
  subscription: {
    count: async function* ({ to }) {
      for (let n = 0; n < to; n += 1) {
        yield { count: n };
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    },
  },
};
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]) });
useServer({ schema, roots, onConnect: ({ connectionParams }) => connectionParams?.token !== 'wrong' }, server);
"""


@asynccontextmanager
async def ganache() -> AsyncIterator[str]:
    """The URL of an Ethereum node for development."""
    home = _installed("ganache", "ganache@7")
    script = home / "node_modules" / "ganache" / "dist" / "node" / "cli.js"
    options = ["--server.host", "127.0.0.1", "--wallet.deterministic", "--logging.quiet", "--server.port"]
    async with _running(script, *options) as url:
        yield url


@asynccontextmanager
async def graphql_ws() -> AsyncIterator[str]:
    """The URL of a server that the library ``graphql-ws`` makes."""
    home = _installed("graphql-ws", "graphql@16", "graphql-ws@6", "ws@8")
    script = home / "server.mjs"
    script.write_text(_GRAPHQL)
    async with _running(script) as url:
        yield url


def _installed(name: str, *packages: str) -> Path:
    """Where packages are; skips the test if they cannot be had."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("Node.js or npm is not installed: apt-get install nodejs npm")
    home = _HOME / name
    if home.exists():
        return home
    _HOME.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=_HOME) as work:
        fresh = Path(work) / name
        command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(fresh), *packages]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=50)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            pytest.skip(f"npm cannot install {name}: is there a network?")
        with suppress(OSError):  # another process of the tests was quicker
            fresh.rename(home)
    return home


@asynccontextmanager
async def _running(script: Path, *options: str) -> AsyncIterator[str]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    node = shutil.which("node")
    assert node is not None
    nowhere = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        node, str(script), *options, str(port), stdin=nowhere, stdout=nowhere, stderr=nowhere
    )
    try:
        await _listening(port, process)
        yield f"ws://127.0.0.1:{port}/"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _listening(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(40):
        while True:
            assert process.returncode is None, "the server has ended"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.transport.abort()
            return
