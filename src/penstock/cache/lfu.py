"""Least frequently used, with ageing. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from heapq import heappop, heappush
from typing import Any

from penstock.cache.chain import Chain, unlink, unlink_all
from penstock.cache.entry import Counted
from penstock.cache.policy import MOST_MOVES


class LfuOrder:
    """Nodes in chains by rank: their visits, and the age at which they were ranked (dynamic ageing).

    The age is the rank of the last one that went, so that newcomers rank with those that have not been visited for a
    while. A visit is counted, and the rank looked after when its turn comes.
    """

    node_type = Counted
    touch = None

    def __init__(self) -> None:
        self.nodes: dict[Hashable, Any] = {}
        self._chains: dict[float, Chain] = {}
        self._ranks: list[float] = []
        """Of all chains: a heap."""
        self._age = 0.0

    def add(self, key: Hashable, node: Counted) -> None:
        node.key, node.visits, node.standing = key, 0, 1
        self.nodes[key] = node
        self._place(node)

    def _place(self, node: Counted) -> None:
        """`Counted.standing` is the number of all visits, that of its coming among them."""
        rank = self._age + node.standing
        chain = self._chains.get(rank)
        if chain is None:
            chain = self._chains[rank] = Chain()
            heappush(self._ranks, rank)
        chain.append(node)

    def renew(self, _: Hashable, node: Counted) -> None:
        node.visits += 1

    def remove(self, key: Hashable, node: Counted) -> None:
        del self.nodes[key]
        unlink(node)

    def pop(self) -> tuple[Hashable, Counted]:
        moves = 0
        while True:
            self._age = self._ranks[0]
            node = self._chains[self._age].pop()
            if node is None:
                self._chains.pop(heappop(self._ranks)).end()
            elif not node.visits or moves == MOST_MOVES:
                del self.nodes[node.key]
                return node.key, node
            else:
                node.standing += node.visits
                node.visits = 0
                self._place(node)
                moves += 1

    def end(self) -> None:
        unlink_all(self.nodes.values())
        for chain in self._chains.values():
            chain.end()
