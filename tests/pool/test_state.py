"""Whatever happens in whatever order: the bounds hold, nobody is forgotten, and who came first is served first."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.pool.breaker import Breaker
from penstock.pool.endpoints import Endpoint
from penstock.pool.slots import Abandon, Close, Member, Open
from penstock.pool.state import PoolState

KEYS = ["a", "b", "c"]
CAPACITY = 3


class Caller:
    """A waiter that may lose interest, and may do so before the pool is told."""

    def __init__(self, key: str, ticket: int, weight: int) -> None:
        self.key, self.ticket, self.weight = key, ticket, weight
        self.gone = False
        self.member: Member[Any] | None = None
        self.cause: Exception | None = None

    def accept(self, member: Member[Any]) -> bool:
        if not self.gone:
            assert not member.share or self.weight, "shared with one who wants it alone"
            self.member = member
        return not self.gone

    def refuse(self, cause: Exception) -> bool:
        if not self.gone:
            self.cause = cause
        return not self.gone


class Machine(RuleBasedStateMachine):
    @initialize(
        most=st.integers(1, 4), least=st.integers(0, 2), total=st.integers(1, 6), max_uses=st.sampled_from([0, 0, 3])
    )
    def begin(self, most: int, least: int, total: int, max_uses: int) -> None:
        self.least = min(least, most, total)
        self.state: PoolState[int] = PoolState(
            max_connections=min(most, total),
            min_connections=self.least,
            max_total=total,
            max_uses=max_uses,
            capacity=CAPACITY,
            spread=lambda key: key == "b",
            kept=lambda key: key != "c",
        )
        self.endpoints = {key: [Endpoint(f"ws://{key}{n}", n, Breaker(lambda: 0.0)) for n in (1, 2)] for key in KEYS}
        self.now = 0.0
        self.tickets = 0
        self.connections = 0
        self.callers: list[Caller] = []
        self.lent: list[tuple[Member[int], int]] = []
        """With the weight of each loan; 0 for one that is not shared."""
        self.to_open: list[str] = []
        self.to_abandon: list[str] = []
        """Keys for each of which one of `to_open` is to be ended."""
        self.to_close: list[Member[int]] = []
        self.served: dict[str, int] = dict.fromkeys(KEYS, 0)

    def act(self) -> None:
        """Take over what is to be done, and what callers were given."""
        todo, self.state.todo = self.state.todo, []
        for action in todo:
            match action:
                case Open(key):
                    assert isinstance(key, str)
                    self.to_open.append(key)
                case Abandon(key):
                    assert isinstance(key, str)
                    self.to_abandon.append(key)
                case Close(member, reason):
                    assert reason
                    assert not any(member is lent for lent, _ in self.lent)
                    self.to_close.append(member)
        for caller in list(self.callers):
            if caller.member is not None or caller.cause is not None:
                self.callers.remove(caller)
                assert caller.ticket > self.served[caller.key], "overtaken"
                self.served[caller.key] = caller.ticket
                if caller.member is not None:
                    assert caller.member.expires_at > self.now, "past its lifetime"
                    self.lent.append((caller.member, caller.weight))

    @rule(key=st.sampled_from(KEYS), weight=st.sampled_from([0, 0, 1, 2, 3]))
    def acquire(self, key: str, weight: int) -> None:
        if self.state.closing:
            return
        member = self.state.take_share(key, weight, self.now) if weight else self.state.take(key, self.now)
        if member is not None:
            assert not any(caller.key == key and not caller.gone for caller in self.callers), "overtook"
            assert member.expires_at > self.now, "past its lifetime"
            self.lent.append((member, weight))
        else:
            self.tickets += 1
            caller = Caller(key, self.tickets, weight)
            self.callers.append(caller)
            self.state.wait(key, caller)
        self.act()

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), broken=st.sampled_from([None, None, "error"]))
    def give_back(self, data: st.DataObject, broken: str | None) -> None:
        self.give_back_one(data.draw(st.integers(0, len(self.lent) - 1)), broken)

    def give_back_one(self, at: int, broken: str | None = None) -> None:
        member, weight = self.lent.pop(at)
        if weight:
            self.state.give_back_share(member, weight, self.now, broken=broken)
        else:
            self.state.give_back(member, self.now, broken=broken)
        self.act()

    @precondition(lambda self: self.to_open)
    @rule(data=st.data(), works=st.booleans(), everyone=st.booleans(), lifetime=st.sampled_from([1.0, 5.0, 1000.0]))
    def connect_ends(self, data: st.DataObject, works: bool, everyone: bool, lifetime: float) -> None:
        key = self.to_open.pop(data.draw(st.integers(0, len(self.to_open) - 1)))
        if works:
            self.open_one(key, lifetime)
        else:
            self.state.failed(key, ConnectionRefusedError(), everyone=everyone)
        self.came_first(key)
        self.act()

    def came_first(self, key: str) -> None:
        """An opening has ended, and perhaps cannot be abandoned any more."""
        if self.to_abandon.count(key) > self.to_open.count(key):
            self.to_abandon.remove(key)

    @precondition(lambda self: self.to_abandon)
    @rule(data=st.data())
    def abandon_ends(self, data: st.DataObject) -> None:
        self.abandon_one(data.draw(st.integers(0, len(self.to_abandon) - 1)))

    def abandon_one(self, at: int) -> None:
        key = self.to_abandon.pop(at)
        self.to_open.remove(key)
        self.state.abandoned(key)
        self.act()

    def open_one(self, key: str, lifetime: float) -> None:
        self.connections += 1
        endpoint = self.endpoints[key][self.connections % 2]
        self.state.opened(Member(key, endpoint, self.connections, self.now, self.now + lifetime), self.now)

    @precondition(lambda self: self.to_close)
    @rule(data=st.data())
    def close_ends(self, data: st.DataObject) -> None:
        self.state.closed(self.to_close.pop(data.draw(st.integers(0, len(self.to_close) - 1))))
        self.act()

    @precondition(lambda self: self.callers)
    @rule(data=st.data(), told=st.booleans())
    def lose_interest(self, data: st.DataObject, told: bool) -> None:
        caller = data.draw(st.sampled_from(self.callers))
        caller.gone = True
        if told:
            self.callers.remove(caller)
            self.state.forget(caller.key, caller, self.now)
            self.act()

    @rule(data=st.data())
    def idle_connection_breaks(self, data: st.DataObject) -> None:
        idle = [member for slots in self.state.keys.values() for member in slots.idle]
        if idle:
            self.state.lost(data.draw(st.sampled_from(idle)), "peer")
            self.act()

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def lent_connection_breaks(self, data: st.DataObject) -> None:
        self.state.lost(data.draw(st.sampled_from(self.lent))[0], "peer")
        assert not self.state.todo

    @rule(seconds=st.floats(0, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.state.trim(self.now, max_idle_time=3)
        self.state.rotate(self.now, ahead=1)
        self.act()

    @rule(most=st.integers(1, 5))
    def resize(self, most: int) -> None:
        self.state.resize(most)
        assert self.state.min_connections == min(self.least, most)
        self.act()

    @rule(key=st.sampled_from(KEYS))
    def drain(self, key: str) -> None:
        self.state.drain(key)
        self.act()

    @rule(key=st.sampled_from(KEYS))
    def refill(self, key: str) -> None:
        self.state.refill(key)
        self.act()

    @precondition(lambda self: self.tickets > 5)
    @rule()
    def close(self) -> None:
        self.state.close(RuntimeError)
        self.act()

    @invariant()
    def counts_are_those_of_what_there_is(self) -> None:
        state = self.state
        assert state.total <= state.max_total
        assert state.total == sum(slots.total for slots in state.keys.values())
        assert state.waiting == sum(len(slots.waiters) for slots in state.keys.values())
        keys = state.keys.items()
        assert {key: slots.opening for key, slots in keys if slots.opening} == Counter(self.to_open)
        assert {key: slots.abandoned for key, slots in keys if slots.abandoned} == Counter(self.to_abandon)
        assert sum(slots.closing for slots in state.keys.values()) == len(self.to_close)
        lent = {member for member, _ in self.lent}
        assert sum(slots.leased for slots in state.keys.values()) == len(lent)
        for member in lent:
            weights = [weight for other, weight in self.lent if other is member]
            assert member.share == sum(weights) <= CAPACITY
            assert len(weights) == 1 or all(weights), "lent twice"
            assert (member in member.slots.shared) == (member.share > 0)
            assert not state.max_uses or member.uses <= state.max_uses
        for endpoint in self.endpoints["b"]:
            assert endpoint.leased == sum(member.endpoint is endpoint for member in lent)
        for key, slots in state.keys.items():
            assert slots.total == len(slots.idle) + slots.leased + slots.opening + slots.closing
            assert slots.leased == sum(member.key == key for member in lent)
            assert slots.alone + sum(waiter.weight for waiter in slots.waiters) - slots.weights == sum(
                not waiter.weight for waiter in slots.waiters
            )

    @invariant()
    def nobody_waits_beside_an_idle_connection_or_for_nothing(self) -> None:
        state = self.state
        idle = any(slots.idle for slots in state.keys.values())
        for_nobody = any(slots.coming > slots.wanted(CAPACITY) for slots in state.keys.values())
        making_place = bool(self.to_close or self.to_abandon)
        for slots in state.keys.values():
            if not slots.waiters:
                continue
            assert not slots.idle
            enough = slots.coming >= slots.alone + -(-slots.weights // CAPACITY)
            full = slots.total >= state.max_connections
            crowded = state.total >= state.max_total and (making_place or not (idle or for_nobody))
            unproven = state.total >= state.max_total and not slots.members and slots.coming > 0
            assert enough or full or crowded or unproven

    @invariant()
    def nothing_is_opened_any_more_once_the_pool_closes(self) -> None:
        if self.state.closing:
            assert Counter(self.to_open) == Counter(self.to_abandon)

    def teardown(self) -> None:
        """Let everything come to its end: whoever waits is served."""
        if not hasattr(self, "state"):
            return
        for _ in range(10_000):
            if self.to_close:
                self.close_ends_first()
            elif self.to_abandon:
                self.abandon_one(0)
            elif self.to_open:
                self.open_one(self.to_open.pop(0), 1000)
                self.act()
            elif self.lent:
                self.give_back_one(0)
            else:
                break
        assert not [caller for caller in self.callers if not caller.gone], "forgotten"

    def close_ends_first(self) -> None:
        self.state.closed(self.to_close.pop(0))
        self.act()


TestPoolState = Machine.TestCase
TestPoolState.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
