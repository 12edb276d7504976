"""Where in a program something was called."""

from __future__ import annotations

import sys
from pathlib import Path

_OURS = str(Path(__file__).parent)


def caller_place() -> str:
    """The innermost line that is running and not the pool's own, as ``file:line in function``."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
