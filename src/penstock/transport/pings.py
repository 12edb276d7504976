"""Pings under way."""

from __future__ import annotations

import secrets
from asyncio import AbstractEventLoop, Future
from typing import Any

from websockets.typing import BytesLike

from penstock.metrics.histogram import Histogram


class Pings:
    """Which pings have been sent, and who waits for their pongs.

    Args:
        rtt: records how long those took that were answered themselves.
    """

    def __init__(self, loop: AbstractEventLoop, rtt: Histogram) -> None:
        self.latency = 0.0
        """Seconds that the last answered ping took; 0 before the first."""
        self._loop, self._rtt = loop, rtt
        self._sent: dict[bytes, tuple[Future[float], float]] = {}

    def __contains__(self, payload: object) -> bool:
        """Whether a ping with this payload has no pong yet."""
        return payload in self._sent

    def draw(self) -> bytes:
        """A payload that no ping under way has."""
        while True:
            payload = secrets.token_bytes(4)
            if payload not in self._sent:
                return payload

    def expect(self, payload: bytes) -> Future[float]:
        """What completes with the seconds until the pong for a ping that is sent now."""
        pong: Future[float] = self._loop.create_future()
        self._sent[payload] = (pong, self._loop.time())
        return pong

    def acknowledge(self, payload: bytes) -> None:
        """A pong answers its ping and all that were sent before (RFC 6455 section 5.5.3)."""
        if payload not in self._sent:
            return
        now = self._loop.time()
        while True:
            first = next(iter(self._sent))
            pong, sent_at = self._sent.pop(first)
            if not pong.done():
                pong.set_result(now - sent_at)
            if first == payload:
                self.latency = now - sent_at
                self._rtt.record(self.latency)
                return

    def fail(self, exc: BaseException) -> None:
        """No pong comes any more."""
        for pong, _ in self._sent.values():
            if not pong.done():
                pong.set_exception(exc)
                pong.exception()  # looked at: nobody has to await it
        self._sent.clear()


def ping_payload(data: Any) -> bytes:
    """What the frame of a ping or a pong carries.

    Raises:
        TypeError: ``data`` is neither text nor bytes.
    """
    if isinstance(data, str):
        return data.encode()
    if isinstance(data, BytesLike):
        return bytes(data)
    raise TypeError("data must be str or bytes-like")
