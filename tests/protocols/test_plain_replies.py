"""Replies as nearly all are take a shorter way: whatever comes, it finds what looking through all of it finds."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import astuple

from penstock.errors import RpcError
from penstock.protocols.batching import Batching, Plan
from penstock.protocols.calls import Call, Reply
from penstock.protocols.jsonrpc import JsonRpc


class Always(Batching):
    def plan(self, method: str, chance: float) -> Plan:
        return Plan(method, array=True)

    def measured(self, plan: Plan, seconds: float) -> None:
        pass


def connection() -> JsonRpc:
    """With calls 1 to 6 under way, of which 3 to 6 went in two arrays, and 2 and 4 are forgotten."""
    rpc = JsonRpc(Always({"array"}))
    calls = []
    for methods in (["a", "a"], ["array", "array"], ["array", "array"]):
        calls += [rpc.add(method, now=0.0) for method in methods]
        rpc.due(lambda: 0.5)
    for number in (2, 4):
        rpc.forget(calls[number - 1], now=0.5)
    return rpc


def shown(value: Any) -> Any:
    """An event, to be compared with one of another connection."""
    match value:
        case Call():
            return f"call {value.id} {value.stage}"
        case Raw():
            return bytes(value)
        case RpcError():
            return value.code, value.message, value.data
        case tuple():
            return [shown(one) for one in value]
        case str() | bytes() | bool() | None:
            return value
        case _:
            return type(value).__name__, shown(astuple(value))


_absent = object()
_members: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from([_absent, 1, 1, 2, 3, 3, 4, 5, 6, 7, 1.0, "1", None, 0, True, -1, [1], 2**70]),
    "result": st.sampled_from([_absent, 1, 1, None, {"error": 1}, [], "\ud800"]),
    "error": st.sampled_from([_absent, _absent, _absent, None, {"code": 1, "message": "no"}, "text", {}]),
    "method": st.sampled_from([_absent, _absent, _absent, "told", 1, None]),
    "params": st.sampled_from([_absent, _absent, [1], None]),
    "jsonrpc": st.sampled_from([_absent, "2.0"]),
}
_objects = st.fixed_dictionaries(_members).map(
    lambda members: {name: value for name, value in members.items() if value is not _absent}
)
_anything = st.one_of(_objects, _objects, st.sampled_from([1, None, [], "text"]))
_messages = st.one_of(_objects, st.lists(_anything, max_size=5)).map(json.dumps)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.one_of(_messages, st.sampled_from(["", "[", "{}", "[]", " [ ]", '{"id":1', "nul"])), max_size=8))
def test_text_is_read_as_the_same_in_bytes_which_takes_the_long_way(messages: list[str]) -> None:
    short, long = connection(), connection()
    for now, message in enumerate(messages):
        expected = [shown(event) for event in long.receive(message.encode(), now=now)]
        assert [shown(event) for event in short.receive(message, now=now)] == expected
    assert short.stats() == long.stats()
    assert [shown(one) for one in short.lost()] == [shown(one) for one in long.lost()]


def test_one_bad_item_among_replies_of_an_array_spoils_none() -> None:
    rpc = connection()
    text = (
        '[{"id":3,"result":"three"},{"id":3,"result":"twice"},5,{"id":5,"result":"five"},{"id":6,"error":{"code":1}}]'
    )
    events = rpc.receive(text, now=1.0)
    assert [type(event).__name__ for event in events] == ["Reply", "Unsolicited", "Malformed", "Reply", "Failed"]
    assert [event.value() for event in events if isinstance(event, Reply)] == ["three", "five"]


def test_depth_is_bounded_where_the_interpreter_bounds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    rpc = connection()
    deep = "[" * 3000 + "]" * 3000
    monkeypatch.setattr("penstock.protocols.reading.getrecursionlimit", lambda: 100_000)
    (event,) = rpc.receive(f'{{"id":1,"result":{deep}}}', now=1.0)
    assert type(event).__name__ == "Malformed"
    (reply,) = rpc.receive('{"id":1,"result":[[[]]]}', now=1.0)
    assert isinstance(reply, Reply)
