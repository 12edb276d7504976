"""The client's end of graphql-transport-ws, and what a document does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.errors import GraphQLClosed, SerializationError
from penstock.protocols.calls import Malformed
from penstock.protocols.documents import Kind, kind_of
from penstock.protocols.graphql import (
    Accepted,
    Completed,
    Errored,
    GraphQL,
    Next,
    Operation,
    State,
    Stray,
    operation_key,
)


def ready() -> GraphQL:
    graphql = GraphQL()
    graphql.due()
    graphql.receive('{"type":"connection_ack"}')
    return graphql


def sent(graphql: GraphQL) -> list[Any]:
    return [json.loads(frame.text) for frame in graphql.due()]


def run(graphql: GraphQL, query: str = "{ a }", **options: Any) -> Operation:
    operation = graphql.add(query, **options)
    graphql.due()
    return operation


def receive(graphql: GraphQL, **message: Any) -> list[Any]:
    return graphql.receive(json.dumps(message))


def test_operations_wait_until_the_connection_is_accepted() -> None:
    graphql = GraphQL({"token": "x"})
    graphql.add("{ a }")
    assert sent(graphql) == [{"type": "connection_init", "payload": {"token": "x"}}]
    assert graphql.due() == []
    (accepted,) = receive(graphql, type="connection_ack", payload={"a": 1})
    assert isinstance(accepted, Accepted)
    assert bytes(accepted.payload or b"") == b'{"a": 1}'
    assert sent(graphql) == [{"id": "1", "type": "subscribe", "payload": {"query": "{ a }"}}]


def test_an_operation_goes_out_with_all_it_was_given() -> None:
    graphql = ready()
    graphql.add("query A($x: Int) { a }", {"x": 1}, "A", {"persistedQuery": {}})
    graphql.add("{ b }", Raw(b'{"x":1.50}'))
    first, second = (frame.text for frame in graphql.due())
    assert json.loads(first)["payload"] == {
        "query": "query A($x: Int) { a }",
        "operationName": "A",
        "variables": {"x": 1},
        "extensions": {"persistedQuery": {}},
    }
    assert '"variables":{"x":1.50}' in second


def test_ids_are_used_once() -> None:
    graphql = ready()
    ids = []
    for _ in range(3):
        operation = run(graphql)
        receive(graphql, type="complete", id=operation.id)
        ids.append(operation.id)
    assert ids == ["1", "2", "3"]


def test_what_is_no_json_fails_alone() -> None:
    graphql = ready()
    with pytest.raises(SerializationError):
        graphql.add("{ a }", {"x": object()})
    with pytest.raises(SerializationError):
        GraphQL("\ud800")
    assert graphql.due() == []


def test_a_ping_is_answered_here_with_what_it_held() -> None:
    graphql = ready()
    assert receive(graphql, type="ping", payload={"t": 1}) == []
    assert receive(graphql, type="ping") == []
    assert receive(graphql, type="pong") == []
    assert sent(graphql) == [{"type": "pong", "payload": {"t": 1}}, {"type": "pong"}]


def test_a_ping_is_answered_before_the_connection_is_accepted() -> None:
    graphql = GraphQL()
    graphql.due()
    receive(graphql, type="ping")
    assert sent(graphql) == [{"type": "pong"}]


def test_results_come_until_the_operation_is_complete() -> None:
    graphql = ready()
    operation = run(graphql, "subscription { tick }", owner="me")
    for number in range(2):
        (event,) = receive(graphql, type="next", id="1", payload={"data": {"tick": number}})
        assert isinstance(event, Next)
        assert event.operation is operation
        assert event.value() == {"data": {"tick": number}}
        assert not event.may_keep
    assert receive(graphql, type="complete", id="1") == [Completed(operation)]
    assert operation.state is State.DONE
    assert receive(graphql, type="next", id="1", payload={}) == [Stray("1")]


def test_an_error_ends_an_operation() -> None:
    graphql = ready()
    operation = run(graphql)
    (event,) = receive(graphql, type="error", id="1", payload=[{"message": "no field"}])
    assert isinstance(event, Errored)
    assert event.operation is operation
    assert event.error.errors == [{"message": "no field"}]
    assert receive(graphql, type="error", id="1", payload=[]) == [Stray("1")]


@pytest.mark.parametrize("payload", ["", ',"payload":5', ',"payload":[1e400]'])
def test_an_error_without_proper_errors_is_one_too(payload: str) -> None:
    graphql = ready()
    run(graphql)
    (event,) = graphql.receive(f'{{"type":"error","id":"1"{payload}}}')
    assert isinstance(event, Errored)


def test_who_wants_no_more_completes_and_hears_no_more() -> None:
    graphql = ready()
    operation = run(graphql, "subscription { tick }")
    graphql.complete(operation)
    graphql.complete(operation)
    assert sent(graphql) == [{"id": "1", "type": "complete"}]
    assert receive(graphql, type="next", id="1", payload={}) == [Stray("1")]
    assert graphql.stats().forgotten == 1
    receive(graphql, type="complete", id="1")
    assert graphql.stats().forgotten == 0
    assert graphql.stats().strays == 2


def test_an_operation_that_is_cancelled_in_time_is_never_sent() -> None:
    graphql = ready()
    graphql.complete(graphql.add("{ a }"))
    assert graphql.due() == []


def test_tombstones_are_bounded() -> None:
    graphql = GraphQL(max_forgotten=2)
    receive(graphql, type="connection_ack")
    for _ in range(5):
        graphql.complete(run(graphql))
    assert graphql.stats().forgotten == 2


def test_a_querys_result_without_errors_may_be_kept() -> None:
    graphql = ready()
    query, mutation = run(graphql), run(graphql, "mutation { inc }")
    assert (query.may_repeat, mutation.may_repeat) == (True, False)
    for payload, keep in (
        ('{"data":1}', True),
        ('{"data":1,"errors":[1]}', False),
        ('{"errors":[]}', True),
        ("5", False),
    ):
        (event,) = graphql.receive(f'{{"type":"next","id":"1","payload":{payload}}}')
        assert event.may_keep is keep  # type: ignore[union-attr]
        (event,) = graphql.receive(f'{{"type":"next","id":"2","payload":{payload}}}')
        assert not event.may_keep  # type: ignore[union-attr]


def test_a_mutation_that_may_have_arrived_is_not_sent_again() -> None:
    graphql = ready()
    for query in ("{ a }", "mutation { a }", "subscription { a }"):
        run(graphql, query)
    graphql.add("mutation { a }")
    lost = graphql.lost(1006)
    assert [(each.written, each.may_send_again, each.error) for each in lost] == [
        (True, True, None),
        (True, False, None),
        (True, True, None),
        (False, True, None),
    ]
    assert graphql.lost() == []


def test_what_the_server_closes_for_is_an_error_with_facts() -> None:
    graphql = GraphQL()
    graphql.add("{ a }")
    (lost,) = graphql.lost(4403, "Forbidden")
    assert isinstance(lost.error, GraphQLClosed)
    assert (lost.error.code, lost.error.reason, lost.may_send_again) == (4403, "Forbidden", False)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "[]",
        "1",
        "{}",
        '{"type":5}',
        '{"type":"nonsense"}',
        '{"type":"next"}',
        '{"type":"next","id":1,"payload":{}}',
        '{"type":"next","id":"1"}',
        b"\xff",
        "[" * 100_000,
        '{"type":"next","id":"1","payload":' + "[" * 100_000 + "]" * 100_000 + "}",
    ],
)
def test_case_17_what_is_no_message_hurts_nobody(message: str | bytes) -> None:
    graphql = ready()
    operation = run(graphql)
    (event,) = graphql.receive(message)
    assert isinstance(event, Malformed)
    assert graphql.stats().malformed == 1
    (event,) = graphql.receive(b'{"type":"next","id":"1","payload":"\\ud800"}')
    assert isinstance(event, Next)
    assert event.operation is operation
    assert event.value() == "\ufffd"


@given(st.text(st.characters()) | st.binary())
def test_garbage_raises_nothing(message: str | bytes) -> None:
    graphql = ready()
    graphql.receive(message)
    kind_of(str(message))


# Keys


def test_equal_operations_share_and_others_do_not() -> None:
    same = {
        operation_key("{ a }", {"x": 1, "y": 2}, who="me"),
        operation_key("{ a }", Raw(b'{"y": 2, "x": 1}'), who="me"),
    }
    assert len(same) == 1
    others = [
        operation_key("{ a }", {"x": 1, "y": 2}, who="you"),
        operation_key("{ b }", {"x": 1, "y": 2}, who="me"),
        operation_key("{ a }", {"x": 1, "y": 2}, "A", who="me"),
        operation_key("{ a }", {"x": 1, "y": 3}, who="me"),
        operation_key("{ a }", {}, None, {"x": 1, "y": 2}, who="me"),
        operation_key("{ a }", who="me"),
    ]
    assert len({*same, *others}) == 7
    assert operation_key("{ a }") == operation_key("{ a }", {})
    assert operation_key("{ a }", Raw(b'{"x":1,"x":2}')) is None


# Documents


@pytest.mark.parametrize(
    ("document", "name", "kind"),
    [
        ("{ a }", None, Kind.QUERY),
        ("query { a }", None, Kind.QUERY),
        ("query A($x: In = {y: [1]}) @d(z: {}) { a(b: {c: 1}) { d } }", "A", Kind.QUERY),
        ("mutation M { inc }", None, Kind.MUTATION),
        ("subscription { tick }", None, Kind.SUBSCRIPTION),
        ("fragment F on T { a } mutation { ...F }", None, Kind.MUTATION),
        ("query A { a } mutation B { b }", "A", Kind.QUERY),
        ("query A { a } mutation B { b }", "B", Kind.MUTATION),
        ("query A { a } mutation B { b }", None, Kind.UNKNOWN),
        ("query A { a } mutation B { b }", "C", Kind.UNKNOWN),
        ("query A { a } mutation A { b }", "A", Kind.UNKNOWN),
        ("# query { a }\nmutation { b }", None, Kind.MUTATION),
        ('# "\nmutation { b }', None, Kind.MUTATION),
        ('{ a(x: "} mutation { b") }', None, Kind.QUERY),
        ('{ a(x: "\\"} mutation { b") }', None, Kind.QUERY),
        ('{ a(x: """ " } \\""" mutation { """) }', None, Kind.QUERY),
        ('"""query { a }""" mutation { b }', None, Kind.MUTATION),
        ('{ a(x: "# ") } mutation B { b }', "B", Kind.MUTATION),
        ("type T { a: Int }", None, Kind.UNKNOWN),
        ("", None, Kind.UNKNOWN),
        ("query", None, Kind.UNKNOWN),
        ("{ a", None, Kind.UNKNOWN),
        ("{ a }}", None, Kind.UNKNOWN),
        ("} {", None, Kind.UNKNOWN),
        ('{ a(x: "', None, Kind.UNKNOWN),
        ("{ a } mutation", None, Kind.UNKNOWN),
    ],
)
def test_the_kind_of_an_operation_is_that_of_the_one_chosen(document: str, name: str | None, kind: Kind) -> None:
    assert kind_of(document, name) is kind


def test_a_long_document_takes_no_time_to_speak_of() -> None:
    assert kind_of('{ a(x: """' + '\\"""' * 100_000) is Kind.UNKNOWN
    assert kind_of('"' * 100_001) is Kind.UNKNOWN
    assert kind_of("{" * 100_000 + "}" * 100_000) is Kind.QUERY
