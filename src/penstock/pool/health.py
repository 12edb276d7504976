"""Whether a connection still answers."""

from __future__ import annotations

import asyncio
from typing import Any

from penstock.transport.base import ConnectionClosed, State


class HealthChecker:
    """Asks connections by ping, and waits for the pong: an open socket alone says nothing about the other end.

    Args:
        check_interval: seconds between checks of one connection.
        max_idle_time: seconds after which one that nobody uses is not worth keeping.
        max_request_count: loans after which a connection has had its time; 0 for no limit.
        pong_timeout: seconds that an answer may take.
        concurrency: pings under way at a time.
    """

    def __init__(
        self,
        check_interval: float = 20.0,
        max_idle_time: float = 300.0,
        max_request_count: int = 0,
        *,
        pong_timeout: float = 10.0,
        concurrency: int = 64,
    ) -> None:
        self.check_interval = check_interval
        self.max_idle_time = max_idle_time
        self.max_request_count = max_request_count
        self.pong_timeout = pong_timeout
        self._slots = asyncio.Semaphore(concurrency)

    async def check_connection_health(self, connection: Any) -> bool:
        """Whether ``connection`` answers a ping within ``pong_timeout``. Cancelling is safe."""
        if connection.state is not State.OPEN:
            return False
        async with self._slots:
            try:
                async with asyncio.timeout(self.pong_timeout):
                    await (await connection.ping())
            except (TimeoutError, ConnectionClosed):
                return False
        return True
