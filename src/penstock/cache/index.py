"""Finding keys by their tags and by how they begin, without looking at all of them. Pure."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterable

_CHUNK = 512


class Tags:
    """Which keys have a tag, and which tags a key has."""

    __slots__ = ("_keys", "of")

    def __init__(self) -> None:
        self.of: dict[Hashable, tuple[str, ...]] = {}
        """The tags of each key that has any."""
        self._keys: dict[str, set[Hashable]] = {}

    def put(self, key: Hashable, tags: tuple[str, ...]) -> None:
        """Give a key these tags, and no others."""
        if tags == self.of.get(key, ()):
            return
        self.discard(key)
        if tags:
            self.of[key] = tags
        for tag in tags:
            self._keys.setdefault(tag, set()).add(key)

    def discard(self, key: Hashable) -> None:
        """A key has no tags any more."""
        for tag in self.of.pop(key, ()):
            keys = self._keys[tag]
            keys.discard(key)
            if not keys:
                del self._keys[tag]

    def having(self, tag: str) -> list[Hashable]:
        return list(self._keys.get(tag, ()))


class SortedKeys:
    """Texts in order: chunks of some hundred, so that adding one moves few others."""

    __slots__ = ("_chunks", "_lasts")

    def __init__(self, keys: Iterable[str]) -> None:
        every = sorted(keys)
        self._chunks = [every[at : at + _CHUNK] for at in range(0, len(every), _CHUNK)]
        self._lasts = [chunk[-1] for chunk in self._chunks]

    def add(self, key: str) -> None:
        """Add one that is not among them."""
        if not self._chunks:
            self._chunks, self._lasts = [[key]], [key]
            return
        at = min(bisect_left(self._lasts, key), len(self._lasts) - 1)
        chunk = self._chunks[at]
        insort(chunk, key)
        if len(chunk) > 2 * _CHUNK:
            self._chunks[at : at + 1] = chunk[:_CHUNK], chunk[_CHUNK:]
            self._lasts[at : at + 1] = chunk[_CHUNK - 1], chunk[-1]
        else:
            self._lasts[at] = chunk[-1]

    def remove(self, key: str) -> None:
        """Remove one that is among them."""
        at = bisect_left(self._lasts, key)
        chunk = self._chunks[at]
        del chunk[bisect_left(chunk, key)]
        if chunk:
            self._lasts[at] = chunk[-1]
        else:
            del self._chunks[at], self._lasts[at]

    def beginning_with(self, prefix: str) -> list[str]:
        found: list[str] = []
        for chunk in self._chunks[bisect_left(self._lasts, prefix) :]:
            start = bisect_left(chunk, prefix)
            here = [key for key in chunk[start:] if key.startswith(prefix)]
            found += here
            if start + len(here) < len(chunk):
                break
        return found
