"""Nodes one after the other, each of which can be taken out. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.cache.entry import Counted


class Chain:
    """Nodes, linked in a ring that begins and ends with one that holds nothing."""

    __slots__ = ("_ring",)

    def __init__(self) -> None:
        ring = self._ring = Counted()
        ring.before = ring.after = ring

    def append(self, node: Counted) -> None:
        ring = self._ring
        last = ring.before
        node.before, node.after = last, ring
        last.after = ring.before = node

    def pop(self) -> Counted | None:
        """Take out the first; None if there is none."""
        node = self._ring.after
        if node is self._ring:
            return None
        unlink(node)
        return node

    def end(self) -> None:
        """Undo the ring of a chain that is not used any more: it is freed at once, not by the garbage collector."""
        del self._ring.before, self._ring.after


def unlink(node: Counted) -> None:
    """Take a node out of its chain, whichever that is."""
    before, after = node.before, node.after
    before.after, after.before = after, before


def unlink_all(nodes: Iterable[Counted]) -> None:
    """Undo all links between nodes that are not used any more, likewise."""
    for node in nodes:
        del node.before, node.after
