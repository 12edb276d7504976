"""Whatever is cancelled, refused, lost or answered twice: no call is forgotten, and no reply reaches another."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.protocols.batching import Batching, Plan
from penstock.protocols.calls import (
    Call,
    Event,
    Failed,
    Late,
    Malformed,
    Missing,
    Refused,
    Reply,
    Unsolicited,
)
from penstock.protocols.jsonrpc import JsonRpc


class Tossed(Batching):
    """Arrays by chance, and no end of them."""

    def allows(self, method: str) -> bool:
        return method == "a"

    def plan(self, method: str, chance: float) -> Plan:
        return Plan(method, array=chance < 0.7)

    def measured(self, plan: Plan, seconds: float) -> None:
        assert seconds >= 0

    def refused(self) -> None:
        self.refusals += 1
        self.serial = self.refusals > 2


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.batching = Tossed({"a"}, max_items=3)
        self.now = 0.0
        self.added = 0
        self.begin()

    def begin(self) -> None:
        self.rpc = JsonRpc(self.batching, max_forgotten=4)
        self.pending: dict[Call, None] = {}
        self.gone: set[Call] = set()
        """Forgotten, so that nothing may be told of them but that a reply came late."""
        self.unanswered: list[Call] = []
        self.arrays: list[list[Call]] = []
        """At the server, that it has answered nothing of."""
        self.last_id = 0

    def settle(self, call: Call) -> None:
        assert call in self.pending, "settled twice, or never asked"
        del self.pending[call]

    def receive(self, message: Any) -> list[Event]:
        self.now += 1.0
        events = self.rpc.receive(json.dumps(message), now=self.now)
        for event in events:
            match event:
                case Reply(call):
                    assert event.value() == call.owner, "another's reply"
                    self.settle(call)
                case Failed(call, error):
                    assert error.data == call.owner, "another's error"
                    self.settle(call)
                case Refused(_, _, again, failed):
                    for call in again + failed:
                        self.settle(call)
                case Late(call):
                    assert call in self.gone
                case Missing(calls):
                    assert set(calls) <= set(self.pending)
                case Unsolicited() | Malformed():
                    pass
        return events

    @rule(method=st.sampled_from(["a", "a", "b"]), idempotent=st.booleans())
    def add(self, method: str, idempotent: bool) -> None:
        call = self.rpc.add(method, [len(self.pending)], now=self.now, idempotent=idempotent)
        self.added += 1
        call.owner = self.added
        self.pending[call] = None

    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        in_flight = bool(self.arrays) or any(
            call.array is not None and call.array.unanswered for call in self.unanswered
        )
        frames = self.rpc.due(lambda: data.draw(st.floats(0, 1, exclude_max=True)))
        for frame in frames:
            message = json.loads(frame.text)
            assert isinstance(message, list) == (len(frame.calls) > 1), "an array of one"
            items = message if isinstance(message, list) else [message]
            assert len(items) <= 3
            for item, call in zip(items, frame.calls, strict=True):
                self.last_id += 1
                assert item["id"] == call.id == self.last_id, "not strictly increasing"
                self.unanswered.append(call)
            if len(items) > 1:
                assert all(item["method"] == "a" for item in items)
                self.arrays.append(list(frame.calls))
        if self.batching.serial:
            arrays = sum(len(frame.calls) > 1 for frame in frames)
            assert arrays + in_flight <= 1 or not arrays

    def answer(self, call: Call, fails: bool) -> dict[str, Any]:
        self.unanswered.remove(call)
        self.arrays = [array for array in self.arrays if call not in array]
        if fails:
            return {"id": call.id, "error": {"code": 1, "message": "no", "data": call.owner}}
        return {"id": call.id, "result": call.owner}

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data(), fails=st.booleans(), twice=st.booleans())
    def answer_one(self, data: st.DataObject, fails: bool, twice: bool) -> None:
        call = data.draw(st.sampled_from(self.unanswered))
        message = self.answer(call, fails)
        self.receive(message)
        assert call not in self.pending
        if twice:
            self.receive(message)

    @precondition(lambda self: self.unanswered)
    @rule(data=st.data(), foreign=st.booleans())
    def answer_some(self, data: st.DataObject, foreign: bool) -> None:
        calls = data.draw(
            st.lists(st.sampled_from(self.unanswered), min_size=1, max_size=5, unique_by=lambda call: call.id)
        )
        items: list[Any] = [self.answer(call, fails=False) for call in calls]
        if foreign:
            items += [items[0], 5, {"id": 10_000, "result": 1}, {"id": "1", "result": 1}]
        self.receive(data.draw(st.permutations(items)))
        assert not set(calls).intersection(self.pending)

    @precondition(lambda self: self.arrays)
    @rule(data=st.data())
    def refuse_array(self, data: st.DataObject) -> None:
        array = data.draw(st.sampled_from(self.arrays))
        self.arrays.remove(array)
        for call in array:
            self.unanswered.remove(call)
        self.receive({"id": None, "error": {"code": -32600, "message": "no", "data": None}})

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        call = data.draw(st.sampled_from(list(self.pending)))
        del self.pending[call]
        self.gone.add(call)
        self.rpc.forget(call, now=self.now)

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        lost = self.rpc.lost()
        assert len(lost) == len(self.pending), "forgotten"
        assert {each.call for each in lost} == set(self.pending)
        for each in lost:
            assert each.written == (each.call.id > 0)
            assert each.may_send_again or (each.call.id and not each.call.idempotent)
        self.begin()

    @invariant()
    def what_is_pending_is_counted(self) -> None:
        stats = self.rpc.stats()
        assert stats.waiting + stats.sent == len(self.pending)
        assert stats.forgotten <= 4

    def teardown(self) -> None:
        """All that the server still has is answered: nobody is left but whose refusal could not be told apart."""
        self.flush_all()
        for call in list(self.unanswered):
            self.receive(self.answer(call, fails=False))
        assert not self.pending, "never settled"

    def flush_all(self) -> None:
        for frame in self.rpc.due(lambda: 0.5):
            self.unanswered += frame.calls


TestJsonRpc = Machine.TestCase
TestJsonRpc.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
