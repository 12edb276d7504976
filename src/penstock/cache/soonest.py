"""Soonest expiry first. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import Any

from penstock.cache.chain import Chain, unlink, unlink_all
from penstock.cache.entry import Counted, WeighedCounted

_FEW = 64
_MOST_MOVED = 8


class SoonestOrder:
    """Nodes in a queue, each of which expires no sooner than the one before: so they come where all live equally long.

    Those that come out of turn are in a heap, or have sent the last of the queue there. What leaves the heap before its
    turn stays in it until then, or until it is half such remains.
    """

    node_type, weighed_type = Counted, WeighedCounted
    touch = None

    def __init__(self) -> None:
        self.nodes: dict[Hashable, Any] = {}
        self._queue = Chain()
        self._ring = self._queue.ring
        self._ring.expires_at = -inf
        """Any node may come after none."""
        self._heap: list[tuple[float, float, Counted]] = []
        """The second number is `Counted.standing`, unless the node is not here any more; that of the others is 0."""
        self._number = count(1)

    def add(self, key: Hashable, node: Counted) -> None:
        node.key = key
        node.visits = node.standing = 0
        self.nodes[key] = node
        ring = self._ring
        last = ring.before
        if last.expires_at > node.expires_at:
            self._place(node)
            return
        node.before = last  # as Chain.append, which a call would make dearer
        node.after = ring
        last.after = ring.before = node

    def _place(self, node: Counted) -> None:
        """Have a node wait for its turn that is nowhere yet; a few of the queue may have to give way."""
        ring = self._ring
        for _ in range(_MOST_MOVED):
            last = ring.before
            if last.expires_at <= node.expires_at:
                self._queue.append(node)
                return
            self._take_out(last)
            self._push(last)
        self._push(node)

    def _push(self, node: Counted) -> None:
        node.standing = next(self._number)
        heappush(self._heap, (node.expires_at, node.standing, node))
        if len(self._heap) > 2 * len(self.nodes) + _FEW:
            self._heap = [(one.expires_at, one.standing, one) for one in self.nodes.values() if one.standing]
            heapify(self._heap)

    @staticmethod
    def _take_out(node: Counted) -> None:
        if node.standing:
            node.standing = 0
        else:
            unlink(node)

    def renew(self, _: Hashable, node: Counted) -> None:
        self._take_out(node)
        if self._ring.before.expires_at <= node.expires_at:
            self._queue.append(node)
        else:
            self._place(node)

    def remove(self, key: Hashable, node: Counted) -> None:
        del self.nodes[key]
        self._take_out(node)

    def pop(self) -> tuple[Hashable, Counted]:
        ring = self._ring
        node = ring.after
        if self._heap and (sooner := self._pop_before(inf if node is ring else node.expires_at)) is not None:
            node = sooner
        else:
            after = ring.after = node.after  # as Chain.pop
            after.before = ring
            node.after = ring
        key = node.key
        del self.nodes[key]
        return key, node

    def _pop_before(self, expires_at: float) -> Counted | None:
        """Take the first out of the heap, if it expires before that; or at the same time, as what never does."""
        heap = self._heap
        while heap:
            at, number, node = heap[0]
            if at > expires_at:
                return None
            heappop(heap)
            if node.standing == number:
                node.standing = 0
                return node
        return None

    def end(self) -> None:
        unlink_all(node for node in self.nodes.values() if not node.standing)
        self._queue.end()
