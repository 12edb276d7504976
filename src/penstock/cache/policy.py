"""Which entry goes when there is no room. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, Protocol


class EvictionPolicy(Enum):
    """Which entry a cache drops when it is full."""

    LRU = "lru"
    """The one that was not asked for, or set, for longest."""
    LFU = "lfu"
    """The one that was asked for least often, with ageing: what was asked for often long ago loses its rank."""
    TTL = "ttl"
    """The one that expires soonest."""
    S3_FIFO = "s3-fifo"
    """One that was never asked for since it came, before those that were: three queues (Yang et al., SOSP 2023).

    The best where many keys are asked for only once; LRU is better where a key is asked for again soon, or never.
    """

    @classmethod
    def _missing_(cls, value: object) -> None:
        names = ", ".join(repr(policy.value) for policy in cls)
        raise ValueError(f"eviction_policy={value!r}: must be an EvictionPolicy, or one of {names}")


class Order(Protocol):
    """The entries of a cache in the order in which they go. Called with the cache's lock held, but for two things.

    Readers find nodes in `nodes` and report a hit without it.
    """

    @property
    def node_type(self) -> type[Any]:
        """What its nodes are."""

    @property
    def weighed_type(self) -> type[Any]:
        """What they are where bytes are bounded."""

    @property
    def nodes(self) -> dict[Hashable, Any]:
        """All nodes by their keys. Readers may move them at any time: it is looked through with the methods of dict."""

    @property
    def touch(self) -> Callable[[Hashable], object] | None:
        """Takes the key of a hit, and raises KeyError if it has gone; None: one is added to `visits` of the node."""

    def add(self, key: Hashable, node: Any) -> None:
        """A key that has no node gets one, whose fields of `Node` are set."""

    def renew(self, key: Hashable, node: Any) -> None:
        """A node has another value, and perhaps another time of expiry."""

    def remove(self, key: Hashable, node: Any) -> None:
        """A node goes, whatever its rank."""

    def pop(self) -> tuple[Hashable, Any]:
        """The node goes whose turn it is; there is one."""

    def end(self) -> None:
        """The order is not used any more: nothing in it may keep the nodes alive."""


MOST_MOVES = 64
"""Nodes that were visited and are put back, at most, until one goes all the same: no `set` takes long."""
