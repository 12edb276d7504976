"""What a client sends is checked item by item, and its ids come back as they were. Cases as the design lists them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.errors import RpcError
from penstock.protocols.jsonrpc import JsonRpc
from penstock.protocols.requests import Asked, read_requests


def ask(message: object, **options: Any) -> Asked:
    return read_requests(json.dumps(message), **options)


def codes(answer: str | None) -> Any:
    assert answer is not None
    found = json.loads(answer)
    return [item["error"]["code"] for item in found] if isinstance(found, list) else found["error"]["code"]


def test_case_1_two_clients_with_the_same_id_get_their_own_replies() -> None:
    rpc = JsonRpc()
    for client, params in (("A", b"[1]"), ("B", b"[2]")):
        (request,) = read_requests(b'{"jsonrpc":"2.0","id":7,"method":"echo","params":' + params + b"}").requests
        rpc.add(request.method, request.params, now=0.0, owner=(client, request))
    frames = [json.loads(frame.text) for frame in rpc.due(lambda: 0.5)]
    assert [(frame["id"], frame["params"]) for frame in frames] == [(1, [1]), (2, [2])]
    replies = {}
    for number, value in ((2, "b"), (1, "a")):
        for event in rpc.receive(json.dumps({"id": number, "result": value}), now=1.0):
            client, request = event.call.owner  # type: ignore[union-attr]
            replies[client] = request.reply(event.raw)  # type: ignore[union-attr]
    assert replies == {
        "A": '{"jsonrpc":"2.0","id":7,"result":"a"}',
        "B": '{"jsonrpc":"2.0","id":7,"result":"b"}',
    }


def test_case_2_one_client_may_use_an_id_twice() -> None:
    first, second = [ask({"id": 1, "method": name}).requests[0] for name in "ab"]
    assert second.reply("b") == '{"jsonrpc":"2.0","id":1,"result":"b"}'
    assert first.reply("a") == '{"jsonrpc":"2.0","id":1,"result":"a"}'


def test_case_2_also_inside_an_array() -> None:
    first, second = ask([{"id": 1, "method": "a"}, {"id": 1, "method": "b"}]).requests
    assert second.reply("b") is None
    assert json.loads(first.reply("a") or "") == [
        {"jsonrpc": "2.0", "id": 1, "result": "a"},
        {"jsonrpc": "2.0", "id": 1, "result": "b"},
    ]


@pytest.mark.parametrize(
    "own", ["1", '"1"', "1.5", "0", "null", "9007199254740993", "-1", "1.50", "1e400", '"\\u00e9"', '""', "9" * 5000]
)
def test_case_3_ids_come_back_unchanged(own: str) -> None:
    (request,) = read_requests(f'{{"jsonrpc": "2.0", "id" : {own} , "method":"a"}}').requests
    assert request.reply(None) == f'{{"jsonrpc":"2.0","id":{own},"result":null}}'
    assert request.fail(Raw(b'{"code":1}')) == f'{{"jsonrpc":"2.0","id":{own},"error":{{"code":1}}}}'


def test_a_request_without_id_gets_no_reply() -> None:
    (request,) = ask({"method": "log", "params": {"a": 1}}).requests
    assert request.id is None
    assert request.reply(1) is None
    assert request.fail(RpcError(1, "x")) is None


def test_case_6_partial_errors_reach_the_right_places() -> None:
    first, second = ask([{"id": "a", "method": "a"}, {"id": "b", "method": "b"}]).requests
    assert first.fail(RpcError(-32000, "no", [1])) is None
    assert json.loads(second.reply(2) or "") == [
        {"jsonrpc": "2.0", "id": "a", "error": {"code": -32000, "message": "no", "data": [1]}},
        {"jsonrpc": "2.0", "id": "b", "result": 2},
    ]


def test_an_answer_counts_once() -> None:
    first, second = ask([{"id": 1, "method": "a"}, {"id": 2, "method": "b"}]).requests
    assert first.reply(1) is None
    assert first.reply(1) is None
    assert second.reply(2) is not None
    assert second.reply(2) is None


def test_case_9_an_empty_array_is_invalid() -> None:
    asked = ask([])
    assert asked.requests == ()
    assert codes(asked.answer) == -32600
    assert json.loads(asked.answer or "")["id"] is None


def test_case_9_an_array_of_no_request_has_an_answer_for_each_item() -> None:
    assert codes(ask([1]).answer) == [-32600]
    assert codes(ask([1, [], "a"]).answer) == [-32600] * 3


def test_case_9_notifications_alone_have_no_answer() -> None:
    asked = ask([{"method": "a"}, {"method": "b"}])
    assert asked.answer is None
    assert [request.reply(1) for request in asked.requests] == [None, None]


@pytest.mark.parametrize(
    ("item", "own"),
    [
        (1, None),
        (None, None),
        ([], None),
        ({}, None),
        ({"id": 1}, 1),
        ({"id": 1, "method": 5}, 1),
        ({"id": 1, "method": None}, 1),
        ({"id": "x", "method": "a", "params": 5}, "x"),
        ({"id": "x", "method": "a", "params": "text"}, "x"),
        ({"id": [], "method": "a"}, None),
        ({"id": {}, "method": "a"}, None),
        ({"id": True, "method": "a"}, None),
        ({"id": 1, "method": "a", "jsonrpc": "1.0"}, 1),
    ],
)
def test_case_10_a_malformed_item_is_answered_and_fails_no_other(item: object, own: object) -> None:
    single = ask(item)
    if isinstance(item, list):
        assert codes(single.answer) == -32600
    else:
        assert json.loads(single.answer or "")["id"] == own
    asked = ask([{"id": 5, "method": "good"}, item])
    (good,) = asked.requests
    assert (asked.answer, asked.invalid) == (None, 1)
    whole = json.loads(good.reply("fine") or "")
    assert [entry["id"] for entry in whole] == [5, own]
    assert whole[1]["error"]["code"] == -32600


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "[1",
        b"\xff",
        b'{"method":"\xff"}',
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"method":"\\ud800"}',
    ],
)
def test_case_17_what_is_no_json_is_a_parse_error(message: str | bytes) -> None:
    asked = read_requests(message)
    assert asked.requests == ()
    assert codes(asked.answer) == -32700


def test_a_method_that_no_number_can_be_is_invalid() -> None:
    assert codes(read_requests('{"id":1,"method":1e400}').answer) == -32600


def test_too_many_items_are_refused_together() -> None:
    asked = ask([{"id": 1, "method": "a"}] * 3, max_items=2)
    assert (asked.requests, asked.invalid) == ((), 3)
    assert "2 at most" in (asked.answer or "")


def test_case_17_json_in_a_binary_message_is_read() -> None:
    assert read_requests(b' {"method":"\\u0061","params":null}').requests[0].method == "a"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
ITEM = JSON | st.fixed_dictionaries(
    {}, optional={"jsonrpc": st.just("2.0"), "id": JSON, "method": st.text() | JSON, "params": JSON}
)


@given(ITEM | st.lists(ITEM, max_size=6))
def test_every_item_that_wants_an_answer_gets_one(message: Any) -> None:
    asked = ask(message)
    items = message if isinstance(message, list) and message else [message]
    assert len(asked.requests) + asked.invalid == len(items)
    answers = [answer for answer in (asked.answer, *[request.reply(1) for request in asked.requests]) if answer]
    wanted = asked.invalid + sum(request.id is not None for request in asked.requests)
    if isinstance(message, list) and message:
        assert len(answers) == (wanted > 0)
        assert not answers or len(json.loads(answers[0])) == wanted
    else:
        assert len(answers) == wanted


@given(st.binary() | st.text(st.characters()))
def test_garbage_raises_nothing(message: str | bytes) -> None:
    asked = read_requests(message)
    assert asked.requests or asked.answer
