"""What the system grants a process, and what it takes."""

from __future__ import annotations

import gc
import os
import resource
from pathlib import Path


def allow_descriptors(count: int) -> None:
    """Raise the soft limit of open files to what ``count`` connections need.

    Raises:
        OSError: the hard limit is below that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise OSError(f"{count} connections need as many open files, the limit is {hard}; raise it with ulimit -Hn")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def resident_bytes() -> int:
    """Memory of this process that is in RAM; Linux tells."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
