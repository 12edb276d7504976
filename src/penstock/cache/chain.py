"""Nodes one after the other, each of which can be taken out. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.cache.entry import Counted


class Chain:
    """Nodes, linked in a ring that begins and ends with one that holds nothing."""

    __slots__ = ("ring",)

    def __init__(self) -> None:
        ring = self.ring = Counted()
        ring.before = ring.after = ring

    def append(self, node: Counted) -> None:
        ring = self.ring
        last = ring.before
        node.before, node.after = last, ring
        last.after = ring.before = node

    def is_empty(self) -> bool:
        return self.ring.after is self.ring

    def pop(self) -> Counted | None:
        """Take out the first; None if there is none."""
        node = self.ring.after
        if node is self.ring:
            return None
        unlink(node)
        return node

    def end(self) -> None:
        """Undo the ring of a chain that is not used any more: it is freed at once, not by the garbage collector."""
        del self.ring.before, self.ring.after


def unlink(node: Counted) -> None:
    """Take a node out of its chain, whichever that is. It forgets its neighbours, for it may outlive them."""
    before, after = node.before, node.after
    before.after, after.before = after, before
    del node.before, node.after


def unlink_all(nodes: Iterable[Counted]) -> None:
    """Undo all links between nodes that are not used any more, likewise."""
    for node in nodes:
        del node.before, node.after
