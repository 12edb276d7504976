"""What a pool does by itself: checks, replaces, trims, refills, and warns of loans that are not returned."""

from __future__ import annotations

import asyncio
from math import inf

from penstock.connection.connection import Connection
from penstock.pool.actions import Actions, logger
from penstock.pool.config import ConnectionPoolConfig
from penstock.pool.health import HealthChecker
from penstock.pool.opening import Opener
from penstock.pool.slots import Member
from penstock.pool.state import PoolState
from penstock.transport.base import CloseCode

CARE_INTERVAL = 1.0
"""Seconds between looks at all connections: for those that have grown old, or are due for a check."""
AHEAD = 0.05
"""Part of the lifetime before whose end a replacement is opened."""


class Care:
    """Looks after a pool's connections, in a task of the pool's."""

    def __init__(
        self, config: ConnectionPoolConfig, state: PoolState[Connection], opener: Opener, actions: Actions
    ) -> None:
        self._config, self._state, self._opener, self._actions = config, state, opener, actions
        self._health = HealthChecker(
            config.check_interval, config.max_idle_time, config.max_request_count, pong_timeout=config.pong_timeout
        )
        self._interval = min(CARE_INTERVAL, config.check_interval)

    async def run(self) -> None:
        """Look, every second, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._interval)
            try:
                self._look(loop.time())
            except Exception:  # noqa: BLE001 - the top of a task, without which nothing would be looked after any more
                logger.exception("looking after the pool's connections failed; trying again")

    def _look(self, now: float) -> None:
        try:
            self._tend(now)
        finally:
            self._actions.act()

    def _tend(self, now: float) -> None:
        state = self._state
        state.trim(now, self._config.max_idle_time)
        state.rotate(now, self._config.max_lifetime * AHEAD)
        for key, slots in list(state.keys.items()):
            for member in slots.members:
                if member.check_at <= now + self._interval and not member.connection.is_detached:
                    self._check(member, now)
                if member.idle and member.connection.unread:
                    self._actions.drop_unread(member.connection)
                if member.lent_from is not None:
                    self._warn(member, now)
            if slots.total < slots.fewest(state.min_connections) and self._opener.is_quiet(key, now):
                state.refill(key)
        self._opener.prune(now)

    def _check(self, member: Member[Connection], now: float) -> None:
        heard = self._health.heard(member.connection)
        member.check_at = now + self._config.check_interval - (heard or 0.0)
        if heard is None:
            self._actions.spawn(self._ask(member, member.check_at))
            member.check_at = inf  # until it has answered

    async def _ask(self, member: Member[Connection], next_at: float) -> None:
        healthy = await self._health.check_connection_health(member.connection)
        member.check_at = next_at
        if not healthy:
            self._state.lost(member, "health")
            member.connection.fail(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
            member.connection.abort()  # nobody is there to answer
            self._actions.act()

    def _warn(self, member: Member[Connection], now: float) -> None:
        limit = self._config.lease_warning
        since = member.shared_at if member.share else member.used_at
        if member.idle:
            member.lent_from = None
        elif limit is not None and now - since > limit:
            text = "was borrowed %.1f s ago at %s, and not returned"
            if member.share:
                text = "is shared without a break for %.1f s, last borrowed at %s, and perhaps not returned"
                member.shared_at = inf  # not to be told again
            logger.warning(
                f"a connection to %s {text}: use `async with`, or release() it",
                member.endpoint.shown,
                now - since,
                member.lent_from,
            )
            member.lent_from = None
