"""Closing one part after the other, though some of them fail, and whoever waits may give up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

logger = logging.getLogger("penstock.middleware")

Close = Callable[[float], Awaitable[object]]
"""Closes something within so many seconds."""


def in_any_case(close: Callable[[], Awaitable[object]]) -> Close:
    """For what has its own measure of time."""
    return lambda _: close()


async def close_all(parts: Iterable[Close], timeout: float) -> None:
    """Close each part, with what those before it have left of ``timeout`` seconds; one that fails is logged.

    Cancelling leaves no time to those that are still open, but they are closed.
    """
    deadline = time.monotonic() + timeout
    cancelled: asyncio.CancelledError | None = None
    for close in parts:
        seconds = 0.0 if cancelled is not None else max(0.0, deadline - time.monotonic())
        try:
            await close(seconds)
        except asyncio.CancelledError as exc:
            cancelled = exc
        except Exception:
            logger.exception("closing the middleware: a part of it failed")
    if cancelled is not None:
        raise cancelled
