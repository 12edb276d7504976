"""What a process holds on to."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Resources:
    """A moment's count."""

    resident_bytes: int
    tasks: int
    descriptors: int
    timers: int

    @classmethod
    def now(cls) -> Resources:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
        return cls(
            resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
            tasks=len(asyncio.all_tasks()),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            timers=len(scheduled),
        )
