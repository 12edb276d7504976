"""The ways of messages to all URLs: made when one is wanted, forgotten when it is not used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from penstock.config.performance import PerformanceConfig
from penstock.manager.budget import Budget
from penstock.manager.manager import PerformanceManager
from penstock.manager.switch import Transition
from penstock.middleware.assembly import batcher_of
from penstock.middleware.carrier import Carrier, OnMessage, OnUndelivered
from penstock.middleware.line import Line
from penstock.middleware.stats import SendingCounts
from penstock.pool.lease import PooledConnection

logger = logging.getLogger("penstock.middleware")

PAUSE = 0.05
"""Seconds between two looks for connections that are not used, while somebody waits for one."""


class Lines:
    """Keeps a `Line` for each URL that messages are sent to, and one budget for what is pending on all of them.

    Args:
        borrow: asks for a connection to a URL.
        is_full: tells whether who wants another connection has to wait for one that is in use.
        on_message, on_undelivered: see `PerformanceMiddleware`.
    """

    def __init__(
        self,
        config: PerformanceConfig,
        manager: PerformanceManager,
        borrow: Callable[[str], Awaitable[PooledConnection]],
        is_full: Callable[[], bool],
        on_message: OnMessage | None,
        on_undelivered: OnUndelivered | None,
    ) -> None:
        limits = config.limits
        bounds = (limits.max_pending_bytes, limits.memory_bytes)
        self.at: dict[str, Line] = {}
        """By URL."""
        self.past = SendingCounts()
        """What lines have counted that were forgotten."""
        self.budget = Budget(
            limits.max_pending_messages,
            min((bound for bound in bounds if bound is not None), default=None),
            self.recount,
            raises=limits.on_limit == "raise",
        )
        self._config, self._manager, self._borrow, self._is_full = config, manager, borrow, is_full
        self._wanting = 0
        """Lines that wait for a connection."""
        self._looking: asyncio.TimerHandle | None = None
        self._on_message, self._on_undelivered = on_message, on_undelivered
        self._resting: dict[Line, asyncio.Task[None]] = {}

    def new(self, url: str) -> Line:
        """Make the line of a URL that has none."""
        sending = self._config.sending
        line = self.at[url] = Line(
            url,
            partial(self._carrier, url),
            partial(batcher_of, sending),
            self._manager,
            self.budget,
            always_batched=bool(sending.ordering or sending.deduplicate or sending.batch_timeout),
            patience=self._config.fallback.stage_timeout,
        )
        return line

    def _carrier(self, url: str, on_gone: Callable[[], None]) -> Carrier:
        return Carrier(
            url,
            partial(self._borrowed, url),
            on_message=self._on_message,
            on_undelivered=self._on_undelivered,
            on_gone=on_gone,
        )

    async def _borrowed(self, url: str) -> PooledConnection:
        """Borrow a connection; meanwhile lines that send nothing return theirs, if that is what it waits for."""
        self._wanting += 1
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(PAUSE, self._give_way)
        try:
            return await self._borrow(url)
        finally:
            self._wanting -= 1

    def _give_way(self) -> None:
        self._looking = None
        if self._wanting:
            if self._is_full():
                self.tidy()
            self._looking = asyncio.get_running_loop().call_later(PAUSE, self._give_way)

    @property
    def most_pending(self) -> int:
        """Messages that may be pending, to all URLs that are used."""
        each = self._config.sending.max_pending_messages * max(1, len(self.at))
        most = self._config.limits.max_pending_messages
        return each if most is None else min(each, most)

    def changed(self, transition: Transition) -> None:
        """A stage is in another mode."""
        line = self.at.get(transition.url)
        if line is not None:
            line.reconsider()

    def recount(self) -> None:
        """Tell the budget what is pending now."""
        for line in self.at.values():
            line.charge()

    # Ending

    def tidy(self) -> None:
        """Return connections over which nothing was sent since the last time, and forget lines that have none."""
        self.recount()
        for url, line in list(self.at.items()):
            if line.is_idle:
                if line not in self._resting:
                    task = self._resting[line] = asyncio.get_running_loop().create_task(self._rest(line))
                    task.add_done_callback(lambda _, line=line: self._resting.pop(line))  # type: ignore[misc]
            elif line.is_unused:
                self.past.add(self.at.pop(url))

    async def _rest(self, line: Line) -> None:
        try:
            async with asyncio.timeout(self._config.fallback.stage_timeout):
                await line.rest()
        except Exception:
            logger.exception("the connection to %s could not be returned", line.carrier.shown)

    async def drain(self, url: str | None) -> None:
        """See `Line.drain`, of one or all; raises what one of them raised, when all have ended."""
        lines = [line for at, line in self.at.items() if url is None or at == url]
        for result in await asyncio.gather(*(line.drain() for line in lines), return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    async def close(self, timeout: float) -> None:
        """Accept no more, and wait until what was accepted is written; what is not in time is logged."""
        self.budget.close()
        closing = {asyncio.ensure_future(line.close()): line for line in self.at.values()}
        try:
            if closing:
                await asyncio.wait(closing, timeout=timeout)
            for task, line in closing.items():
                why = task.exception() if task.done() else f"it took more than {timeout:.3g} s"
                if why is not None:
                    logger.warning("messages to %s may not have arrived: %s", line.carrier.shown, why)
            if not all(task.done() for task in closing):
                self.recount()
            if self.budget.messages:
                logger.error("%d messages were not written within %.3g s, and are lost", self.budget.messages, timeout)
        finally:
            for task in (*closing, *self._resting.values()):
                task.cancel()

    def disown(self) -> None:
        """The process is a child: no line may use its connection, which is the parent's."""
        for line in self.at.values():
            line.disown()

    async def abort(self) -> None:
        """Drop all connections, and what has not left."""
        await asyncio.gather(*(line.abort() for line in self.at.values()), return_exceptions=True)
