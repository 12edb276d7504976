"""No secret is shown."""

from __future__ import annotations

import json

from penstock import AlertsConfig, CacheConfig, ConnectionPoolConfig, PerformanceConfig
from penstock.dashboard.masks import shown_config


def test_the_configuration_shows_no_secret_and_says_what_was_set() -> None:
    config = PerformanceConfig(
        pool=ConnectionPoolConfig(max_connections=7),
        cache=CacheConfig(shared="redis://me:secret1@cache.example/0"),
        alerts=AlertsConfig(webhook="https://hooks.example/services/secret2"),
    )
    shown = {section["name"]: {field["name"]: field for field in section["fields"]} for section in shown_config(config)}
    assert "secret" not in json.dumps(shown)
    assert shown["cache"]["shared"]["value"] == "redis://cache.example/***"
    assert shown["alerts"]["webhook"]["value"] == "https://hooks.example/***"
    assert (shown["pool"]["max_connections"]["value"], shown["pool"]["max_connections"]["default"]) == (7, False)
    assert shown["alerts"]["alertmanager"] == {"name": "alertmanager", "value": "none", "unit": "", "default": True}
    assert shown["cache"]["ttl"] == {"name": "ttl", "value": 300.0, "unit": "seconds", "default": True}
    assert shown["cache"]["eviction_policy"]["value"] == "lru"
