"""What a pool tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A snapshot; counters count from the pool's making."""

    idle: int
    """Connections that wait to be lent."""
    in_use: int
    """Connections that are lent."""
    connecting: int
    """Connections that are being opened."""
    closing: int
    """Connections that are being closed."""
    waiting: int
    """Callers that wait for a connection."""
    max_connections: int
    """The bound for each URL."""
    min_connections: int
    """What each URL keeps."""
    max_total: int
    """The bound for all URLs."""
    immediate: int
    """Loans that did not wait."""
    waited: int
    """Loans that did."""
    timeouts: int
    """Callers that waited in vain."""
    cancelled: int
    """Callers that gave up."""
    errors: int
    """Callers that were told why no connection could be opened."""
    opened: int
    """Connections that were opened."""
    closed: dict[str, int] = field(default_factory=dict)
    """Connections that were closed, by reason."""
    dropped_messages: int = 0
    """Messages that arrived while nobody had borrowed their connection."""

    @property
    def size(self) -> int:
        """All connections, those that are being opened or closed among them."""
        return self.idle + self.in_use + self.connecting + self.closing
