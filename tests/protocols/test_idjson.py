"""Protocols whose JSON carries an id: browsers, home automation, media servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.errors import RpcError, SerializationError
from penstock.protocols.calls import Malformed
from penstock.protocols.dialects import DEVTOOLS, HOME_ASSISTANT, JANUS, Dialect, Verdict
from penstock.protocols.idjson import (
    Answered,
    Ask,
    AskFailed,
    IdJson,
    Interim,
    LoggedIn,
    LoginAsked,
    LoginRefused,
    Phase,
    Pushed,
    Stray,
    Streamed,
)

NESTED = Dialect("nested", ("meta", "id"), lambda _call, _message: Verdict.REPLY, lambda _: RpcError(0, "x"))


def ask(client: IdJson, message: Any, **options: Any) -> Ask:
    added = client.add(message, **options)
    client.due()
    return added


def receive(client: IdJson, message: Any) -> list[Any]:
    return client.receive(json.dumps(message))


def hub() -> IdJson:
    client = IdJson(HOME_ASSISTANT)
    receive(client, {"type": "auth_ok"})
    return client


def test_a_callers_id_is_kept_apart_and_comes_back_byte_for_byte() -> None:
    client = IdJson(DEVTOOLS)
    first, second = (
        client.add(Raw(f'{{"id":{own},"method":"Page.enable","params":{{"x":1.50}}}}'.encode()))
        for own in ("1.50", '"1"')
    )
    assert [frame.text for frame in client.due()] == [
        '{"id":1,"method":"Page.enable","params":{"x":1.50}}',
        '{"id":2,"method":"Page.enable","params":{"x":1.50}}',
    ]
    (late,) = receive(client, {"id": 2, "result": {}})
    (early,) = receive(client, {"id": 1, "result": {}})
    assert (late.ask, early.ask) == (second, first)
    assert client.with_own_id(late.ask, late.raw) == '{"id":"1","result":{}}'
    assert client.with_own_id(early.ask, early.raw) == '{"id":1.50,"result":{}}'


def test_a_call_without_an_id_of_its_own_gets_a_reply_without() -> None:
    client = IdJson(DEVTOOLS)
    ask(client, {"method": "a"})
    (event,) = receive(client, {"id": 1, "result": 5})
    assert client.with_own_id(event.ask, event.raw) == '{"result":5}'


def test_an_id_may_be_deeper() -> None:
    client = IdJson(NESTED)
    client.add({"meta": {"id": "own", "user": 1}, "do": "x"})
    client.add({"do": "y"})
    assert [frame.text for frame in client.due()] == [
        '{"do":"x","meta":{"id":1,"user":1}}',
        '{"do":"y","meta":{"id":2}}',
    ]
    (event,) = receive(client, {"meta": {"id": 1}, "ok": True})
    assert json.loads(client.with_own_id(event.ask, event.raw)) == {"meta": {"id": "own"}, "ok": True}
    assert isinstance(receive(client, {"meta": 5})[0], Pushed)


def test_what_is_no_object_fails_alone() -> None:
    client = IdJson(DEVTOOLS)
    for wrong in ([], 5, "x", object(), {"a": object()}, Raw(b"[1]"), Raw(b"{")):
        with pytest.raises(SerializationError):
            client.add(wrong)
    assert client.due() == []


# Chrome DevTools


def test_a_reply_of_another_session_is_foreign() -> None:
    client = IdJson(DEVTOOLS)
    first = ask(client, {"method": "a", "sessionId": "S1"})
    assert isinstance(receive(client, {"id": 1, "sessionId": "S2", "result": {}})[0], Stray)
    assert isinstance(receive(client, {"id": 1, "result": {}})[0], Stray)
    assert isinstance(receive(client, {"id": "1", "sessionId": "S1", "result": {}})[0], Stray)
    (event,) = receive(client, {"id": 1, "sessionId": "S1", "result": {}})
    assert isinstance(event, Answered)
    assert event.ask is first
    assert client.strays == 3


def test_a_browsers_errors_and_events() -> None:
    client = IdJson(DEVTOOLS)
    ask(client, {"method": "a"})
    (failed,) = receive(client, {"id": 1, "error": {"code": -32601, "message": "no such method"}})
    assert isinstance(failed, AskFailed)
    assert (failed.error.code, failed.error.message) == (-32601, "no such method")
    assert isinstance(receive(client, {"method": "Page.loaded", "params": {}})[0], Pushed)


def test_half_a_surrogate_pair_from_a_browser_is_read() -> None:
    client = IdJson(DEVTOOLS)
    ask(client, {"method": "a"})
    (event,) = client.receive('{"id":1,"result":"\\ud83d"}')
    assert isinstance(event, Answered)
    assert json.loads(bytes(event.raw)) == {"id": 1, "result": "\ufffd"}


# Home Assistant


def test_calls_wait_until_the_hub_has_let_us_in() -> None:
    client = IdJson(HOME_ASSISTANT)
    client.add({"type": "get_states"})
    assert client.due() == []
    assert isinstance(receive(client, {"type": "auth_required", "ha_version": "2024"})[0], LoginAsked)
    assert isinstance(receive(client, {"type": "other"})[0], Pushed)
    assert client.due() == []
    assert isinstance(receive(client, {"type": "auth_ok"})[0], LoggedIn)
    assert [json.loads(frame.text) for frame in client.due()] == [{"id": 1, "type": "get_states"}]


@pytest.mark.parametrize("kind", ["1e400", "5", "null"])
def test_a_message_of_no_type_lets_nobody_in(kind: str) -> None:
    client = IdJson(HOME_ASSISTANT)
    assert isinstance(client.receive(f'{{"type":{kind}}}')[0], Pushed)
    assert not client.is_ready


def test_a_hub_may_refuse_us() -> None:
    client = IdJson(HOME_ASSISTANT)
    assert isinstance(receive(client, {"type": "auth_invalid", "message": "wrong"})[0], LoginRefused)
    assert not client.is_ready


def test_a_hubs_events_follow_the_reply_under_its_id() -> None:
    client = hub()
    feed = ask(client, {"type": "subscribe_events"}, opens=True)
    assert isinstance(receive(client, {"id": 1, "type": "result", "success": True, "result": None})[0], Answered)
    assert feed.phase is Phase.OPEN
    (event,) = receive(client, {"id": 1, "type": "event", "event": {"a": 1}})
    assert isinstance(event, Streamed)
    assert event.ask is feed
    client.forget(feed)
    (stray,) = receive(client, {"id": 1, "type": "event", "event": {}})
    assert isinstance(stray, Stray)
    assert stray.ask is feed


def test_a_hubs_coalesced_messages_are_taken_one_by_one() -> None:
    client = hub()
    first, second = client.add({"type": "ping"}), client.add({"type": "x"})
    client.due()
    events = receive(
        client,
        [
            {"id": 2, "type": "result", "success": False, "error": {"code": "not_found", "message": "unknown"}},
            5,
            {"id": 1, "type": "pong"},
        ],
    )
    assert [type(event) for event in events] == [AskFailed, Malformed, Answered]
    assert (events[0].ask, events[2].ask) == (second, first)
    assert events[0].error.message == "unknown"
    assert events[0].error.data == {"code": "not_found", "message": "unknown"}


def test_a_hubs_ids_increase_strictly_in_the_order_of_sending() -> None:
    client = hub()
    asks = [client.add({"id": 99, "type": "x"}) for _ in range(4)]
    client.forget(asks[1])
    assert [json.loads(frame.text)["id"] for frame in client.due()] == [1, 2, 3]
    ask(client, {"type": "y"})
    assert [each.id for each in asks] == [1, None, 2, 3]


def test_an_array_from_who_sends_none_is_malformed() -> None:
    assert isinstance(IdJson(DEVTOOLS).receive("[]")[0], Malformed)


# Janus


def test_an_ack_of_a_media_server_is_not_yet_the_answer() -> None:
    client = IdJson(JANUS)
    message = ask(client, {"janus": "message", "transaction": "own", "body": {}})
    (interim,) = receive(client, {"janus": "ack", "transaction": "1"})
    assert isinstance(interim, Interim)
    (event,) = receive(client, {"janus": "event", "transaction": "1", "plugindata": {}})
    assert isinstance(event, Answered)
    assert event.ask is message
    assert json.loads(client.with_own_id(event.ask, event.raw))["transaction"] == "own"


@pytest.mark.parametrize("kind", ["keepalive", "trickle"])
def test_an_ack_is_all_that_some_calls_get(kind: str) -> None:
    client = IdJson(JANUS)
    ask(client, {"janus": kind})
    assert isinstance(receive(client, {"janus": "ack", "transaction": "1"})[0], Answered)


def test_a_media_servers_errors_and_events() -> None:
    client = IdJson(JANUS)
    ask(client, {"janus": "create"})
    (failed,) = receive(client, {"janus": "error", "transaction": "1", "error": {"code": 458, "reason": "No session"}})
    assert (failed.error.code, failed.error.message) == (458, "No session")
    assert isinstance(receive(client, {"janus": "webrtcup", "sender": 1})[0], Pushed)


@pytest.mark.parametrize("error", ["5", "null", "[1e400]", '{"code":"x"}'])
def test_an_error_of_any_shape_settles_the_call(error: str) -> None:
    client = IdJson(JANUS)
    call = ask(client, {"janus": "create"})
    (failed,) = client.receive(f'{{"janus":"error","transaction":"1","error":{error}}}')
    assert isinstance(failed, AskFailed)
    assert (failed.ask, failed.error.code) == (call, 0)


# Endings


def test_case_20_a_reply_after_time_out_reaches_nobody() -> None:
    client = IdJson(DEVTOOLS)
    gone = ask(client, {"method": "a"})
    client.forget(gone)
    following = ask(client, {"method": "b"})
    (stray,) = receive(client, {"id": 1, "result": {}})
    assert isinstance(stray, Stray)
    assert stray.ask is gone
    (event,) = receive(client, {"id": 2, "result": {}})
    assert event.ask is following
    assert receive(client, {"id": 1, "result": {}})[0].ask is None


def test_tombstones_are_bounded() -> None:
    client = IdJson(DEVTOOLS, max_forgotten=1)
    gone = [ask(client, {"method": "a"}) for _ in range(2)]
    for each in gone:
        client.forget(each)
        client.forget(each)
    assert receive(client, {"id": 1, "result": {}})[0].ask is None
    assert receive(client, {"id": 2, "result": {}})[0].ask is gone[1]


def test_case_8_what_may_have_arrived_is_not_sent_again_unless_it_may_be() -> None:
    client = hub()
    asks = [
        ask(client, {"type": "call_service"}),
        ask(client, {"type": "get_states"}, idempotent=True),
        client.add({"type": "call_service"}),
    ]
    lost = client.lost()
    assert [each.ask for each in lost] == asks
    assert [(each.written, each.may_send_again) for each in lost] == [(True, False), (True, True), (False, True)]
    assert client.lost() == []


@given(st.sampled_from([DEVTOOLS, HOME_ASSISTANT, JANUS, NESTED]), st.text(st.characters()) | st.binary())
def test_case_17_garbage_raises_nothing(dialect: Dialect, message: str | bytes) -> None:
    IdJson(dialect).receive(message)


@pytest.mark.parametrize(
    "message", ["", "5", "{", b"\xff", "[" * 100_000, '{"id":1.5}', '{"id":[]}', '{"id":null}', '{"id":1e999}']
)
def test_case_17_what_is_no_message_hurts_nobody(message: str | bytes) -> None:
    client = IdJson(DEVTOOLS)
    call = ask(client, {"method": "a"})
    assert isinstance(client.receive(message)[0], Malformed)
    (event,) = client.receive(b'{"id":1,"result":{}}')
    assert isinstance(event, Answered)
    assert event.ask is call
