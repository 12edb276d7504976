from __future__ import annotations

from math import nan
from typing import Any

import pytest

from penstock import ConnectionPoolConfig


def test_the_defaults_are_allowed() -> None:
    config = ConnectionPoolConfig()
    assert (config.max_connections, config.min_connections, config.max_total) == (10, 2, 100)
    small, large = ConnectionPoolConfig(max_connections=1), ConnectionPoolConfig(max_connections=1000)
    assert (small.min_connections, large.max_total) == (1, 1000)
    assert (config.acquire_timeout, config.max_waiting) == (10, 1024)


@pytest.mark.parametrize("name", ["max_connections", "max_total", "max_connecting"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "3"])
def test_a_count_that_has_to_be_above_zero_is_refused_and_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value!r}: must be a whole number of at least 1"):
        ConnectionPoolConfig(**{name: value})


@pytest.mark.parametrize("name", ["min_connections", "max_waiting", "max_request_count"])
@pytest.mark.parametrize("value", [-1, 1.5, "3"])
def test_a_count_below_zero_is_refused_and_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value!r}: must be a whole number of at least 0"):
        ConnectionPoolConfig(**{name: value})


@pytest.mark.parametrize(
    "name",
    ["acquire_timeout", "connect_timeout", "max_idle_time", "max_lifetime", "check_interval", "pong_timeout"],
)
@pytest.mark.parametrize("value", [0, -1.0, nan, "3", None])
def test_a_time_that_is_none_is_refused_and_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{name}={value!r}: must be a number of seconds, more than 0"):
        ConnectionPoolConfig(**{name: value})


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="min_connections=3: must be at most max_connections=2"):
        ConnectionPoolConfig(max_connections=2, min_connections=3)
    with pytest.raises(ValueError, match="max_connections=10: must be at most max_total=5"):
        ConnectionPoolConfig(max_total=5)
    with pytest.raises(ValueError, match="on_dirty='wash': must be 'close' or 'drain'"):
        ConnectionPoolConfig(on_dirty="wash")  # type: ignore[arg-type]
