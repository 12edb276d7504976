"""Soonest expiry first. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any

from penstock.cache.entry import Counted

_FEW = 64


class SoonestOrder:
    """Nodes in a heap by time of expiry; of equals the one that came first.

    What goes before its turn stays in the heap until then, or until the heap is half such remains. A node that is
    renewed to expire later is found early, and put back.
    """

    node_type = Counted
    touch = None

    def __init__(self) -> None:
        self.nodes: dict[Hashable, Any] = {}
        self._heap: list[tuple[float, int, Counted]] = []
        """The first number is `Counted.standing`, unless another took its place."""
        self._number = count()

    def add(self, key: Hashable, node: Counted) -> None:
        node.key, node.visits = key, 0
        self.nodes[key] = node
        self._push(node)

    def _push(self, node: Counted) -> None:
        node.standing = node.expires_at
        heappush(self._heap, (node.expires_at, next(self._number), node))
        if len(self._heap) > 2 * len(self.nodes) + _FEW:
            self._heap = [(one.expires_at, next(self._number), one) for one in self.nodes.values()]
            heapify(self._heap)

    def renew(self, _: Hashable, node: Counted) -> None:
        if node.expires_at < node.standing:
            self._push(node)

    def remove(self, key: Hashable, _: Counted) -> None:
        del self.nodes[key]

    def pop(self) -> tuple[Hashable, Counted]:
        while True:
            at, _, node = heappop(self._heap)
            if at != node.standing or self.nodes.get(node.key) is not node:
                continue
            if node.expires_at > at:
                self._push(node)
                continue
            del self.nodes[node.key]
            return node.key, node

    def end(self) -> None:
        pass
