"""Nodes one after the other, each of which can be taken out. Pure."""

from __future__ import annotations

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


def unlink(node: Counted) -> None:
    """Take a node out of its chain, whichever that is."""
    before, after = node.before, node.after
    before.after, after.before = after, before
