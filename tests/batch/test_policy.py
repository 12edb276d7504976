"""Bounds of a batch."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import BatchConfig

COUNTS = ["batch_size", "batch_bytes", "max_pending_messages", "max_pending_bytes"]


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.5, 10.0, "10", None, inf, nan])
def test_a_count_that_is_none_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name}=") as refusal:
        BatchConfig(**{name: value})
    assert repr(value) in str(refusal.value)
    assert "at least 1" in str(refusal.value)


@pytest.mark.parametrize("value", [-0.001, -1, -inf, nan])
def test_a_timeout_that_is_no_duration_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="batch_timeout=") as refusal:
        BatchConfig(batch_timeout=value)
    assert repr(value) in str(refusal.value)
    assert "must be a number of seconds, at least 0" in str(refusal.value)


@pytest.mark.parametrize("value", ["1", None, b"1"])
def test_a_timeout_of_another_type_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match="batch_timeout="):
        BatchConfig(batch_timeout=value)


@pytest.mark.parametrize("name", COUNTS)
def test_the_least_count_is_one(name: str) -> None:
    assert getattr(BatchConfig(**{name: 1}), name) == 1


def test_by_default_nothing_lingers() -> None:
    assert BatchConfig().batch_timeout == 0


def test_a_configuration_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        BatchConfig().batch_size = 2  # type: ignore[misc]


def test_fields_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        BatchConfig(10)  # type: ignore[misc]
    assert {field.name for field in fields(BatchConfig)} == {*COUNTS, "batch_timeout"}


def test_configurations_with_equal_fields_are_equal() -> None:
    assert BatchConfig(batch_size=7) == BatchConfig(batch_size=7)
    assert BatchConfig(batch_size=7) != BatchConfig(batch_size=8)
    assert hash(BatchConfig(batch_size=7)) == hash(BatchConfig(batch_size=7))


counts = st.integers(1, 1 << 24)


@given(counts, counts, counts, counts)
def test_a_full_batch_is_within_what_may_be_pending(
    size: int, size_bytes: int, pending: int, pending_bytes: int
) -> None:
    config = BatchConfig(
        batch_size=size, batch_bytes=size_bytes, max_pending_messages=pending, max_pending_bytes=pending_bytes
    )
    messages, total = config.full_batch
    assert config.is_full(messages, 0)
    assert config.is_full(0, total)
    assert not config.is_full(messages - 1, total - 1)
    assert messages <= pending
    assert total <= pending_bytes


@given(counts, counts, st.integers(1, 1 << 25), st.integers(0, 1 << 25), st.integers(0, 1 << 25))
def test_what_gathers_behind_others_stays_within_the_bounds(
    pending: int, pending_bytes: int, messages: int, size: int, more: int
) -> None:
    config = BatchConfig(max_pending_messages=pending, max_pending_bytes=pending_bytes)
    fits = messages + 1 <= pending and size + more <= pending_bytes
    assert config.has_room(messages, size, more) == fits


def test_a_message_of_any_size_is_taken_when_nothing_else_is_pending() -> None:
    assert BatchConfig(max_pending_bytes=10).has_room(0, 0, 1_000_000)
    assert not BatchConfig(max_pending_bytes=10).has_room(1, 0, 1_000_000)
