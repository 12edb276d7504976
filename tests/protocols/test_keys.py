"""Equal keys mean the same question of the same asker, and nothing else does."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from penstock.protocols.keys import canonical, identity, key, prefix

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def typed(value: Any) -> Any:
    """A value that equals another only if both are the same JSON."""
    if isinstance(value, dict):
        return {name: typed(part) for name, part in value.items()}
    if isinstance(value, list):
        return [typed(part) for part in value]
    return (type(value).__name__, repr(value) if isinstance(value, float) else value)


DIFFERENT: list[tuple[Any, ...]] = [
    ("a", [1, 2]),
    ("a", [12]),
    ("a", [1]),
    ("a", [1.0]),
    ("a", ["1"]),
    ("a", [True]),
    ("a", [None]),
    ("a", []),
    ("a", {}),
    ("a", [[]]),
    ("a", None),
    ("a", [0]),
    ("a", [False]),
    ("a", [""]),
    ("a", [2**53]),
    ("a", [2**53 + 1]),
    ("a", {"x": 1}),
    ("a", {"x": [1]}),
    ("a", {"x": {"y": 1}}),
    ("a", Raw(b"[0.1]")),
    ("a", Raw(b"[0.1000000000000000055511151231257827]")),
    ("a", Raw(b'[{"n":0.1000000000000000055511151231257827}]')),
    ("a", Raw(b'[{"n":0.1}]')),
    ("b", [1, 2]),
    ("a[1", [2]),
    ("", [1, 2]),
    ("a", [1, 2], "A"),
    ("a", [1, 2], "B"),
    ('","a', [1, 2], "A"),
    ("a", [1, 2], 'A","'),
]


def test_case_18_different_questions_have_different_keys() -> None:
    for one, other in combinations(DIFFERENT, 2):
        assert key(*one) != key(*other), (one, other)
    assert None not in {key(*each) for each in DIFFERENT}


def test_the_order_of_members_and_spaces_do_not_matter() -> None:
    keys = {
        key("a", {"x": 1, "y": {"b": 2.5, "a": "é"}}),
        key("a", {"y": {"a": "é", "b": 2.5}, "x": 1}),
        key("a", Raw('{"y":{"a":"é","b":2.5},"x":1}'.encode())),
        key("a", Raw(b' { "x" : 1, "y" : {"b":2.5,"a":"\\u00e9"} } ')),
    }
    assert len(keys) == 1


def test_a_member_twice_has_no_key_because_servers_differ_in_which_they_take() -> None:
    assert key("a", Raw(b'[{"x":1,"x":2}]')) is None
    assert key("a", {1: "x", "1": "y"}) is None
    assert key("a", {1: "x"}) == key("a", {"1": "x"})


@pytest.mark.parametrize("params", [object(), "\ud800", ["\ud800"], Raw(b'["\\ud800 "]x'), Raw(b"\xff "), {(1, 2): 3}])
def test_what_has_no_json_has_no_key(params: Any) -> None:
    assert key("a", params) is None


@pytest.mark.parametrize("raw", [b"[NaN ]", b'{"a":Infinity}', b"[" * 100_000 + b" " + b"]" * 100_000, b"{"])
def test_what_is_no_json_has_no_key(raw: bytes) -> None:
    assert key("a", Raw(raw)) is None


def test_keys_begin_with_the_identity_and_the_method() -> None:
    assert (key("eth_call", [1], "me") or "").startswith(prefix("eth_call", "me"))
    assert not (key("eth_call2", [1], "me") or "").startswith(prefix("eth_call", "me"))


@given(JSON, JSON)
def test_keys_are_equal_exactly_if_the_json_is(one: Any, other: Any) -> None:
    assert (key("m", one) == key("m", other)) == (typed(one) == typed(other))


@given(JSON)
def test_a_key_is_the_same_whether_it_comes_as_text_or_parsed(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, sort_keys=False)
    assert typed(json.loads(canonical(value))) == typed(value)
    assert typed(json.loads(canonical(Raw(text.encode())))) == typed(value)


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_method_and_identity_do_not_run_into_each_other(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (key(one[0], [], one[1]) == key(other[0], [], other[1])) == (one == other)


def test_case_18_identities_differ_by_all_that_a_server_can_tell_apart() -> None:
    same = identity("ws://a", "v1", [("Authorization", "x")], {"token": 1, "b": 2})
    assert same == identity("ws://a", "v1", [("authorization", "x")], {"b": 2, "token": 1})
    others = {
        identity("ws://b", "v1", [("Authorization", "x")], {"token": 1, "b": 2}),
        identity("ws://a", None, [("Authorization", "x")], {"token": 1, "b": 2}),
        identity("ws://a", "v1", [("Authorization", "y")], {"token": 1, "b": 2}),
        identity("ws://a", "v1", [], {"token": 1, "b": 2}),
        identity("ws://a", "v1", [("Authorization", "x")], {"token": 2, "b": 2}),
        identity("ws://a", "v1", [("Authorization", "x")]),
    }
    assert len(others | {same}) == 7


def test_an_identity_betrays_no_token() -> None:
    assert "secret" not in identity("ws://a", headers=[("Authorization", "secret")])
