"""Whether a connection still answers."""

from __future__ import annotations

import asyncio

from penstock.connection.connection import Connection
from penstock.transport.base import ConnectionClosed, State
from penstock.transport.keepalive import GRACE


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

    def heard(self, connection: Connection) -> float | None:
        """Seconds since the peer was heard, if that was lately enough to ask nothing; None if it has to be asked."""
        silence = connection.silence()
        return silence if silence is not None and silence < self.check_interval else None

    async def check_connection_health(self, connection: Connection) -> bool:
        """Whether ``connection`` answers a ping within ``pong_timeout``.

        A peer is not blamed for what is our own fault: while reading is paused because nobody receives, or the event
        loop was held up, its pong may lie unread in the socket. Cancelling is safe.
        """
        if connection.state is not State.OPEN:
            return False
        async with self._slots:
            loop = asyncio.get_running_loop()
            asked_at = loop.time()
            try:
                async with asyncio.timeout(self.pong_timeout):
                    pong = asyncio.ensure_future(await connection.ping())
                    await asyncio.shield(pong)
            except ConnectionClosed:
                return False
            except TimeoutError:
                held_up = loop.time() - asked_at > self.pong_timeout + 10 * GRACE
                await asyncio.sleep(GRACE)  # what had arrived meanwhile is read
                return held_up or connection.deaf_since(asked_at)
            return True
