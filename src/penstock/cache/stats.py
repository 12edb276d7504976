"""What a cache tells about itself."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.cache.shared.stats import SharedStats


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStats:
    """A snapshot; counters count from the cache's making. `hits` and `misses` together are all that was asked."""

    size: int
    """Entries, those among them whose time is over and that nobody has asked for since."""
    capacity: int
    """The bound of `size`."""
    size_bytes: int | None
    """What all values weigh; None where they are not bounded in bytes, and so not weighed."""
    max_bytes: int | None
    """The bound of `size_bytes`."""
    hits: int
    """Questions that were answered from the cache, those answered with a stale value among them."""
    misses: int
    """Questions that were not."""
    evictions: int
    """Entries that went for want of room, before their time was over."""
    expirations: int
    """Entries that went because their time was over."""
    refused: int
    """Values that were not stored because they are larger than ``max_bytes``, or ``max_size`` is 0."""
    coalesced: int
    """Misses that waited for a load which another had begun."""
    stale_hits: int
    """Hits that were answered with a stale value, while another was loaded."""
    loads: int
    """Loads that were begun."""
    load_errors: int
    """Loads that raised."""
    shared: SharedStats | None = None
    """Of the shared tier, if there is one."""

    @property
    def hit_ratio(self) -> float:
        """Hits in all that was asked, from 0 to 1; 0 before anything was."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0
