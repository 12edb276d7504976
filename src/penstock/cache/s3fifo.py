"""S3-FIFO: first in, first out, in three queues. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

from penstock.cache.chain import Chain, unlink, unlink_all
from penstock.cache.entry import Counted
from penstock.cache.policy import MOST_MOVES

_SMALL, _MAIN = 0, 1
_SHARE = 10
"""A tenth of the nodes is on trial."""
_MOST_VISITS = 3
"""Visits that count: rounds through the main queue that a node can have ahead of it."""


class S3FifoOrder:
    """Newcomers are on trial in a small queue; those that are visited there go on to the main one, the rest goes.

    Of what went the hashes are known for a while: who comes back in time goes to the main queue at once. That takes a
    visited node round again, one visit the fewer. After "FIFO queues are all you need for cache eviction" (SOSP 2023),
    but that one visit is enough to pass the trial.
    """

    node_type = Counted
    touch = None

    def __init__(self) -> None:
        self.nodes: dict[Hashable, Any] = {}
        self._small, self._main = Chain(), Chain()
        self._on_trial = 0
        self._gone: deque[int] = deque()
        self._known = set[int]()
        """Hashes of `_gone`, less those that came back."""

    def add(self, key: Hashable, node: Counted) -> None:
        node.key, node.visits, node.standing = key, 0, _SMALL
        self.nodes[key] = node
        hashed = hash(key)
        if hashed in self._known:
            self._known.remove(hashed)
            node.standing = _MAIN
            self._main.append(node)
        else:
            self._small.append(node)
            self._on_trial += 1

    def renew(self, _: Hashable, node: Counted) -> None:
        node.visits += 1

    def remove(self, key: Hashable, node: Counted) -> None:
        del self.nodes[key]
        unlink(node)
        if node.standing == _SMALL:
            self._on_trial -= 1
        if node.standing == _MAIN or node.visits:
            self._remember(key)  # it expired, perhaps: its successor shall not have to stand the trial again

    def pop(self) -> tuple[Hashable, Counted]:
        moves = 0
        while True:
            if self._on_trial * _SHARE >= len(self.nodes) or (node := self._main.pop()) is None:
                node = self._small.pop()
                assert node is not None
                self._on_trial -= 1
                stays = node.visits > 0
                node.visits = 0
                if not stays or moves == MOST_MOVES:
                    self._remember(node.key)
            else:
                stays = node.visits > 0
                node.visits = min(node.visits, _MOST_VISITS) - 1
            if not stays or moves == MOST_MOVES:
                del self.nodes[node.key]
                return node.key, node
            node.standing = _MAIN
            self._main.append(node)
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
