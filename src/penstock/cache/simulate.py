"""What a cache would have done for requests that were made before. Pure."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeAlias

from penstock.cache.policy import EvictionPolicy
from penstock.cache.store import Store

Trace: TypeAlias = Sequence[Hashable]
"""A key for each request, in order."""
CHUNK = 20_000
"""Requests that are simulated between two looks at how far it is."""
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


class TraceError(ValueError):
    """What was read is no trace."""


def from_lines(content: bytes) -> Trace:
    """A key a line; empty lines count for nothing."""
    return _checked([line for line in content.splitlines() if line])


def from_u64(content: bytes) -> Trace:
    """A key each eight bytes, the least significant first."""
    if len(content) % 8:
        raise TraceError(f"{len(content)} bytes are no whole number of 64-bit keys")
    keys = array("Q", content)
    if sys.byteorder == "big":
        keys.byteswap()
    return _checked(keys)


def _checked(keys: Trace) -> Trace:
    if not keys:
        raise TraceError("there is no request in it")
    return keys


@dataclass(frozen=True, slots=True)
class Curve:
    """Hit ratios of one policy."""

    policy: EvictionPolicy
    points: dict[int, float]
    """By size, ascending; from 0 to 1."""


def ceiling(keys: Trace) -> float:
    """The hit ratio of a cache that never lets go of anything."""
    return 1 - len(set(keys)) / len(keys)


def fitting_sizes(keys: Trace) -> list[int]:
    """Sizes that are worth a look: shares of all keys there are, rounded to two digits."""
    distinct = len(set(keys))
    return sorted({max(1, int(float(f"{share * distinct:.1e}"))) for share in _SHARES})


def hits(keys: Trace, policy: EvictionPolicy, size: int) -> Iterator[int]:
    """Serve the requests from a cache of so many entries that do not expire; give the hits so far, chunk by chunk."""
    store = Store(policy, size)
    nodes, touch = store.order.nodes, store.order.touch
    found = 0
    for start in range(0, len(keys), CHUNK):
        for key in keys[start : start + CHUNK]:
            node = nodes.get(key)
            if node is None:
                store.put(key, None, inf, 0, (), 0.0)
            else:
                found += 1
                if touch is None:
                    node.visits += 1
                else:
                    touch(key)
        store.dropped.clear()
        yield found
