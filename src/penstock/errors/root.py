"""The root of the tree."""

from __future__ import annotations


class PerformanceError(Exception):
    """The root: ``except PerformanceError`` catches all that penstock itself raises."""
