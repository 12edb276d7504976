"""Least frequently used, with ageing. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Any

from penstock.cache.chain import Chain, unlink, unlink_all
from penstock.cache.entry import Counted, WeighedCounted
from penstock.cache.policy import MOST_MOVES


class LfuOrder:
    """Nodes in chains by rank: their visits, and the age at which they were ranked (dynamic ageing).

    The age is the rank of the last one that went, so that newcomers rank with those that have not been visited for a
    while. A visit is counted, and the rank looked after when its turn comes.
    """

    node_type, weighed_type = Counted, WeighedCounted
    touch = None

    def __init__(self) -> None:
        self.nodes: dict[Hashable, Any] = {}
        self._chains: dict[float, Chain] = {}
        self._ranks: list[float] = []
        """Of all chains: a heap."""
        self._age = 0.0
        self._first, self._newcomers = self._chain(0.0).ring, self._chain(1.0).ring
        """The chain of those that have the age for their rank, and of those that have just come."""

    def _chain(self, rank: float) -> Chain:
        chain = self._chains.get(rank)
        if chain is None:
            chain = self._chains[rank] = Chain()
            heappush(self._ranks, rank)
        return chain

    def add(self, key: Hashable, node: Counted) -> None:
        node.key = key
        node.visits = 0
        node.standing = 1
        self.nodes[key] = node
        ring = self._newcomers  # as Chain.append, which a call would make dearer
        last = node.before = ring.before
        node.after = ring
        last.after = ring.before = node

    def renew(self, _: Hashable, node: Counted) -> None:
        node.visits += 1

    def remove(self, key: Hashable, node: Counted) -> None:
        del self.nodes[key]
        unlink(node)

    def pop(self) -> tuple[Hashable, Counted]:
        moves = 0
        while True:
            ring = self._first
            node = ring.after
            if node is ring:
                self._grow_older()
                continue
            after = ring.after = node.after  # as Chain.pop
            after.before = ring
            node.after = ring
            if not node.visits or moves == MOST_MOVES:
                del self.nodes[node.key]
                return node.key, node
            node.standing += node.visits
            """The number of all visits, that of its coming among them."""
            node.visits = 0
            self._chain(self._age + node.standing).append(node)
            moves += 1

    def _grow_older(self) -> None:
        """Nobody has the age for a rank any more: it becomes that of the least of all."""
        while True:
            self._age = self._ranks[0]
            chain = self._chains[self._age]
            if not chain.is_empty():
                break
            del self._chains[heappop(self._ranks)]
            chain.end()
        self._first, self._newcomers = chain.ring, self._chain(self._age + 1).ring

    def end(self) -> None:
        unlink_all(self.nodes.values())
        for chain in self._chains.values():
            chain.end()
