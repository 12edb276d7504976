"""What each section takes, and what its defaults are."""

from __future__ import annotations

import inspect
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from penstock import (
    AlertsConfig,
    BatchConfig,
    BatchProcessor,
    CacheConfig,
    ConnectionPoolConfig,
    EnvelopeConfig,
    EvictionPolicy,
    FallbackConfig,
    LimitsConfig,
    MessageBatcher,
    MessageCache,
    MetricsConfig,
    PerformanceConfig,
    Rpc,
    RpcConfig,
    SendingConfig,
    connect,
)
from penstock.config.fields import sections_of

NAN = float("nan")


def test_the_sections_are_these() -> None:
    assert sections_of(PerformanceConfig) == {
        "pool": ConnectionPoolConfig,
        "batch": BatchConfig,
        "sending": SendingConfig,
        "envelope": EnvelopeConfig,
        "cache": CacheConfig,
        "rpc": RpcConfig,
        "metrics": MetricsConfig,
        "alerts": AlertsConfig,
        "fallback": FallbackConfig,
        "limits": LimitsConfig,
    }


@pytest.mark.parametrize("section", [PerformanceConfig, *sections_of(PerformanceConfig).values()])
def test_a_section_cannot_be_changed_and_takes_names_alone(section: type[Any]) -> None:
    config = section()
    name = fields(config)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(config, name, getattr(config, name))
    assert not hasattr(config, "__dict__")
    with pytest.raises(TypeError):
        section(getattr(config, name))


def test_a_section_of_another_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^rpc=BatchConfig\(.*\): must be a RpcConfig$"):
        PerformanceConfig(rpc=BatchConfig())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("section", "given", "says"),
    [
        (SendingConfig, {"batch_size": 0}, "batch_size=0: must be a whole number of at least 1"),
        (SendingConfig, {"batch_timeout": -0.1}, "batch_timeout=-0.1: must be a number of seconds, at least 0"),
        (SendingConfig, {"batch_timeout": NAN}, "batch_timeout=nan: must be a number of seconds, at least 0"),
        (SendingConfig, {"idle_time": -1}, "idle_time=-1: must be a number of seconds, at least 0"),
        (SendingConfig, {"ordering": 1}, "ordering=1: must be True or False"),
        (SendingConfig, {"deduplicate": 0}, "deduplicate=0: must be a number of seconds, more than 0"),
        (
            SendingConfig,
            {"deduplicate": True},
            "deduplicate=True: must be 'content', a number of seconds above 0, or None",
        ),
        (SendingConfig, {"overflow": "no"}, "must be 'block', 'raise', 'drop_oldest' or 'drop_newest'"),
        (SendingConfig, {"max_pending_messages": True}, "max_pending_messages=True: must be a whole number"),
        (SendingConfig, {"max_pending_bytes": 0}, "max_pending_bytes=0: must be a whole number of bytes, at least 1"),
        (EnvelopeConfig, {"reliable": 1}, "reliable=1: must be True, False or None"),
        (EnvelopeConfig, {"resume": None}, "resume=None: must be True or False"),
        (EnvelopeConfig, {"on_session_lost": "x"}, "on_session_lost='x': must be 'raise' or 'resend'"),
        (EnvelopeConfig, {"compression": "zstd"}, "compression='zstd': must be 'deflate' or None"),
        (EnvelopeConfig, {"send_timeout": 0}, "send_timeout=0: must be a number of seconds, more than 0, or None"),
        (CacheConfig, {"enabled": "yes"}, "enabled='yes': must be True or False"),
        (CacheConfig, {"max_size": -1}, "max_size=-1: must be a whole number of at least 0"),
        (CacheConfig, {"max_bytes": -1}, "max_bytes=-1: must be a whole number of bytes, at least 0, or None"),
        (CacheConfig, {"ttl": "5"}, "ttl='5': must be a number of seconds, at least 0"),
        (CacheConfig, {"stale_ttl": -1}, "stale_ttl=-1: must be a number of seconds, at least 0"),
        (CacheConfig, {"jitter": 1.5}, "jitter=1.5: must be a number, at least 0 and at most 1"),
        (CacheConfig, {"ttl": "500ms"}, "ttl='500ms': must be a number of seconds, at least 0"),
        (
            CacheConfig,
            {"max_bytes": "64MiB"},
            "must be a whole number of bytes, at least 0, or None",
        ),
        (CacheConfig, {"eviction_policy": "LRU2"}, "eviction_policy='LRU2': must be 'lru', 'lfu', 'ttl' or 's3-fifo'"),
        (CacheConfig, {"eviction_policy": None}, "eviction_policy=None: must be 'lru', 'lfu', 'ttl' or 's3-fifo'"),
        (BatchConfig, {"batch_bytes": "64KiB"}, "batch_bytes='64KiB': must be a whole number of bytes, at least 1"),
        (BatchConfig, {"batch_timeout": "1s"}, "batch_timeout='1s': must be a number of seconds, at least 0"),
        (ConnectionPoolConfig, {"acquire_timeout": "1s"}, "must be a number of seconds, more than 0"),
        (ConnectionPoolConfig, {"connect_rate": "5"}, "must be a number of connections a second, more than 0"),
        (CacheConfig, {"shared": "memcached://x"}, "shared='memcached://x': must be a URL that begins with redis://"),
        (CacheConfig, {"shared": "unix://"}, "must be a URL that begins with redis:// or rediss:// or unix://"),
        (CacheConfig, {"prefix": ""}, "prefix='': must have at least one character"),
        (RpcConfig, {"connections": 0}, "connections=0: must be a whole number of at least 1"),
        (RpcConfig, {"max_calls": 0}, "max_calls=0: must be a whole number of at least 1"),
        (RpcConfig, {"timeout": 0}, "timeout=0: must be a number of seconds, more than 0, or None"),
        (MetricsConfig, {"enabled": 0}, "enabled=0: must be True or False"),
        (MetricsConfig, {"interval": 0}, "interval=0: must be a number of seconds, more than 0 and at most 86400"),
        (
            MetricsConfig,
            {"history": 1e9},
            "must be a number of seconds, more than 0 and at most 2592000",
        ),
        (MetricsConfig, {"history": 0.5}, "history=0.5: must be at least interval=1.0"),
        (AlertsConfig, {"enabled": None}, "enabled=None: must be True or False"),
        (AlertsConfig, {"log": 1}, "log=1: must be True or False"),
        (AlertsConfig, {"webhook": "ftp://x"}, "webhook='ftp://x': must be a URL that begins with http:// or https://"),
        (AlertsConfig, {"alertmanager": 3}, "alertmanager=3: must be a URL that begins with http:// or https://"),
        (FallbackConfig, {"cache": "off"}, "cache='off': must be 'auto', 'optimized' or 'bypassed'"),
        (FallbackConfig, {"failures": 0}, "failures=0: must be a whole number of at least 1"),
        (FallbackConfig, {"probe_after": 0}, "probe_after=0: must be a number of seconds, more than 0"),
        (FallbackConfig, {"stage_timeout": 0}, "stage_timeout=0: must be a number of seconds, more than 0"),
        (FallbackConfig, {"sample_every": -1}, "sample_every=-1: must be a whole number of at least 0"),
        (LimitsConfig, {"max_connections": 0}, "max_connections=0: must be a whole number of at least 1, or None"),
        (LimitsConfig, {"max_pending_messages": 0}, "max_pending_messages=0: must be a whole number of at least 1"),
        (
            LimitsConfig,
            {"max_pending_bytes": 0.5},
            "must be a whole number of bytes, at least 1",
        ),
        (LimitsConfig, {"memory_bytes": 0}, "memory_bytes=0: must be a whole number of bytes, at least 1, or None"),
        (LimitsConfig, {"on_limit": "drop"}, "on_limit='drop': must be 'wait' or 'raise'"),
    ],
)
def test_a_field_that_is_out_of_bounds_is_named_with_its_value_and_the_bound(
    section: type[Any], given: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at below
        section(**given)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{next(iter(given))}=")


@pytest.mark.parametrize(
    ("section", "given"),
    [
        (SendingConfig, {"deduplicate": "content", "idle_time": 0}),
        (SendingConfig, {"deduplicate": 0.5}),
        (CacheConfig, {"max_size": 0, "max_bytes": 0, "ttl": 0, "jitter": 1, "shared": "unix:///run/valkey.sock"}),
        (CacheConfig, {"ttl": float("inf"), "shared": "rediss://me:secret@[::1]:6380/1"}),
        (RpcConfig, {"timeout": None}),
        (MetricsConfig, {"interval": 900, "history": 900}),
        (AlertsConfig, {"webhook": "https://example.org/hook", "alertmanager": "http://localhost:9093"}),
        (FallbackConfig, {"sample_every": 0, "pool": "bypassed", "batch": "optimized"}),
        (LimitsConfig, {"max_connections": 1, "memory_bytes": 1, "on_limit": "raise"}),
    ],
)
def test_the_bounds_themselves_are_taken(section: type[Any], given: dict[str, object]) -> None:
    config = section(**given)
    assert {name: getattr(config, name) for name in given} == given


@pytest.mark.parametrize(
    ("section", "configured", "called"),
    [
        (SendingConfig, MessageBatcher, {"batch_size", "max_pending_messages", "max_pending_bytes", "overflow"}),
        (EnvelopeConfig, connect, {"reliable", "resume", "on_session_lost", "send_timeout"}),
        (CacheConfig, MessageCache, {"max_size", "ttl", "eviction_policy", "max_bytes", "stale_ttl", "jitter"}),
        (RpcConfig, Rpc, {"connections", "max_calls"}),
        (RpcConfig, Rpc.call, {"timeout"}),
    ],
)
def test_the_defaults_are_those_of_what_is_configured(section: type[Any], configured: Any, called: set[str]) -> None:
    parameters = inspect.signature(configured).parameters
    assert {name: parameters[name].default for name in called} == {name: getattr(section(), name) for name in called}


@pytest.mark.parametrize("given", ["s3-fifo", EvictionPolicy.S3_FIFO])
def test_a_policy_may_be_named(given: Any) -> None:
    assert CacheConfig(eviction_policy=given).eviction_policy is EvictionPolicy.S3_FIFO


def test_a_batch_is_neither_ordered_nor_searched_for_repeats_by_default() -> None:
    processor = BatchProcessor()
    assert SendingConfig().ordering is processor.ordering_enabled is False
    assert SendingConfig().deduplicate is None
    assert not processor.deduplication_enabled
    assert processor.dedup_window == 0
