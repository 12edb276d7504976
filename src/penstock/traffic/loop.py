"""The event loop and the core that a traffic process runs on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run ``main`` on uvloop where the platform has it."""
    library = import_module("uvloop" if find_spec("uvloop") else "asyncio")
    with asyncio.Runner(loop_factory=library.new_event_loop) as runner:
        runner.run(main)


def cores() -> tuple[int | None, int | None]:
    """A core for clients and another one for servers, or none where there are not two to choose from."""
    if not hasattr(os, "sched_getaffinity"):  # pragma: no cover - not on Linux
        return None, None
    available = sorted(os.sched_getaffinity(0))
    return (available[0], available[1]) if len(available) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Run on one core from now on."""
    if core is not None:
        os.sched_setaffinity(0, {core})
