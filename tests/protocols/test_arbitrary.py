"""Any JSON goes through unchanged, and any message of a server is an event and no exception."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.protocols.batching import Batching
from penstock.protocols.calls import Failed, Reply
from penstock.protocols.jsonrpc import JsonRpc
from penstock.protocols.reading import without_lone_surrogates

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
PARAMS = st.lists(JSON, max_size=4) | st.dictionaries(st.text(max_size=5), JSON, max_size=4)
IDS = st.integers(-1, 5) | st.none() | st.text(max_size=2) | JSON
SERVER_ITEM = JSON | st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": JSON,
        "id": IDS,
        "result": JSON,
        "error": JSON | st.fixed_dictionaries({"code": JSON, "message": JSON}),
        "method": JSON,
        "params": JSON,
    },
)


@given(st.text(), PARAMS)
def test_calls_come_out_as_they_went_in(method: str, params: Any) -> None:
    rpc = JsonRpc()
    rpc.add(method, params, now=0.0)
    rpc.add(method, Raw(json.dumps(params).encode()), now=0.0)
    for number, frame in enumerate(rpc.due(lambda: 0.5), 1):
        assert json.loads(frame.text) == {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


@given(st.lists(JSON, min_size=1, max_size=5), st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_results_come_to_their_own_calls(results: list[Any], random: Any, array: bool, binary: bool) -> None:
    rpc = JsonRpc(Batching({"a"}))
    calls = [rpc.add("a", now=0.0) for _ in results]
    rpc.due(lambda: 0.5)
    replies = [{"id": call.id, "result": result} for call, result in zip(calls, results, strict=True)]
    random.shuffle(replies)
    events = []
    for message in [replies] if array else replies:
        text = json.dumps(message, ensure_ascii=False)
        events += rpc.receive(text.encode() if binary else text, now=1.0)
    values = {event.call: event.value() for event in events if isinstance(event, Reply)}
    assert [values[call] for call in calls] == results
    assert rpc.stats().sent == 0


@given(st.lists(SERVER_ITEM | st.lists(SERVER_ITEM, max_size=4), max_size=5))
def test_whatever_json_a_server_sends_settles_each_call_once_at_most(received: list[Any]) -> None:
    rpc = JsonRpc(Batching({"a"}))
    calls = [rpc.add(method, now=0.0) for method in ("a", "a", "b")]
    rpc.due(lambda: 0.5)
    events = [event for message in received for event in rpc.receive(json.dumps(message), now=1.0)]
    settled = [event.call for event in events if isinstance(event, Reply | Failed)]
    assert len(settled) == len(set(settled))
    assert {*settled, *[lost.call for lost in rpc.lost()]} == set(calls)


@given(st.text(st.characters()) | st.binary())
@example("[[" * 1000)
@example('{"id":1,"result":"\\ud800')
def test_garbage_settles_nothing_and_raises_nothing(message: str | bytes) -> None:
    rpc = JsonRpc()
    call = rpc.add("a", now=0.0)
    rpc.due(lambda: 0.5)
    rpc.receive(message, now=1.0)
    assert [lost.call for lost in rpc.lost()] == [call]


@given(st.lists(st.sampled_from(["\\\\", "\\ud83d", "\\ude00", "\\uD83D", "\\n", "x", "u", "d800", '\\"']), max_size=8))
def test_half_surrogate_pairs_are_replaced_and_nothing_else(parts: list[str]) -> None:
    text = f'"{"".join(parts)}"'
    repaired = without_lone_surrogates(text)
    wanted = json.loads(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert json.loads(text if repaired is None else repaired) == wanted
