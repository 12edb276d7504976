"""The entries of a cache within their bounds, and what leads to them. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Any

from penstock.cache.entry import Cause, Dropped, Failure, Node
from penstock.cache.index import SortedKeys, Tags
from penstock.cache.lfu import LfuOrder
from penstock.cache.lru import LruOrder
from penstock.cache.policy import EvictionPolicy, Order
from penstock.cache.s3fifo import S3FifoOrder
from penstock.cache.soonest import SoonestOrder

ORDERS: dict[EvictionPolicy, type[Order]] = {
    EvictionPolicy.LRU: LruOrder,
    EvictionPolicy.LFU: LfuOrder,
    EvictionPolicy.TTL: SoonestOrder,
    EvictionPolicy.S3_FIFO: S3FifoOrder,
}


class Store:
    """Nodes, bounded in number and weight.

    What goes is left in `dropped`, so that it is told, and its memory freed, by a caller who holds no lock.
    """

    def __init__(
        self, policy: EvictionPolicy, max_size: int, max_bytes: int | None = None, stale_ttl: float = 0.0
    ) -> None:
        self._policy = policy
        self.max_size = max_size
        self._stale_ttl = stale_ttl
        self._most_bytes = -1 if not max_size else inf if max_bytes is None else max_bytes
        self._is_weighed = max_bytes is not None
        self._begin_order()
        self.weight = 0
        """Of all nodes, in bytes."""
        self.evictions = self.expirations = self.refused = 0
        self.dropped: list[Dropped] = []
        self.loads: dict[Hashable, Any] = {}
        """Those under way, one at most for each key, and not outdated by a change of what their key has: what they
        bring may be stored. Each has `tags`, and `is_waiting` before anything was asked: what comes will be newer."""
        self.tags = Tags()
        self._sorted: SortedKeys | None = None
        """All keys that are text, once somebody has asked how they begin."""
        self.is_indexed = self._is_weighed
        """There is more to an entry than its node in the order: a weight, tags, or a place among the sorted keys."""

    def _begin_order(self) -> None:
        order = self.order = ORDERS[self._policy]()
        self.nodes, self.add, self.pop = order.nodes, order.add, order.pop
        self.node_type = order.weighed_type if self._is_weighed else order.node_type

    def put(self, key: Hashable, value: Any, expires_at: float, weight: int, tags: tuple[str, ...], now: float) -> None:
        """Store a value in place of the one before, if any; but not if its time is over at once, or it is too heavy."""
        if weight > self._most_bytes or expires_at == now:
            self.drop(key, "replaced")
            self.refused += expires_at > now
            return
        if self.loads:
            self.loads.pop(key, None)
        nodes = self.nodes
        node = nodes.get(key)
        if node is not None:
            if not self._is_weighed or self.weight - node.weight + weight <= self._most_bytes:
                self._renew(key, node, value, expires_at, weight, tags)
                return
            self._drop(key, node, "replaced")
        if len(nodes) >= self.max_size or self.weight + weight > self._most_bytes:
            self._make_room(weight, now)
        node = self.node_type()
        node.value = value
        node.expires_at = expires_at
        if self._is_weighed:
            node.weight = weight
            self.weight += weight
        self.add(key, node)
        if tags:
            self._tag(key, tags)
        if self._sorted is not None and isinstance(key, str):
            self._sorted.add(key)

    def _make_room(self, weight: int, now: float) -> None:
        while True:
            key, node = self.pop()
            if node.expires_at > now:
                self.evictions += 1
                cause: Cause = "capacity"
            else:
                self.expirations += 1
                cause = "expired"
            if self.is_indexed:
                self._unlist(key, node)
            self.dropped.append((key, node.value, cause))
            if self.weight + weight <= self._most_bytes:
                return

    def _renew(
        self, key: Hashable, node: Any, value: Any, expires_at: float, weight: int, tags: tuple[str, ...]
    ) -> None:
        self.dropped.append((key, node.value, "replaced"))
        node.value = value  # first, so that no reader finds the old value with the new time
        node.expires_at = expires_at
        if self._is_weighed:
            self.weight += weight - node.weight
            node.weight = weight
        if tags or self.is_indexed:
            self._tag(key, tags)
        self.order.renew(key, node)

    def _tag(self, key: Hashable, tags: tuple[str, ...]) -> None:
        self.tags.put(key, tags)
        self.is_indexed = True

    def touch(self, key: Hashable, node: Any) -> None:
        """A node was asked for."""
        if self.order.touch is None:
            node.visits += 1
        else:
            self.order.touch(key)

    def drop(self, key: Hashable, cause: Cause) -> bool:
        """Drop what there is for a key; whether there was anything."""
        self.loads.pop(key, None)
        node = self.order.nodes.get(key)
        if node is not None:
            self._drop(key, node, cause)
        return node is not None

    def is_over(self, node: Node, now: float) -> bool:
        """Whether a node is of no use any more, not even as a stale one."""
        if isinstance(node.value, Failure):
            return node.value.until <= now
        return node.expires_at + self._stale_ttl <= now

    def drop_expired(self, key: Hashable, node: Node, now: float) -> None:
        """Drop a node that was found to be past its time, if it is still there, and still is."""
        if self.order.nodes.get(key) is node and self.is_over(node, now):
            self.expirations += 1
            self._drop(key, node, "expired")

    def drop_tagged(self, tag: str) -> int:
        """Drop all that have a tag; how many."""
        for key in [key for key, load in self.loads.items() if tag in load.tags]:
            del self.loads[key]
        keys = self.tags.having(tag)
        return sum(self.drop(key, "invalidated") for key in keys)

    def drop_beginning(self, prefix: str) -> int:
        """Drop all whose keys are text that begins so; how many."""
        for key in [key for key in self.loads if isinstance(key, str) and key.startswith(prefix)]:
            del self.loads[key]
        if self._sorted is None:
            self.is_indexed = True
            self._sorted = SortedKeys(key for key in dict.keys(self.order.nodes) if isinstance(key, str))
        keys = self._sorted.beginning_with(prefix)
        return sum(self.drop(key, "invalidated") for key in keys)

    def drop_changed(self, kind: str, what: Any) -> None:
        """Drop a key (``key``), or those with a tag (``tag``) or a beginning (``prefix``)."""
        if kind == "key":
            self.drop(what, "invalidated")
        elif kind == "tag":
            self.drop_tagged(what)
        else:
            self.drop_beginning(what)

    def drop_all(self) -> None:
        """Drop everything. The order, and with it where readers look, is another one afterwards."""
        for key in [key for key, load in self.loads.items() if not load.is_waiting]:
            del self.loads[key]
        self.dropped += [(key, node.value, "cleared") for key, node in dict.items(self.order.nodes)]
        self.order.end()
        self._begin_order()
        self.weight = 0
        self.tags = Tags()
        self._sorted = None if self._sorted is None else SortedKeys(())
        self.is_indexed = self._is_weighed or self._sorted is not None

    def _drop(self, key: Hashable, node: Node, cause: Cause) -> None:
        self.order.remove(key, node)
        if self.is_indexed:
            self._unlist(key, node)
        self.dropped.append((key, node.value, cause))

    def _unlist(self, key: Hashable, node: Node) -> None:
        if self._is_weighed:
            self.weight -= node.weight
        self.tags.discard(key)
        if self._sorted is not None and isinstance(key, str):
            self._sorted.remove(key)


def told(dropped: list[Dropped]) -> list[Dropped]:
    """Without the failures, which nobody has stored."""
    return [one for one in dropped if not isinstance(one[1], Failure)]
