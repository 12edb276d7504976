"""Nodes one after the other, each of which can be taken out. Pure."""

from __future__ import annotations

from penstock.cache.entry import Counted


class Chain:
    """Nodes, linked in a ring that begins and ends with one that holds nothing."""

    __slots__ = ("_ring", "count")

    def __init__(self) -> None:
        ring = self._ring = Counted(None, None, 0.0, 0, ())
        ring.before = ring.after = ring
        self.count = 0

    @property
    def first(self) -> Counted:
        """Of a chain that has any."""
        return self._ring.after

    def append(self, node: Counted) -> None:
        ring = self._ring
        last = ring.before
        node.before, node.after = last, ring
        last.after = ring.before = node
        self.count += 1

    def remove(self, node: Counted) -> None:
        """Take out one that is in this chain."""
        before, after = node.before, node.after
        before.after, after.before = after, before
        self.count -= 1
