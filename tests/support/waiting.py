"""Waiting for what nobody announces."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(reached: Callable[[], bool], *, seconds: float = 5) -> None:
    """Look again and again, until a deadline."""
    async with asyncio.timeout(seconds):
        while not reached():
            await asyncio.sleep(0.001)
