"""What a cache holds for a key. Pure."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Cause: TypeAlias = Literal["capacity", "expired", "replaced", "deleted", "invalidated", "cleared"]
"""Why a value left: for want of room, its time, `set` of another, `delete`, `invalidate`, `clear`."""

Dropped: TypeAlias = tuple[Hashable, Any, Cause]
"""A key, the value that it had, and why it has it no more."""


class Node:
    """A value and what is known of it; in as little memory as there is for it, since a cache has many of them.

    Readers take no lock. A node that is replaced in place gets its value first, and one that was dropped is never used
    again, so that no reader finds another key's value, or a value with a time that it was not stored with.
    """

    __slots__ = ("expires_at", "value")

    value: Any
    expires_at: float
    weight: int = 0
    """In bytes; 0 where they are not bounded."""


class WeighedNode(Node):
    """A node where bytes are bounded."""

    __slots__ = ("weight",)


class Counted(Node):
    """A node of an order that counts visits, and links nodes with each other."""

    __slots__ = ("after", "before", "key", "standing", "visits")

    key: Hashable
    visits: int
    """Hits since its order last looked; readers that meet may count one for two."""
    standing: float
    """What its order noted about it."""
    before: Counted
    after: Counted


class WeighedCounted(Counted):
    """Likewise."""

    __slots__ = ("weight",)


class Failure:
    """Takes a value's place: what a loader raised, to be raised again for a while."""

    __slots__ = ("error", "until")

    def __init__(self, error: Exception, until: float) -> None:
        self.error, self.until = error, until


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """What a cache held for a key when it was asked."""

    key: Hashable
    value: Any
    expires_in: float
    """Seconds for which it was fresh; 0 or less while it was stale."""
    size_bytes: int
    """What it counted for ``max_bytes``; 0 where they are not bounded."""
    tags: tuple[str, ...]


def payload_bytes(value: object) -> int:
    """Bytes of text in UTF-8, or of ``bytes`` and the like; of other values what they take in memory.

    Containers of the standard library count with what is in them, everything else by itself.
    """
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="surrogatepass"))
    if isinstance(value, bytes | bytearray):
        return len(value)
    if isinstance(value, memoryview):
        return value.nbytes
    return _memory_of(value)


def _memory_of(value: object) -> int:
    size, seen, todo = 0, set[int](), [value]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        size += sys.getsizeof(one)
        if isinstance(one, dict):
            todo += one.keys()
            todo += one.values()
        elif isinstance(one, list | tuple | set | frozenset):
            todo += one
    return size
