"""JSON that could end the process."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest
from msgspec import Raw

from penstock.protocols.calls import parse
from penstock.protocols.keys import key
from penstock.protocols.reading import BadJson, is_deep, read, read_any
from penstock.wire.depth import MAX_DEPTH


@pytest.fixture
def _raised_limit() -> Iterator[None]:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(100_000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("_raised_limit")
@pytest.mark.parametrize("text", ["[" * 99_000 + "]" * 99_000, '{"a":' * 99_000 + "1" + "}" * 99_000, "[" * 99_000])
def test_depth_does_not_end_a_process_whose_recursion_limit_somebody_has_raised(text: str) -> None:
    with pytest.raises(BadJson, match="nested too deep"):
        read(read_any, text)
    with pytest.raises(ValueError, match="nested too deep"):
        parse(Raw(text.encode()))
    assert key("method", Raw(text.encode() + b" ")) is None


@pytest.mark.usefixtures("_raised_limit")
def test_what_is_wide_is_not_deep() -> None:
    text = json.dumps([{"a": [1, {"b": []}]}] * 10_000)
    assert len(read(read_any, text)) == 10_000
    assert not is_deep(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    assert is_deep(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
