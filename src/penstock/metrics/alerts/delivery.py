"""A bounded queue before each sink, so that one that is slow or gone holds up nobody."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from penstock.backoff import backoff
from penstock.errors import ConnectionDenied
from penstock.metrics.alerts.engine import Alert
from penstock.metrics.alerts.sinks import Sink

QUEUE = 100
"""Notifications that may wait for one sink; then the oldest are dropped."""
ATTEMPTS = 6
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
_PATIENCE = 0.1
"""Seconds that a sink has to end once it is cancelled."""

logger = logging.getLogger("penstock.alerts")


class Delivery:
    """Sends notifications to one sink, one after the other, in a task that lives while there are any.

    Args:
        failed: told ``"sink"`` for each attempt that failed, ``"queue"`` for each notification that was dropped.
    """

    def __init__(self, sink: Sink, random: Callable[[], float], failed: Callable[[str], object]) -> None:
        self.sink = sink
        self._random, self._failed = random, failed
        self._waiting: deque[Sequence[Alert]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._sent_at = 0.0

    def offer(self, changed: Sequence[Alert], firing: Callable[[], Sequence[Alert]], now: float) -> None:
        """Send what has changed, and if it is time for it what still fires.

        Args:
            firing: all that fire, what has changed among them.
        """
        again = self.sink.resend is not None and now - self._sent_at >= self.sink.resend
        alerts = [*changed, *(alert for alert in firing() if alert not in changed)] if again else list(changed)
        if not alerts:
            return
        if again:
            self._sent_at = now
        if len(self._waiting) >= QUEUE:
            self._waiting.popleft()
            self._failed("queue")
        self._waiting.append(alerts)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self, timeout: float) -> None:
        """Wait until all is sent, but no longer than ``timeout`` seconds, and drop what is left."""
        task = self._task
        if task is None:
            return
        await asyncio.wait([task], timeout=timeout)
        if not task.done():
            for _ in range(1 + len(self._waiting)):
                self._failed("queue")
            self._waiting.clear()
            task.cancel()
            await asyncio.wait([task], timeout=_PATIENCE)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._send(self._waiting.popleft())
        finally:
            self._task = None

    async def _send(self, alerts: Sequence[Alert]) -> None:
        delays = backoff(self._random, initial=FIRST_DELAY, minimum=FIRST_DELAY, maximum=LONGEST_DELAY)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._attempt(alerts)
            except Exception as exc:
                self._failed("sink")
                final = isinstance(exc, ConnectionDenied) or attempt == ATTEMPTS
                if final:
                    logger.exception("%s failed; %d alerts are not told", type(self.sink).__name__, len(alerts))
                    self._failed("queue")
                    return
                if attempt == 1:
                    logger.warning("%s failed, and is tried again: %r", type(self.sink).__name__, exc)
            else:
                return
            await asyncio.sleep(next(delays))

    async def _attempt(self, alerts: Sequence[Alert]) -> None:
        try:
            await self.sink.send(alerts)
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise RuntimeError("something was cancelled that the sink waited for") from exc
