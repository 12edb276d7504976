"""Contents that were added a short while ago. Pure."""

from __future__ import annotations

from hashlib import blake2b

from penstock.batch.entry import DELIVERED, Entry
from penstock.message import content_of

_MOST = 65_536


class RecentContents:
    """Finds repeats within some seconds of the first message, among the last 65,536 different ones.

    Args:
        seconds: how long a content is remembered.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[bytes, tuple[float, Entry]] = {}
        """In the order of their times."""

    def find(self, entry: Entry, now: float) -> Entry | None:
        """The message that ``entry`` repeats, unless that was dropped; if there is none, ``entry`` is remembered."""
        earlier = self.peek(entry, now)
        if earlier is None:
            digest = _digest(entry)
            self._seen.pop(digest, None)
            self._seen[digest] = now + self._seconds, entry
        return earlier

    def peek(self, entry: Entry, now: float) -> Entry | None:
        """The message that ``entry`` repeats, if there is one that was not dropped."""
        seen = self._seen
        while seen and (len(seen) >= _MOST or next(iter(seen.values()))[0] <= now):
            del seen[next(iter(seen))]
        _, earlier = seen.get(_digest(entry), (now, None))
        return earlier if earlier is not None and earlier.outcome in (None, DELIVERED) else None


def _digest(entry: Entry) -> bytes:
    kind, data = content_of(entry.message)
    content = data.encode() if isinstance(data, str) else data
    return blake2b(content, digest_size=16, person=kind.value.encode()).digest()
