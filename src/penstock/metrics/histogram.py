"""How values are distributed, in little memory and time. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate


class Histogram:
    """Durations in log-linear buckets: eight to each doubling, so that none is off by more than 6.25 %.

    Values are kept as whole nanoseconds. Below eight each has a bucket; above, ``8 * e + (value >> e)`` counts the
    eighths of octave ``e``.
    """

    __slots__ = ("_counts", "_indices", "_last", "_sum")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._sum = 0
        self._last = EMPTY
        """The latest snapshot: given again while nothing was recorded."""
        self._indices: dict[int, float] = {}
        """Of the buckets at that time, ascending, with their bounds: used again while there are no others."""

    def record(self, seconds: float) -> None:
        """Add a duration; one below zero counts as zero."""
        value = int(seconds * 1e9)
        if value < 8:
            value = index = max(0, value)
        else:
            octave = value.bit_length() - 4
            index = (octave << 3) + (value >> octave)
        self._counts[index] = self._counts.get(index, 0) + 1
        self._sum += value

    def merge(self, other: Histogram) -> None:
        """Add what another has recorded."""
        for index, number in other._counts.items():
            self._counts[index] = self._counts.get(index, 0) + number
        self._sum += other._sum

    def snapshot(self) -> HistogramSnapshot:
        """What was recorded so far."""
        counts = self._counts
        if sum(counts.values()) == self._last.count:
            return self._last
        if len(counts) != len(self._indices):
            self._indices = {index: _bound(index) for index in sorted(counts)}
        indices = self._indices
        numbers = [counts[index] for index in indices]  # another thread may record meanwhile: they alone are counted
        snapshot = HistogramSnapshot(sum(numbers), self._sum / 1e9, tuple(zip(indices.values(), numbers, strict=True)))
        self._last = snapshot
        return snapshot


@dataclass(frozen=True, slots=True)
class HistogramSnapshot:
    """What a histogram had recorded."""

    count: int
    """Values."""
    sum: float
    """All values together, in seconds."""
    buckets: tuple[tuple[float, int], ...]
    """Upper bound in seconds, exclusive, and number of values, of each bucket that has any, ascending."""

    @property
    def mean(self) -> float:
        """Seconds; 0 without values."""
        return self.sum / self.count if self.count else 0.0

    def quantile(self, q: float) -> float:
        """The value in seconds that a part ``q`` of all does not exceed, within 6.25 %; 0 without values."""
        if not 0 <= q <= 1:
            raise ValueError(f"q={q!r}: must be at least 0 and at most 1")
        seen = 0
        for bound, number in self.buckets:
            seen += number
            if seen >= q * self.count:
                return _middle(bound)
        return 0.0

    def merged(self, other: HistogramSnapshot) -> HistogramSnapshot:
        """What both had recorded."""
        if not other.count:
            return self
        numbers = dict(self.buckets)
        for bound, number in other.buckets:
            numbers[bound] = numbers.get(bound, 0) + number
        return HistogramSnapshot(self.count + other.count, self.sum + other.sum, tuple(sorted(numbers.items())))

    def since(self, earlier: HistogramSnapshot) -> HistogramSnapshot:
        """What was recorded after an earlier snapshot; all of it if that is none of the same histogram."""
        if not earlier.count:
            return self
        before = dict(earlier.buckets)
        left = [(bound, number - before.pop(bound, 0)) for bound, number in self.buckets]
        if before or any(number < 0 for _, number in left):
            return self
        buckets = tuple([bucket for bucket in left if bucket[1]])
        return HistogramSnapshot(self.count - earlier.count, max(0.0, self.sum - earlier.sum), buckets)

    def quantile_since(self, earlier: HistogramSnapshot, q: float) -> float:
        """The quantile of what `since` finds, in less time."""
        count, before = self.count - earlier.count, earlier.buckets
        if count < 0:
            return self.quantile(q)
        last, above, found = len(before) - 1, 0, 0.0
        for bound, number in reversed(self.buckets):
            if last >= 0:
                its_bound, its_number = before[last]
                if its_bound >= bound:
                    number -= its_number  # noqa: PLW2901 - what is left of it
                    last -= 1
                    if its_bound > bound or number < 0:
                        return self.quantile(q)  # they are not of one histogram
            if number:
                found = bound
                above += number
                if count - above < q * count:
                    break
        return _middle(found) if found else 0.0

    def at_most(self, bounds: Sequence[float]) -> list[int]:
        """How many values do not exceed each of some ascending bounds, where each counts as the middle of its bucket.

        So ``quantile(q)`` exceeds a bound exactly where less than ``q * count`` values do not.
        """
        numbers = [0] * (len(bounds) + 1)
        for bound, number in self.buckets:
            numbers[bisect_left(bounds, _middle(bound))] += number
        return list(accumulate(numbers[:-1]))


EMPTY = HistogramSnapshot(0, 0.0, ())


@cache
def _bound(index: int) -> float:
    """The first value above a bucket, in seconds."""
    if index < 8:
        return (index + 1) / 1e9
    octave = (index >> 3) - 1
    return (index - (octave << 3) + 1 << octave) / 1e9


def _middle(bound: float) -> float:
    """The middle of the bucket that ends at ``bound``."""
    top = round(bound * 1e9)
    octave = max(0, (top - 1).bit_length() - 4)
    return (top - (1 << octave) / 2) / 1e9 if octave else (top - 1) / 1e9
