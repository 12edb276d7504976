"""Whatever happens in whatever order: each policy does what a plain model of it does, and the books are right."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock import EvictionPolicy, MessageCache

KEYS = st.sampled_from(["a1", "a2", "b1", "b2", "b3", 1, 2, b"a1"])
TAGS = st.sampled_from([(), (), ("t",), ("u", "t")])


class Model:
    """Entries in the order in which they came, and slow ways to find who has to go."""

    def __init__(self) -> None:
        self.entries: dict[Hashable, dict[str, Any]] = {}
        self.ticks = 0

    def tick(self) -> int:
        self.ticks += 1
        return self.ticks

    def add(self, key: Hashable, **entry: Any) -> None:
        self.entries[key] = {"came": self.tick(), "used": self.tick(), "visits": 0, **entry}
        self.came(key)

    def came(self, key: Hashable) -> None: ...

    def use(self, key: Hashable) -> None:
        self.entries[key]["used"] = self.tick()
        self.entries[key]["visits"] += 1

    def remove(self, key: Hashable) -> None:
        del self.entries[key]

    def clear(self) -> None:
        self.entries.clear()

    def victim(self) -> Hashable:
        """Who goes next; it is removed."""
        raise NotImplementedError

    def pop(self, key: Hashable) -> Hashable:
        del self.entries[key]
        return key


class LruModel(Model):
    def victim(self) -> Hashable:
        return self.pop(min(self.entries, key=lambda key: self.entries[key]["used"]))


class SoonestModel(Model):
    def victim(self) -> Hashable:
        """Of equals any: the machine looks at the time alone."""
        return self.pop(min(self.entries, key=lambda key: self.entries[key]["expires"]))


class LfuModel(Model):
    age = 0

    def clear(self) -> None:
        super().clear()
        self.age = 0

    def came(self, key: Hashable) -> None:
        self.entries[key] |= {"total": 1, "rank": self.age + 1, "placed": self.tick()}

    def victim(self) -> Hashable:
        while True:
            key = min(self.entries, key=lambda key: (self.entries[key]["rank"], self.entries[key]["placed"]))
            entry = self.entries[key]
            self.age = entry["rank"]
            if not entry["visits"]:
                return self.pop(key)
            entry["total"] += entry["visits"]
            entry |= {"visits": 0, "rank": self.age + entry["total"], "placed": self.tick()}


class S3FifoModel(Model):
    def __init__(self) -> None:
        super().__init__()
        self.small: list[Hashable] = []
        self.main: list[Hashable] = []
        self.gone: list[list[Any]] = []
        """Hashes of keys, which text shares with the same bytes, and whether they have not come back since."""

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]

    def came(self, key: Hashable) -> None:
        known = any(one == hash(key) and away for one, away in self.gone)
        (self.main if known else self.small).append(key)
        self.mark(hash(key), away=False)

    def mark(self, hashed: int, *, away: bool) -> None:
        for one in self.gone:
            if one[0] == hashed:
                one[1] = away

    def remember(self, key: Hashable) -> None:
        self.mark(hash(key), away=True)
        self.gone.append([hash(key), True])
        while len(self.gone) > len(self.entries):
            self.mark(self.gone.pop(0)[0], away=False)

    def remove(self, key: Hashable) -> None:
        entry = self.entries.pop(key)
        if key in self.main or entry["visits"]:
            self.remember(key)
        for queue in (self.small, self.main):
            if key in queue:
                queue.remove(key)

    def victim(self) -> Hashable:
        while True:
            if len(self.small) * 10 >= len(self.entries) or not self.main:
                key = self.small.pop(0)
                if self.entries[key]["visits"]:
                    self.entries[key]["visits"] = 0
                    self.main.append(key)
                    continue
                self.remember(key)
            else:
                key = self.main.pop(0)
                if self.entries[key]["visits"]:
                    self.entries[key]["visits"] = min(3, self.entries[key]["visits"]) - 1
                    self.main.append(key)
                    continue
            return self.pop(key)


MODELS: dict[EvictionPolicy, type[Model]] = {
    EvictionPolicy.LRU: LruModel,
    EvictionPolicy.LFU: LfuModel,
    EvictionPolicy.TTL: SoonestModel,
    EvictionPolicy.S3_FIFO: S3FifoModel,
}


class Machine(RuleBasedStateMachine):
    policy: EvictionPolicy

    @initialize(size=st.integers(1, 5), weight=st.sampled_from([None, 6, 20]))
    def begin(self, size: int, weight: int | None) -> None:
        self.now = 0.0
        self.size, self.most = size, 10**9 if weight is None else weight
        self.weighed = weight is not None
        self.told: list[tuple[Any, Any, str]] = []
        self.expected: list[tuple[Any, Any, str]] = []
        self.model = MODELS[self.policy]()
        self.cache = MessageCache(
            size,
            ttl=10,
            eviction_policy=self.policy,
            max_bytes=weight,
            clock=lambda: self.now,
            size_of=len,
            on_evict=lambda *what: self.told.append(what),
        )
        self.gets = self.number = 0

    @property
    def weight(self) -> int:
        return sum(len(entry["value"]) for entry in self.model.entries.values()) if self.weighed else 0

    def leaves(self, key: Hashable, cause: str) -> None:
        self.expected.append((key, self.model.entries[key]["value"], cause))

    @rule(key=KEYS, ttl=st.sampled_from([None, 0, 1, 5, 5, 20]), tags=TAGS, length=st.integers(1, 8))
    def set(self, key: Hashable, ttl: float | None, tags: tuple[str, ...], length: int) -> None:
        self.number += 1
        value = f"{self.number:08d}"[-length:]
        self.cache.set(key, value, ttl, tags)
        entries = self.model.entries
        fits = ttl != 0 and (not self.weighed or length <= self.most)
        if key in entries:
            self.leaves(key, "replaced")
            old = len(entries[key]["value"]) if self.weighed else 0
            if fits and self.weight - old + length <= self.most:
                self.model.use(key)
                entries[key] |= {"value": value, "tags": tags, "expires": self.now + (10 if ttl is None else ttl)}
                return
            self.model.remove(key)
        if not fits:
            return
        while len(entries) >= self.size or self.weight + length * self.weighed > self.most:
            self.evict()
        self.model.add(key, value=value, tags=tags, expires=self.now + (10 if ttl is None else ttl))

    def evict(self) -> None:
        """As the model says; where several expire at the same time, as the cache did."""
        entries = dict(self.model.entries)
        key = self.model.victim()
        if self.policy is EvictionPolicy.TTL:
            told = self.told[len(self.expected)][0]
            assert entries[told]["expires"] == entries[key]["expires"]
            self.model.entries = {name: entry for name, entry in entries.items() if name != told}
            key = told
        cause = "capacity" if entries[key]["expires"] > self.now else "expired"
        self.expected.append((key, entries[key]["value"], cause))

    @rule(key=KEYS)
    def get(self, key: Hashable) -> None:
        self.gets += 1
        value = self.cache.get(key)
        entry = self.model.entries.get(key)
        if entry is None:
            assert value is None
        elif entry["expires"] <= self.now:
            assert value is None
            self.leaves(key, "expired")
            self.model.remove(key)
        else:
            assert value == entry["value"]
            self.model.use(key)

    @rule(key=KEYS)
    def delete(self, key: Hashable) -> None:
        there = key in self.model.entries
        assert self.cache.delete(key) == there
        if there:
            self.leaves(key, "deleted")
            self.model.remove(key)

    @rule(tag=st.sampled_from(["t", "u", "v"]))
    def invalidate_tag(self, tag: str) -> None:
        self.invalidated([key for key, entry in self.model.entries.items() if tag in entry["tags"]], tag=tag)

    @rule(prefix=st.sampled_from(["a", "b", "b1", "", "c"]))
    def invalidate_prefix(self, prefix: str) -> None:
        keys = [key for key in self.model.entries if isinstance(key, str) and key.startswith(prefix)]
        self.invalidated(keys, prefix=prefix)

    def invalidated(self, keys: list[Hashable], **which: str) -> None:
        start = len(self.told)
        assert self.cache.invalidate(**which) == len(keys)
        gone = self.told[start:]
        assert {key for key, _, _ in gone} == set(keys)
        for key, _, _ in gone:  # in whatever order
            self.leaves(key, "invalidated")
            self.model.remove(key)

    @rule()
    def clear(self) -> None:
        start = len(self.told)
        self.cache.clear()
        for key, _, _ in self.told[start:]:
            self.leaves(key, "cleared")
        assert len(self.told) - start == len(self.model.entries)
        self.model.clear()

    @rule(seconds=st.sampled_from([0.5, 1, 5, 20]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def the_cache_holds_what_the_model_does(self) -> None:
        if not hasattr(self, "cache"):
            return
        assert self.told == self.expected
        stats = self.cache.get_cache_stats()
        assert stats.size == len(self.model.entries) <= self.size
        assert (stats.size_bytes or 0) == self.weight <= self.most
        assert stats.hits + stats.misses == self.gets
        assert stats.evictions == sum(cause == "capacity" for _, _, cause in self.told)
        assert stats.expirations == sum(cause == "expired" for _, _, cause in self.told)


@pytest.mark.parametrize("policy", EvictionPolicy)
def test_a_cache_does_what_its_model_does(policy: EvictionPolicy) -> None:
    machine = type(f"{policy.name}Machine", (Machine,), {"policy": policy})
    test = machine.TestCase  # type: ignore[attr-defined]
    test.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
    test("runTest").runTest()
