"""Pings at regular intervals, by timers alone: ten thousand connections need no task each."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable

GRACE = 0.1
"""Seconds between a missed pong and the verdict, in which the loop reads what had arrived meanwhile."""


class Keepalive:
    """Declares a connection dead whose peer does not answer pings.

    A peer is not declared dead for what is our own fault: while reading is paused because the application does not
    receive, and while the event loop was held up, its pong may lie unread in the socket.

    Args:
        ping: sends a ping; the future completes with its pong.
        deaf_since: whether reading was paused at any time since an instant.
        dead: called once, when the pong did not come within ``timeout``.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        interval: float,
        timeout: float | None,
        *,
        ping: Callable[[], Future[float]],
        deaf_since: Callable[[float], bool],
        dead: Callable[[], None],
    ) -> None:
        self._loop, self._interval, self._timeout = loop, interval, timeout
        self._ping, self._deaf_since, self._dead = ping, deaf_since, dead
        self._pong: Future[float] | None = None
        self._timer: TimerHandle | None = loop.call_later(interval, self._send)

    def stop(self) -> None:
        """Send no more pings."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send(self) -> None:
        self._pong = self._ping()
        if self._timeout is None:
            self._timer = self._loop.call_later(self._interval, self._send)
        else:
            self._await_pong()

    def _await_pong(self) -> None:
        assert self._timeout is not None
        now = self._loop.time()
        self._timer = self._loop.call_later(self._timeout, self._expired, now)
        assert self._pong is not None
        self._pong.add_done_callback(self._answered)

    def _answered(self, pong: Future[float]) -> None:
        if self._timer is None or pong.cancelled() or pong.exception() is not None:
            return
        self._timer.cancel()
        self._timer = self._loop.call_later(max(0.0, self._interval - pong.result()), self._send)

    def _expired(self, since: float) -> None:
        self._timer = self._loop.call_later(GRACE, self._judge, since)

    def _judge(self, since: float) -> None:
        assert self._timeout is not None
        assert self._pong is not None
        self._pong.remove_done_callback(self._answered)
        held_up = self._loop.time() - since > self._timeout + 10 * GRACE
        if held_up or self._deaf_since(since):
            self._await_pong()
        else:
            self._timer = None
            self._dead()
