"""What a process holds on to."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MALLOC_INFO = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
    *("uordblks", "fordblks", "keepcost"),
)


class _MallocInfo(ctypes.Structure):
    """What ``mallinfo2`` of glibc 2.33 and later returns."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLOC_INFO]


def _heap() -> Callable[[], int]:
    """Counts the bytes that ``malloc`` has given out; 0 where it does not tell."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return lambda: 0
    mallinfo.restype = _MallocInfo

    def in_use() -> int:
        info = mallinfo()
        return int(info.uordblks + info.hblkhd)

    return in_use


_heap_bytes = _heap()


@dataclass(frozen=True)
class Resources:
    """A moment's count."""

    resident_bytes: int
    heap_bytes: int
    """Given out by ``malloc``, without what it keeps; the small objects of the interpreter are not among it."""
    tasks: int
    descriptors: int
    timers: int
    """Those that will ring; asyncio forgets cancelled ones later."""
    blocks: int
    """Of the interpreter's small objects; what leaks shows in them at once, without the allocator's noise."""

    @classmethod
    def now(cls) -> Resources:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        scheduled = getattr(asyncio.get_running_loop(), "_scheduled", ())
        return cls(
            resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
            heap_bytes=_heap_bytes(),
            tasks=len(asyncio.all_tasks()),
            descriptors=len(list(Path("/proc/self/fd").iterdir())),
            timers=sum(not timer.cancelled() for timer in scheduled),
            blocks=sys.getallocatedblocks(),
        )
