"""Least recently used. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from penstock.cache.entry import Node


class LruOrder:
    """The node used last is at the end."""

    node_type = Node

    def __init__(self) -> None:
        self.nodes: OrderedDict[Hashable, Any] = OrderedDict()
        self.touch = self.nodes.move_to_end

    def add(self, key: Hashable, node: Node) -> None:
        self.nodes[key] = node

    def renew(self, key: Hashable, _: Node) -> None:
        self.touch(key)

    def remove(self, key: Hashable, _: Node) -> None:
        del self.nodes[key]

    def pop(self) -> tuple[Hashable, Node]:
        return self.nodes.popitem(last=False)

    def end(self) -> None:
        pass
