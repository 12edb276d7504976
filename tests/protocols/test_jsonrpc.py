"""The client's end of a JSON-RPC connection. The numbers are of the cases that the design lists.

Left for ``rpc/`` and the proxy: 15 and 16 (queues and limits of one client), 19 (single flight), and the writing part
of 8 and 20.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from penstock.errors import InvalidReply, RpcError, SerializationError
from penstock.protocols import messages
from penstock.protocols.batching import Batching, Plan
from penstock.protocols.calls import (
    Call,
    Failed,
    Frame,
    Late,
    Malformed,
    Missing,
    Notified,
    Refused,
    Reply,
    Requested,
    Stage,
    Unsolicited,
)
from penstock.protocols.jsonrpc import JsonRpc


class Always(Batching):
    """Arrays whenever there may be one."""

    def plan(self, method: str, chance: float) -> Plan:
        return Plan(method, array=True)

    def measured(self, plan: Plan, seconds: float) -> None:
        pass


def never() -> float:
    return 0.999


def batched(**options: Any) -> JsonRpc:
    return JsonRpc(Always({"a", "b", "read", "write"}, **options))


def sent(rpc: JsonRpc) -> list[Any]:
    return [json.loads(frame.text) for frame in rpc.due(never)]


def call(rpc: JsonRpc, method: str = "a", params: Any = None, **options: Any) -> Call:
    added = rpc.add(method, params, now=0.0, **options)
    rpc.due(never)
    return added


def calls(rpc: JsonRpc, *methods: str, **options: Any) -> list[Call]:
    added = [rpc.add(method, now=0.0, **options) for method in methods]
    rpc.due(never)
    return added


def array(rpc: JsonRpc, count: int, method: str = "a", **options: Any) -> list[Call]:
    return calls(rpc, *[method] * count, **options)


def result(number: object, value: object = "ok") -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "result": value}


def error(number: object, code: int = -32000, message: str = "no") -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}


def receive(rpc: JsonRpc, message: object) -> list[Any]:
    return rpc.receive(json.dumps(message), now=1.0)


def answered(events: list[Any]) -> dict[Call, Any]:
    return {event.call: event.value() for event in events if isinstance(event, Reply)}


# Out


def test_a_call_goes_out_with_the_first_id() -> None:
    rpc = JsonRpc()
    rpc.add("eth_chainId", now=0.0)
    assert [frame.text for frame in rpc.due(never)] == ['{"jsonrpc":"2.0","id":1,"method":"eth_chainId"}']
    assert rpc.due(never) == []


def test_parameters_go_out_as_they_are() -> None:
    rpc = JsonRpc()
    rpc.add("a", ["0x1", False, None, 2**53 + 1, 1.0, "é"], now=0.0)
    rpc.add("a", Raw(b'{"b":1.50,"a":[ ]}'), now=0.0)
    first, second = [frame.text for frame in rpc.due(never)]
    assert first.endswith('"params":["0x1",false,null,9007199254740993,1.0,"é"]}')
    assert second.endswith('"params":{"b":1.50,"a":[ ]}}')


def test_ids_are_in_the_order_of_sending() -> None:
    rpc = JsonRpc()
    first, second = rpc.add("a", now=0.0), rpc.add("b", now=0.0)
    rpc.forget(first, now=0.0)
    third = rpc.add("c", now=0.0)
    assert [item["id"] for item in sent(rpc)] == [1, 2]
    assert (first.id, second.id, third.id) == (0, 1, 2)


@pytest.mark.parametrize("params", ["text", 1, object(), {"a": object()}, "\ud800", ["\ud800"], Raw(b'"a"'), 1.5])
def test_case_10_what_is_no_json_fails_alone(params: Any) -> None:
    rpc = JsonRpc()
    good = rpc.add("a", now=0.0)
    with pytest.raises(SerializationError, match="'b'"):
        rpc.add("b", params, now=0.0)
    assert len(sent(rpc)) == 1
    assert answered(receive(rpc, result(1))) == {good: "ok"}


def test_endless_parameters_fail_alone() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(SerializationError):
        JsonRpc().add("a", endless, now=0.0)


def test_a_method_that_is_no_text_fails_alone() -> None:
    with pytest.raises(SerializationError, match="no method"):
        JsonRpc().add("\ud800", now=0.0)
    with pytest.raises(SerializationError, match="no method"):
        JsonRpc().add(None, now=0.0)  # type: ignore[arg-type]


def test_a_notification_is_not_awaited() -> None:
    rpc = JsonRpc()
    assert json.loads(rpc.notify("log", ["x"])) == {"jsonrpc": "2.0", "method": "log", "params": ["x"]}
    assert json.loads(rpc.notify("log")) == {"jsonrpc": "2.0", "method": "log"}
    assert rpc.stats().sent == 0


# Arrays


def test_calls_that_are_due_together_go_as_an_array() -> None:
    rpc = batched()
    for method in ("a", "b", "subscribe", "a"):
        rpc.add(method, now=0.0)
    alone, together = sent(rpc)
    assert alone["method"] == "subscribe"
    assert [item["method"] for item in together] == ["a", "b", "a"]
    assert [alone["id"], *[item["id"] for item in together]] == [1, 2, 3, 4]


def test_case_9_there_is_never_an_array_of_one() -> None:
    rpc = batched(max_items=2)
    for _ in range(3):
        rpc.add("a", now=0.0)
    pair, single = sent(rpc)
    assert len(pair) == 2
    assert isinstance(single, dict)
    rpc.add("a", now=0.0)
    rpc.add("a", now=0.0, alone=True)
    assert all(isinstance(item, dict) for item in sent(rpc))
    rpc.add("a", now=0.0)
    rpc.add("subscribe", now=0.0)
    assert all(isinstance(item, dict) for item in sent(rpc))


def test_an_array_has_no_more_than_so_many_bytes() -> None:
    rpc = batched(max_bytes=1000)
    for size in (300, 300, 300, 2000, 10, 10):
        rpc.add("a", ["é" * (size // 2)], now=0.0)
    frames = rpc.due(never)
    assert [len(frame.calls) for frame in frames] == [2, 1, 1, 2]
    assert all(len(frame.text.encode()) <= 1000 for frame in frames if len(frame.calls) > 1)


# In


def test_case_4_a_fast_call_is_answered_before_a_slow_one() -> None:
    rpc = JsonRpc()
    slow, fast = calls(rpc, "slow", "fast")
    assert answered(receive(rpc, result(2, "fast"))) == {fast: "fast"}
    assert answered(receive(rpc, result(1, "slow"))) == {slow: "slow"}


def test_case_5_replies_match_in_any_order_as_an_array_or_singly() -> None:
    rpc = batched()
    one, two, three = array(rpc, 3)
    assert answered(receive(rpc, result(2))) == {two: "ok"}
    assert answered(receive(rpc, [result(3), result(1)])) == {three: "ok", one: "ok"}
    first, second = calls(rpc, "x", "y")
    assert answered(receive(rpc, [result(5), result(4)])) == {first: "ok", second: "ok"}


def test_case_5_missing_doubled_and_foreign_ids_hurt_nobody_else() -> None:
    rpc = batched()
    one, two, three = array(rpc, 3)
    events = receive(rpc, [result(1), result(1, "again"), result(77), result("2"), result(True), result([2]), 5, [6]])
    assert answered(events) == {one: "ok"}
    assert [type(event) for event in events] == [
        Reply,
        *[Unsolicited] * 5,
        *[Malformed] * 2,
        Missing,
    ]
    assert events[-1] == Missing((two, three))
    assert two.stage is Stage.SENT
    assert answered(receive(rpc, [result(2), result(3)])) == {two: "ok", three: "ok"}
    stats = rpc.stats()
    assert (stats.unsolicited, stats.malformed, stats.missing, stats.sent) == (5, 2, 2, 0)


def test_case_6_partial_errors_reach_the_right_callers() -> None:
    rpc = batched()
    one, two, three = array(rpc, 3)
    events = receive(rpc, [error(3, -32601, "unknown"), result(1, [1]), error(2, 3, "reverted")])
    assert answered(events) == {one: [1]}
    failed = {event.call: event.error for event in events if isinstance(event, Failed)}
    assert (failed[two].code, failed[two].message) == (3, "reverted")
    assert (failed[three].code, failed[three].message) == (-32601, "unknown")


def test_case_7_one_error_without_id_refuses_a_whole_array() -> None:
    for message in (error(None, -32600), [error(None, -32600)], {"error": {"code": -32600, "message": "no"}}):
        rpc = batched()
        single = call(rpc, "other")
        again, failed = array(rpc, 2)
        again.idempotent = True
        (event,) = receive(rpc, message)
        assert isinstance(event, Refused)
        assert (event.again, event.failed, event.error.code) == ((again,), (failed,), -32600)
        assert single.stage is Stage.SENT
        assert rpc.stats().sent == 1
        assert rpc.stats().refused == 1


def test_case_7_calls_of_a_refused_array_that_were_forgotten_are_not_sent_again() -> None:
    rpc = batched()
    gone, stays = array(rpc, 2, idempotent=True)
    rpc.forget(gone, now=1.0)
    (event,) = receive(rpc, error(None))
    assert (event.again, event.failed) == ((stays,), ())
    assert rpc.stats().forgotten == 0


def test_case_7_what_is_sent_again_goes_alone_and_there_are_no_more_arrays() -> None:
    rpc = batched()
    array(rpc, 3, idempotent=True, owner="caller")
    (event,) = receive(rpc, error(None))
    repeated = [rpc.add_again(call, now=1.0) for call in event.again]
    others = [rpc.add("a", now=1.0) for _ in range(3)]
    frames = sent(rpc)
    assert [item["id"] for item in frames] == [4, 5, 6, 7, 8, 9]
    assert [call.owner for call in repeated] == ["caller"] * 3
    assert set(answered([event for item in frames for event in receive(rpc, result(item["id"]))])) == {
        *repeated,
        *others,
    }


def test_case_7_of_two_arrays_the_one_without_any_answer_was_refused() -> None:
    rpc = batched()
    first, second = array(rpc, 2, idempotent=True), array(rpc, 2, idempotent=True)
    assert receive(rpc, error(None)) == []  # it may be either
    events = receive(rpc, result(1))
    assert isinstance(events[0], Reply)
    assert isinstance(events[1], Refused)
    assert events[1].again == tuple(second)
    assert first[1].stage is Stage.SENT


def test_case_7_two_errors_for_two_arrays_refuse_both() -> None:
    rpc = batched()
    first, second = array(rpc, 2), array(rpc, 2)
    assert receive(rpc, error(None, -1)) == []
    events = receive(rpc, error(None, -2))
    assert [(event.failed, event.error.code) for event in events] == [(tuple(first), -1), (tuple(second), -2)]


def test_case_7_two_errors_for_three_arrays_wait_for_one_answer() -> None:
    rpc = batched()
    first, second, third = array(rpc, 2), array(rpc, 2), array(rpc, 2)
    assert receive(rpc, error(None)) == []
    assert receive(rpc, error(None)) == []
    events = receive(rpc, [result(second[0].id), result(first[0].id)])
    assert [type(event) for event in events] == [Reply, Refused, Refused, Unsolicited, Missing]
    assert [event.failed for event in events[1:3]] == [tuple(first), tuple(third)]


def test_case_7_an_error_for_an_array_that_is_gone_is_unsolicited() -> None:
    rpc = JsonRpc(Always({"a"}), max_forgotten=0)
    first, second = array(rpc, 2), array(rpc, 2)
    assert receive(rpc, error(None)) == []
    rpc.forget(second[0], now=1.0)
    assert [type(event) for event in receive(rpc, result(first[0].id))] == [Reply, Unsolicited]


def test_an_error_without_id_fails_the_only_call_there_is() -> None:
    rpc = JsonRpc()
    only = call(rpc)
    (event,) = receive(rpc, error(None, -32600, "too large"))
    assert isinstance(event, Failed)
    assert event.call is only
    assert event.error.message == "too large"


def test_an_error_without_id_fails_nobody_where_it_could_be_anybody() -> None:
    rpc = JsonRpc()
    calls(rpc, "a", "b")
    assert isinstance(receive(rpc, error(None))[0], Unsolicited)
    notifying = JsonRpc()
    notifying.notify("log")
    call(notifying)
    assert isinstance(receive(notifying, error(None))[0], Unsolicited)


def test_a_connection_with_a_server_that_refuses_so_has_one_array_in_flight() -> None:
    batching = Always({"a"})
    batching.serial = True
    rpc = JsonRpc(batching)
    array(rpc, 2)
    for _ in range(2):
        rpc.add("a", now=0.0)
    assert all(isinstance(item, dict) for item in sent(rpc))
    receive(rpc, [result(1), result(2)])
    for _ in range(2):
        rpc.add("a", now=0.0)
    assert len(sent(rpc)) == 1
    rpc = JsonRpc(batching)
    for _ in range(201):
        rpc.add("a", now=0.0)
    assert [isinstance(item, list) for item in sent(rpc)] == [True, *[False] * 101]


def test_case_8_a_write_that_may_have_arrived_is_not_sent_again() -> None:
    rpc = batched()
    read, write = rpc.add("read", now=0.0, idempotent=True), rpc.add("write", now=0.0)
    rpc.due(never)
    waiting = rpc.add("write", now=0.0)
    lost = rpc.lost()
    assert [(item.call, item.written, item.may_send_again) for item in lost] == [
        (read, True, True),
        (write, True, False),
        (waiting, False, True),
    ]
    assert rpc.lost() == []


def test_case_8_what_never_reached_the_socket_is_sent_again() -> None:
    rpc = batched()
    array(rpc, 2)
    write = rpc.add("write", now=0.0)
    (frame,) = rpc.due(never)
    assert isinstance(frame, Frame)
    rpc.unwritten(frame)
    assert [item.may_send_again for item in rpc.lost() if item.call is write] == [True]


@pytest.mark.parametrize(
    "message",
    [
        "",
        " ",
        "{",
        "nonsense",
        "1",
        "null",
        '"text"',
        "true",
        "[]",
        "[1",
        "[NaN]",
        b"\xff",
        b'{"id":1,"result":"\xff"}',
        b"\xef\xbb\xbf{}",
        b"\x00",
        '{"id":1,"result":"\ud800"}',
        "[" * 100_000 + "]" * 100_000,
        '{"id":1,"result":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"id":1,"result":1}x',
        '{"id":1 "result":1}',
    ],
)
def test_case_17_what_is_no_json_is_counted_and_hurts_nobody(message: str | bytes) -> None:
    rpc = JsonRpc()
    pending = call(rpc)
    (event,) = rpc.receive(message, now=1.0)
    assert isinstance(event, Malformed)
    assert event.reason
    assert rpc.stats().malformed == 1
    assert answered(rpc.receive(b'{"id":1,"result":2}', now=1.0)) == {pending: 2}


def test_case_17_json_in_a_binary_message_is_read() -> None:
    rpc = batched()
    one, two = array(rpc, 2)
    assert answered(rpc.receive(b' \n[{"id":2,"result":"\xc3\xa9"}, {"id":1,"result":null}] ', now=1.0)) == {
        two: "é",
        one: None,
    }


def test_case_17_one_item_that_is_none_hurts_no_other_in_an_array() -> None:
    rpc = batched()
    one, two = array(rpc, 2)
    events = receive(rpc, [result(1), 1, result(2)])
    assert answered(events) == {one: "ok", two: "ok"}


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    rpc = JsonRpc()
    pending = call(rpc)
    text = r'{"id":1,"result":["\ud83d","\ud83d\ude00","\\ud83d","\\\udc00x"]}'
    assert answered(rpc.receive(text, now=1.0)) == {pending: ["\ufffd", "\U0001f600", "\\ud83d", "\\\ufffdx"]}


def test_case_20_a_reply_after_time_out_reaches_nobody() -> None:
    rpc = JsonRpc()
    gone = call(rpc)
    rpc.forget(gone, now=5.0)
    following = call(rpc)
    (late,) = rpc.receive('{"id":1,"result":"late"}', now=6.0)
    assert isinstance(late, Late)
    assert late.call is gone
    assert bytes(late.raw or b"") == b'"late"'
    assert rpc.stats().late == 1
    assert answered(receive(rpc, result(2, "mine"))) == {following: "mine"}
    assert isinstance(receive(rpc, result(1))[0], Unsolicited)


def test_case_20_an_error_without_id_for_a_forgotten_call_reaches_nobody() -> None:
    rpc = JsonRpc(max_forgotten=1)
    for _ in range(3):
        rpc.forget(call(rpc), now=1.0)
    following = call(rpc)
    assert isinstance(receive(rpc, error(None))[0], Unsolicited)
    assert following.stage is Stage.SENT


def test_a_late_error_has_no_result() -> None:
    rpc = JsonRpc()
    gone = call(rpc)
    rpc.forget(gone, now=5.0)
    assert receive(rpc, error(1)) == [Late(gone, None)]


def test_tombstones_are_bounded() -> None:
    rpc = JsonRpc(max_forgotten=3)
    for _ in range(10):
        rpc.forget(call(rpc), now=1.0)
    assert rpc.stats().forgotten == 3
    assert isinstance(receive(rpc, result(1))[0], Unsolicited)
    assert isinstance(receive(rpc, result(10))[0], Late)


def test_an_array_whose_calls_are_all_forgotten_and_dropped_is_gone() -> None:
    rpc = JsonRpc(Always({"a"}), max_forgotten=1)
    for pending in array(rpc, 2):
        rpc.forget(pending, now=1.0)
    rpc.forget(call(rpc), now=1.0)
    assert isinstance(receive(rpc, error(None))[0], Unsolicited)


def test_a_call_that_is_forgotten_twice_or_after_its_reply_is_as_before() -> None:
    rpc = JsonRpc()
    pending = call(rpc)
    receive(rpc, result(1))
    rpc.forget(pending, now=1.0)
    gone = call(rpc)
    rpc.forget(gone, now=1.0)
    rpc.forget(gone, now=1.0)
    assert rpc.stats().forgotten == 1


@pytest.mark.parametrize("written", ["1.0", "1e0"])
def test_one_is_one_however_it_is_written(written: str) -> None:
    rpc = JsonRpc()
    pending = call(rpc)
    assert answered(rpc.receive(f'{{"id":{written},"result":1}}', now=1.0)) == {pending: 1}


@pytest.mark.parametrize(
    "given", ["0", "-1", '"1"', "true", "1.5", "1e400", "9" * 5000, "[1]", '{"a":1}', "9007199254740993"]
)
def test_an_id_that_was_never_given_is_foreign(given: str) -> None:
    rpc = JsonRpc()
    call(rpc)
    (event,) = rpc.receive(f'{{"id":{given},"result":1}}', now=1.0)
    assert isinstance(event, Unsolicited)
    assert event.id is not None
    assert bytes(event.id) == given.encode()


# What a server may say


def test_errors_are_as_the_server_gave_them() -> None:
    rpc = JsonRpc()
    call(rpc)
    (event,) = rpc.receive('{"id":1,"error":{"code":-32000,"message":"x","data":{"a":[1]}}}', now=1.0)
    assert (event.error.code, event.error.message, event.error.data) == (-32000, "x", {"a": [1]})
    assert bytes(event.raw) == b'{"code":-32000,"message":"x","data":{"a":[1]}}'


@pytest.mark.parametrize(
    ("member", "code", "message"),
    [
        ('"error":"busy"', 0, "busy"),
        ('"error":{"code":"E1","message":"busy"}', 0, "busy"),
        ('"error":{"code":1.0,"message":"busy"}', 1, "busy"),
        ('"error":{"code":true,"message":5}', 0, "an error without a message"),
        ('"error":17', 0, "an error without a message"),
        ('"error":{"code":1,"message":"x","data":1e999}', 0, "an error that cannot be read"),
        ('"error":null', 0, "a reply with neither result nor error"),
        ('"method":null', 0, "a reply with neither result nor error"),
    ],
)
def test_whatever_a_server_takes_for_an_error_settles_the_call(member: str, code: int, message: str) -> None:
    rpc = JsonRpc()
    pending = call(rpc)
    (event,) = rpc.receive(f'{{"id":1,{member}}}', now=1.0)
    assert isinstance(event, Failed)
    assert event.call is pending
    assert event.error.code == code
    assert message in event.error.message


def test_a_null_error_beside_a_result_is_none() -> None:
    rpc = JsonRpc()
    pending = call(rpc)
    assert answered(rpc.receive('{"id":1,"result":null,"error":null}', now=1.0)) == {pending: None}


def test_a_result_is_kept_as_it_came_until_it_is_asked_for() -> None:
    rpc = JsonRpc()
    call(rpc)
    (event,) = rpc.receive('{"id":1,"result":[1e400, 9007199254740993 ]}', now=1.0)
    assert bytes(event.raw) == b"[1e400, 9007199254740993 ]"
    with pytest.raises(InvalidReply, match="out of range"):
        event.value()


def test_the_server_may_tell_something() -> None:
    rpc = JsonRpc()
    (told,) = receive(rpc, {"method": "eth_subscription", "params": {"subscription": "0x1", "result": 5}})
    assert isinstance(told, Notified)
    assert told.method == "eth_subscription"
    assert messages.subscription_of(told.params) == "0x1"
    assert bytes(messages.result_of_event(told.params)) == b"5"  # type: ignore[arg-type]
    assert receive(rpc, {"id": None, "method": "x", "params": None}) == [Notified("x", None)]


def test_the_server_may_ask_something_and_has_a_reply_with_its_id() -> None:
    rpc = JsonRpc()
    pending = call(rpc)
    (asked,) = rpc.receive('{"id":1.50,"method":"sign","params":[1]}', now=1.0)
    assert isinstance(asked, Requested)
    assert asked.method == "sign"
    assert messages.result(asked.id, {"a": 1}) == '{"jsonrpc":"2.0","id":1.50,"result":{"a":1}}'
    refused = json.loads(messages.unknown_method(asked.id))
    assert refused["error"] == {"code": -32601, "message": "Method not found"}
    assert pending.stage is Stage.SENT  # its own ids are not ours
    with pytest.raises(SerializationError):
        messages.result(asked.id, object())
    with pytest.raises(SerializationError):
        messages.failure(asked.id, RpcError(1, "x", object()))


def test_a_method_that_cannot_be_read_is_malformed() -> None:
    (event,) = JsonRpc().receive('{"method":"\\ud800"}', now=1.0)
    assert event == Notified("\ufffd", None)


@pytest.mark.parametrize("params", [None, Raw(b"[1]"), Raw(b'{"subscription":true}'), Raw(b'{"subscription":{}}')])
def test_a_notification_may_belong_to_no_subscription(params: Raw | None) -> None:
    assert messages.subscription_of(params) is None


def test_an_event_goes_on_under_another_id() -> None:
    params = Raw(b'{"subscription":"0xdead","result":{"n":1.50},"extra":1}')
    assert json.loads(messages.event("eth_subscription", params, "0x1")) == {
        "jsonrpc": "2.0",
        "method": "eth_subscription",
        "params": {"subscription": "0x1", "result": {"n": 1.5}, "extra": 1},
    }
    assert "1.50" in messages.event("eth_subscription", params, "0x1")
