"""A Valkey or Redis server of a test's own, which it stops, freezes and starts again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis


class RedisServer:
    """It runs, keeps nothing on disk, and listens on loopback."""

    def __init__(self, program: str, home: Path) -> None:
        self.port = _free_port()
        self._program, self._home = program, home
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self, *options: str) -> None:
        """Start it, empty; return when it listens."""
        log = (self._home / "redis.log").open("ab")
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._home), *options]
        self._process = await asyncio.create_subprocess_exec(self._program, *arguments, stdout=log, stderr=log)
        log.close()
        async with asyncio.timeout(10):
            while True:
                assert self._process.returncode is None, f"see {self._home / 'redis.log'}"
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    await asyncio.sleep(0.01)
                    continue
                writer.transport.abort()
                return

    async def kill(self) -> None:
        """End it without a goodbye."""
        process = self._process
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    def freeze(self) -> None:
        """It holds its connections, and does nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """Another program that uses it."""
        client = Redis(port=self.port)
        try:
            yield client
        finally:
            await client.aclose()


@asynccontextmanager
async def redis_server(home: Path, *options: str) -> AsyncIterator[RedisServer]:
    """Run a server; its options are those of its command line."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("neither valkey-server nor redis-server is installed: apt-get install redis-server")
    server = RedisServer(program, home)
    await server.start(*options)
    try:
        yield server
    finally:
        await server.kill()


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
