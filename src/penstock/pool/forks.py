"""What a child process finds of the pools of its parent: their connections are not its own."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

FOREIGN = -1
"""No thread's number."""


class Disowned(Protocol):
    """Who has to know that it runs in a child process."""

    def disown(self) -> None: ...


_all: weakref.WeakSet[Disowned] = weakref.WeakSet()


def remember(one: Disowned) -> None:
    """Have somebody told in each child process that begins from now on."""
    _all.add(one)


def _tell() -> None:
    for one in _all:
        one.disown()


os.register_at_fork(after_in_child=_tell)
