"""Least recently used. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from penstock.cache.entry import Node, WeighedNode


class LruOrder:
    """The node used last is at the end."""

    node_type, weighed_type = Node, WeighedNode

    def __init__(self) -> None:
        self.nodes: OrderedDict[Hashable, Any] = OrderedDict()
        self.touch = self.nodes.move_to_end
        self.add = self.nodes.__setitem__  # these are called for each `set`, and so is nothing around them
        self.pop: Callable[[], tuple[Hashable, Any]] = partial(self.nodes.popitem, False)

    def renew(self, key: Hashable, _: Node) -> None:
        self.touch(key)

    def remove(self, key: Hashable, _: Node) -> None:
        del self.nodes[key]

    def end(self) -> None:
        pass
