"""How values are distributed, in little memory and time. Pure."""

from __future__ import annotations

from dataclasses import dataclass


class Histogram:
    """Durations in log-linear buckets: eight to each doubling, so that none is off by more than 6.25 %.

    Values are kept as whole nanoseconds. Below eight each has a bucket; above, ``8 * e + (value >> e)`` counts the
    eighths of octave ``e``.
    """

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._sum = 0

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
        buckets = tuple((_bound(index), number) for index, number in sorted(self._counts.items()))
        return HistogramSnapshot(sum(self._counts.values()), self._sum / 1e9, buckets)


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
