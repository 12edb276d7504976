"""Options are checked where they are given."""

from __future__ import annotations

import inspect
from math import inf, nan
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from penstock.transport.base import ClientOptions, Options, ServerOptions

kinds = pytest.mark.parametrize("kind", [Options, ClientOptions, ServerOptions])
DURATIONS = ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"]


@kinds
@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [-1, -0.5, -inf, nan, "10", b"10", (1, 2)])
def test_what_is_no_duration_is_refused(kind: type[Options], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}=") as refusal:
        kind(**{name: value})
    assert repr(value) in str(refusal.value)
    assert "a number of seconds, at least 0, or None" in str(refusal.value)


@pytest.mark.parametrize("name", DURATIONS)
@pytest.mark.parametrize("value", [0, 0.5, 3, inf, None])
def test_durations_may_be_nothing_or_without_end(name: str, value: Any) -> None:
    assert getattr(Options(**{name: value}), name) == value


@kinds
@pytest.mark.parametrize("value", ["gzip", "", True, 0])
def test_an_unknown_compression_is_refused(kind: type[Options], value: Any) -> None:
    with pytest.raises(ValueError, match="compression") as refusal:
        kind(compression=value)
    assert repr(value) in str(refusal.value)
    assert "'deflate' or None" in str(refusal.value)


@kinds
@pytest.mark.parametrize("name", ["max_size", "max_queue", "write_limit"])
@pytest.mark.parametrize("value", [-1, (-1, 0), (10, -1), nan, "10", ("10", None)])
def test_what_is_no_limit_is_refused(kind: type[Options], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}=") as refusal:
        kind(**{name: value})
    assert repr(value) in str(refusal.value)
    assert "at least 0" in str(refusal.value)


@kinds
@pytest.mark.parametrize("name", ["max_queue", "write_limit"])
def test_reading_and_writing_cannot_go_on_above_where_they_pause(kind: type[Options], name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=") as refusal:
        kind(**{name: (4, 5)})
    assert "(4, 5)" in str(refusal.value)
    assert "0 <= low <= high" in str(refusal.value)


def test_the_write_buffer_has_a_limit_always() -> None:
    with pytest.raises(ValueError, match="write_limit=None"):
        Options(write_limit=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        (16, (16, 4)),
        (0, (0, 0)),
        (None, (None, None)),
        ((16, None), (16, 4)),
        ((16, 8), (16, 8)),
        ((None, 8), (32, 8)),
        ((None, None), (None, None)),
    ],
)
def test_queue_limits_follow_from_what_is_given(given: Any, limits: tuple[int | None, int | None]) -> None:
    assert Options(max_queue=given).queue_limits == limits


def test_size_limits_are_of_the_message_and_of_its_fragments() -> None:
    assert Options(max_size=100).size_limits == (100, None)
    assert Options(max_size=(100, 10)).size_limits == (100, 10)
    assert Options(max_size=None).size_limits == (None, None)


def test_write_limits_are_high_and_low() -> None:
    assert Options(write_limit=100).write_limits == (100, None)
    assert Options(write_limit=(100, 10)).write_limits == (100, 10)


def test_extensions_were_asked_for_by_name_or_by_compression() -> None:
    assert not Options().asked_for_extensions
    assert Options(compression="deflate").asked_for_extensions
    assert Options(extensions=[]).asked_for_extensions


@pytest.mark.parametrize(("kind", "original"), [(ClientOptions, connect), (ServerOptions, serve)])
def test_defaults_are_those_of_websockets(kind: type[Options], original: Any) -> None:
    parameters = inspect.signature(original).parameters
    ours = kind()
    differing = {"compression", "user_agent_header", "server_header"}
    shared = {name for name in parameters if hasattr(ours, name)} - differing
    assert len(shared) >= 12
    assert {name: getattr(ours, name) for name in shared} == {name: parameters[name].default for name in shared}


def test_options_do_not_share_what_can_change() -> None:
    Options().network["host"] = "elsewhere"
    assert Options().network == {}
