"""S3-FIFO: first in, first out, in three queues. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

from penstock.cache.chain import Chain, unlink, unlink_all
from penstock.cache.entry import Counted, WeighedCounted
from penstock.cache.policy import MOST_MOVES

_SMALL, _MAIN = 0, 1
_MOST_MAIN = 0.9
"""A tenth of the nodes is on trial."""
_MOST_VISITS = 3
"""Visits that count: rounds through the main queue that a node can have ahead of it."""


class S3FifoOrder:
    """Newcomers are on trial in a small queue; those that are visited there go on to the main one, the rest goes.

    Of what went the hashes are known for a while: who comes back in time goes to the main queue at once. That takes a
    visited node round again, one visit the fewer. After "FIFO queues are all you need for cache eviction" (SOSP 2023),
    but that one visit is enough to pass the trial.
    """

    node_type, weighed_type = Counted, WeighedCounted
    touch = None

    def __init__(self) -> None:
        self.nodes: dict[Hashable, Any] = {}
        self._small, self._main = Chain(), Chain()
        self._newcomers = self._small.ring
        self._in_main = 0
        self._gone: deque[int] = deque()
        self._known = set[int]()
        """Hashes of `_gone`, less those that came back."""

    def add(self, key: Hashable, node: Counted) -> None:
        node.key = key
        node.visits = 0
        self.nodes[key] = node
        if (hashed := hash(key)) in self._known:
            self._known.remove(hashed)
            self._go_on(node)
            return
        node.standing = _SMALL
        ring = self._newcomers  # as Chain.append, which a call would make dearer
        last = node.before = ring.before
        node.after = ring
        last.after = ring.before = node

    def _go_on(self, node: Counted) -> None:
        node.standing = _MAIN
        self._in_main += 1
        self._main.append(node)

    def renew(self, _: Hashable, node: Counted) -> None:
        node.visits += 1

    def remove(self, key: Hashable, node: Counted) -> None:
        del self.nodes[key]
        unlink(node)
        if node.standing == _MAIN:
            self._in_main -= 1
        if node.standing == _MAIN or node.visits:
            self._remember(key)  # it expired, perhaps: its successor shall not have to stand the trial again

    def pop(self) -> tuple[Hashable, Counted]:
        nodes = self.nodes
        if self._in_main > _MOST_MAIN * len(nodes) or (node := self._newcomers.after).visits:
            return self._pop_visited()
        ring = node.before  # as Chain.pop and _remember: by far the most that go have not been visited
        after = ring.after = node.after
        after.before = ring
        node.after = ring
        key = node.key
        hashed = hash(key)
        gone, known = self._gone, self._known
        gone.append(hashed)
        known.add(hashed)
        while len(gone) > len(nodes):
            known.discard(gone.popleft())
        del nodes[key]
        return key, node

    def _pop_visited(self) -> tuple[Hashable, Counted]:
        moves = 0
        while True:
            if self._in_main > _MOST_MAIN * len(self.nodes) or (node := self._small.pop()) is None:
                node = self._main.pop()
                assert node is not None
                self._in_main -= 1
                stays = node.visits > 0
                node.visits = min(node.visits, _MOST_VISITS) - 1
            else:
                stays = node.visits > 0
                node.visits = 0
                if not stays or moves == MOST_MOVES:
                    self._remember(node.key)
            if not stays or moves == MOST_MOVES:
                del self.nodes[node.key]
                return node.key, node
            self._go_on(node)
            moves += 1

    def end(self) -> None:
        unlink_all(self.nodes.values())
        self._small.end()
        self._main.end()

    def _remember(self, key: Hashable) -> None:
        hashed = hash(key)
        self._gone.append(hashed)
        self._known.add(hashed)
        while len(self._gone) > len(self.nodes):
            self._known.discard(self._gone.popleft())
