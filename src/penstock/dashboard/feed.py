"""What viewers are told: all that there is when they come, and then what is new, once for each reading."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from penstock._version import __version__
from penstock.dashboard.masks import shown_config
from penstock.dashboard.points import points_after
from penstock.dashboard.state import state_of
from penstock.manager.switch import Stage
from penstock.middleware.middleware import PerformanceMiddleware

HELLO_TIMEOUT = 5.0
"""Seconds that a viewer may take to say its token."""
MAX_VIEWERS = 32
"""At a time."""
CLOCK_TOLERANCE = 0.5
"""Seconds by which the clock on the wall may be off before times are told anew."""
EVERYTHING = float("-inf")

UNKNOWN_TOKEN, TRY_LATER = 1008, 1013
"""Close codes."""

logger = logging.getLogger("penstock.dashboard")


class Hello(msgspec.Struct, forbid_unknown_fields=True):
    """What a viewer says first."""

    token: str | None = None


class Feed:
    """Tells viewers what a middleware does.

    A viewer first says its token (``{"token": ...}``), then answers each message with any. Nothing is sent to it before
    it has done so, and the next message has all that is new since the last: for a slow viewer no more than one message
    waits. One that does not answer in time is dropped. Without viewers nothing is computed.

    Args:
        token: what viewers have to know; None: nothing.
        patience: seconds that a viewer may take to answer.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        pipe: PerformanceMiddleware,
        token: str | None,
        *,
        patience: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._pipe, self._patience, self._wall = pipe, patience, wall
        self._token = None if token is None else token.encode()
        self._read = asyncio.Event()
        """Set, and replaced, when there is a new reading."""
        self._unwatch: Callable[[], None] = _nothing
        self._made: dict[float, tuple[float, str]] = {}
        """Messages for viewers that know all up to a time, made after the latest reading."""
        self._state: dict[str, Any] = {}
        self._changed: dict[str, float] = {}
        """For each part of the state, the reading at which it was seen to differ."""
        self._is_known = False
        """Whether the state is that after the latest reading."""
        self._began = self._offset = 0.0
        self.viewers = 0
        """That are told what is new."""

    def start(self) -> None:
        """Notice readings from now on."""
        self._began = self._wall() - self._pipe.stats().uptime
        self._unwatch = self._pipe.metrics.watch(self._on_reading)

    def stop(self) -> None:
        """Notice them no more."""
        self._unwatch()

    def _on_reading(self, _: float) -> None:
        self._made.clear()
        self._is_known = False
        self._read.set()
        self._read = asyncio.Event()

    # One viewer

    async def watch(self, socket: WebSocket) -> None:
        """Serve a viewer until it goes, or has to."""
        await socket.accept()
        try:
            if not await self._knows_token(socket):
                await socket.close(UNKNOWN_TOKEN, "unknown token")
            elif self.viewers >= MAX_VIEWERS:
                await socket.close(TRY_LATER, "too many viewers")
            else:
                await self._serve(socket)
        except WebSocketDisconnect:
            pass

    async def _knows_token(self, socket: WebSocket) -> bool:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = msgspec.json.decode(await socket.receive_text(), type=Hello)
        except (TimeoutError, KeyError, msgspec.DecodeError):  # KeyError: it was no text
            return False
        return self._token is None or hmac.compare_digest((hello.token or "").encode(), self._token)

    async def _serve(self, socket: WebSocket) -> None:
        self.viewers += 1
        answered = asyncio.Event()
        telling = asyncio.create_task(self._tell(socket, answered))
        hearing = asyncio.create_task(_hear(socket, answered))
        try:
            await asyncio.wait({telling, hearing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            telling.cancel()
            hearing.cancel()
            await asyncio.wait({telling, hearing})
            self.viewers -= 1
        if not telling.cancelled() and isinstance(telling.exception(), TimeoutError):
            logger.info("a viewer did not answer for %s s, and is dropped", self._patience)
            await socket.close(TRY_LATER, "too slow")
            return
        for task in (telling, hearing):
            if not task.cancelled():
                task.result()

    async def _tell(self, socket: WebSocket, answered: asyncio.Event) -> None:
        """Raises TimeoutError when the viewer is too slow."""
        since = EVERYTHING
        while True:
            reading = self._read
            since, message = self._message(since)
            answered.clear()
            async with asyncio.timeout(self._patience):
                await socket.send_text(message)
                await answered.wait()
            await reading.wait()

    # Messages

    def _message(self, since: float) -> tuple[float, str]:
        """What is new for one who knows all up to a reading, and up to which one it knows it then."""
        found = self._made.get(since)
        if found is None:
            history = self._pipe.metrics.history
            latest = since if history.latest is None else history.latest.at
            content = self._content(points_after(history, since), latest, since)
            found = self._made[since] = latest, msgspec.json.encode(content).decode()
        return found

    def _content(self, points: dict[str, list[Any]], latest: float, since: float) -> dict[str, Any]:
        self._look(latest)
        points["at"] = [round(at + self._offset, 3) for at in points["at"]]
        content = {"now": round(self._wall(), 3), "points": points}
        if since != EVERYTHING:
            new = {name: part for name, part in self._state.items() if self._changed[name] > since}
            return content | {"state": new}
        metrics = self._pipe.config.metrics
        return content | {
            "state": self._state,
            "version": __version__,
            "began": round(self._began, 3),
            "interval": metrics.interval if metrics.enabled else None,
            "stages": list(Stage),
            "config": shown_config(self._pipe.config),
        }

    def _look(self, latest: float) -> None:
        """Once after each reading, so that all who know the same reading know the same state."""
        if self._is_known:
            return
        offset = self._wall() - time.monotonic()
        if abs(offset - self._offset) > CLOCK_TOLERANCE:  # else what has not changed would seem to, by a millisecond
            self._offset = offset
        state = state_of(self._pipe, self._offset)
        self._changed |= {name: latest for name, part in state.items() if part != self._state.get(name)}
        self._state, self._is_known = state, True


async def _hear(socket: WebSocket, answered: asyncio.Event) -> None:
    """Ends when the viewer goes."""
    while (await socket.receive())["type"] == "websocket.receive":
        answered.set()


def _nothing() -> None:
    """There is nothing to undo."""
