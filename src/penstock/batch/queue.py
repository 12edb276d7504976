"""What waits to be batched: what leaves when, in which order, and what is dropped. Pure.

Everything here is about messages that are not in a batch yet: what was taken is out of reach, and stays as it is.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from math import inf

from penstock.batch.entry import EXPIRED, OVERFLOW, Entry, Outcome
from penstock.batch.policy import BatchConfig
from penstock.message import URGENT, Content, Priority, content_of


class BatchQueue:
    """Messages in the order in which they leave: first come, first served, or by priority.

    By priority, each level is worth ``ageing`` seconds: a message goes before those of the level above that came more
    than ``ageing`` seconds later, and so none waits for ever. Messages of one level keep their order.

    Args:
        ordered: by priority.
        deduplicated: drop messages that have the type and content of an earlier one in the same batch.
    """

    def __init__(
        self, config: BatchConfig, *, ordered: bool = False, deduplicated: bool = False, ageing: float = 1.0
    ) -> None:
        self.count = 0
        """Messages."""
        self.size = 0
        """Bytes."""
        self.added = 0
        """Messages that were ever added; the number of the last one."""
        self.deduplicated = self.conflated = 0
        """Messages that another one stood for."""
        self.dropped: dict[Outcome, list[Entry]] = {}
        """What was dropped, for the owner to tell, and to clear."""
        self.flush_until = 0
        """Messages up to this number are due."""
        self.expires_first = inf
        """No message that waits expires earlier."""
        self.closing = False
        """Everything is due."""
        self.most, self.largest = config.full_batch
        self._config, self._ageing = config, ageing
        self._repeats, self._ordered = not deduplicated, ordered
        self._levels: list[deque[Entry]] = [deque() for _ in Priority] if ordered else [deque()]
        self._first = self._levels[0]
        self._keys: dict[str, Entry] = {}
        self._urgent = self._expiring = 0

    # Coming

    def has_room(self, entry: Entry, promised: int = 0, promised_bytes: int = 0) -> bool:
        """Whether a message may be added, when room for so many others is promised."""
        replaced = self._keys.get(entry.key) if entry.key is not None else None
        count, size = self.count + promised, self.size + promised_bytes
        if replaced is not None:
            return entry.size <= replaced.size or self._config.has_room(count - 1, size - replaced.size, entry.size)
        return self._config.has_room(count, size, entry.size)

    def add(self, entry: Entry, now: float) -> None:
        """Take a message. If one with its key waits, the later message takes the earlier one's place.

        The place stays the same, unless the later message is more urgent: then it queues up among its like.
        """
        if entry.key is not None and self._conflate(entry.key, entry):
            self.added += 1
            return
        if entry.level == URGENT:
            self._urgent += 1
        if entry.expires_at is not None:
            self._expiring += 1
            self.expires_first = min(self.expires_first, entry.expires_at)
        self.add_plain(entry, now)

    def add_plain(self, entry: Entry, now: float) -> None:
        """Take a message that has no key, is not urgent, and does not expire."""
        self.added = entry.seq = self.added + 1
        entry.added_at = now
        self.count += 1
        self.size += entry.size
        (self._levels[entry.level] if self._ordered else self._first).append(entry)

    def _conflate(self, key: str, entry: Entry) -> bool:
        earlier = self._keys.get(key)
        if earlier is None:
            self._keys[key] = entry
            return False
        self.conflated += 1
        if entry.level > earlier.level and self._ordered:
            self._levels[earlier.level].remove(earlier)
            self._forget(earlier)
            earlier.follow(entry)
            self._keys[key] = entry
            return False
        level = max(earlier.level, entry.level)
        self.size += entry.size - earlier.size
        self._urgent += (level == URGENT) - (earlier.level == URGENT)
        self._expiring += (entry.expires_at is not None) - (earlier.expires_at is not None)
        earlier.message, earlier.size, earlier.level = entry.message, entry.size, level
        earlier.expires_at = entry.expires_at
        if entry.expires_at is not None:
            self.expires_first = min(self.expires_first, entry.expires_at)
        entry.follow(earlier)
        return True

    def make_room(self, entry: Entry) -> bool:
        """Drop the oldest of the least urgent until there is room; False if that would be ``entry`` itself.

        The one with its key, whose place it takes, stays. If nothing makes room, nothing is dropped.
        """
        replaced = self._keys.get(entry.key) if entry.key is not None else None
        levels = self._levels[: entry.level + 1] if self._ordered else self._levels
        victims: list[Entry] = []
        size = 0
        for one in chain.from_iterable(levels):
            if self.has_room(entry, -len(victims), -size):
                break
            if one is not replaced:
                victims.append(one)
                size += one.size
        if not self.has_room(entry, -len(victims), -size):
            return False
        for victim in victims:
            (self._levels[victim.level] if self._ordered else self._first).remove(victim)
            self._drop(victim, OVERFLOW)
        return True

    def skip(self) -> None:
        """Count a message that repeats one that was added before."""
        self.added += 1
        self.deduplicated += 1

    def refuse(self, entry: Entry) -> None:
        """Accept a message, and drop it at once."""
        self.added += 1
        self.dropped.setdefault(OVERFLOW, []).append(entry)

    def drop_expired(self, now: float) -> None:
        """Drop what has expired."""
        if now < self.expires_first:
            return
        self.expires_first = inf
        for level in self._levels:
            entries = list(level)
            level.clear()
            for entry in entries:
                if _is_expired(entry, now):
                    self._drop(entry, EXPIRED)
                    continue
                level.append(entry)
                if entry.expires_at is not None:
                    self.expires_first = min(self.expires_first, entry.expires_at)

    # Going

    def due(self, now: float) -> str | None:
        """Why a batch should leave now, if so: ``urgent``, ``size``, ``bytes``, ``close``, ``manual``, ``tick`` or
        ``time``.
        """
        if not self.count:
            return None
        if self._urgent:
            return "urgent"
        if self._config.is_full(self.count, self.size):
            return "size" if self.count >= self.most else "bytes"
        if self.closing:
            return "close"
        oldest = self._oldest()
        if oldest.seq <= self.flush_until:
            return "manual"
        if oldest.added_at + self._config.batch_timeout <= now:
            return "time" if self._config.batch_timeout else "tick"
        return None

    def due_at(self) -> float:
        """When the oldest message will have waited long enough; there must be one."""
        return self._oldest().added_at + self._config.batch_timeout

    def holds(self, until: int) -> bool:
        """Whether a message up to this number still waits."""
        return self.count > 0 and self._oldest().seq <= until

    def take(self, now: float) -> list[Entry]:
        """The next batch: nothing that has expired, no more messages or bytes than fit, one message at least.

        Empty if nothing is left.
        """
        plain = not (self._urgent or self._expiring or self._keys) and self._repeats and not self._ordered
        if plain and self.count <= self.most and self.size <= self.largest:
            batch = list(self._first)
            self._first.clear()
            self.count = self.size = 0
            return batch
        return self._pick(now)

    def _pick(self, now: float) -> list[Entry]:
        batch: list[Entry] = []
        size = 0
        seen: dict[Content, Entry] = {}
        while self.count and len(batch) < self.most:
            queue = self._next_level()
            entry = queue[0]
            if _is_expired(entry, now):
                self._drop(queue.popleft(), EXPIRED)
                continue
            if not self._repeats and (first := seen.setdefault(content_of(entry.message), entry)) is not entry:
                self._forget(queue.popleft())
                entry.follow(first)
                self.deduplicated += 1
                continue
            if batch and size + entry.size > self.largest:
                break
            self._forget(queue.popleft())
            batch.append(entry)
            size += entry.size
        return batch

    def clear(self, outcome: Outcome) -> None:
        """Drop everything."""
        for level in self._levels:
            while level:
                self._drop(level.popleft(), outcome)

    def _next_level(self) -> deque[Entry]:
        """Where the message is that leaves next; there must be one."""
        chosen, least = self._first, inf
        for rank, level in enumerate(self._levels):
            if level and level[0].added_at - rank * self._ageing <= least:
                chosen, least = level, level[0].added_at - rank * self._ageing
        return chosen

    def _oldest(self) -> Entry:
        if not self._ordered:
            return self._first[0]
        return min((level[0] for level in self._levels if level), key=lambda entry: entry.seq)

    def _drop(self, entry: Entry, outcome: Outcome) -> None:
        self._forget(entry)
        self.dropped.setdefault(outcome, []).append(entry)

    def _forget(self, entry: Entry) -> None:
        """It has left its level."""
        self.count -= 1
        self.size -= entry.size
        if entry.key is not None:
            del self._keys[entry.key]
        if entry.level == URGENT:
            self._urgent -= 1
        if entry.expires_at is not None:
            self._expiring -= 1


def _is_expired(entry: Entry, now: float) -> bool:
    return entry.expires_at is not None and entry.expires_at <= now
