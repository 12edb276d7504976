"""What a cache tells the shared tier, and is told by it. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias


class Change(NamedTuple):
    """What no process may answer with any more: a key's value, those with a tag, those whose keys begin so, or all."""

    kind: Literal["key", "tag", "prefix", "all"]
    what: Hashable = None


@dataclass(frozen=True, slots=True)
class Packed:
    """A value on its way to the server: head, body, and milliseconds until nobody wants it any more; 0 for ever."""

    content: bytes
    lasts_ms: int


@dataclass(frozen=True, slots=True)
class Put:
    """A key has this value now, whatever it had."""

    key: Hashable
    packed: Packed
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Keep:
    """A value that was loaded, to be stored if each of the names still has what it had before."""

    names: list[bytes]
    packed: Packed
    expected: list[bytes]


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the server had when a load began."""

    names: list[bytes]
    expected: list[bytes]
    begun: float


Note: TypeAlias = Change | Put | Keep
