"""The JSON Schema says what the loader takes."""

from __future__ import annotations

import tomllib
from typing import Any

import fastjsonschema
import pytest
from hypothesis import given

from penstock import ConfigError, PerformanceConfig
from penstock.config.fields import fields_of, paths_of, sections_of
from penstock.config.schema import schema_of
from penstock.config.toml import to_toml
from support.configurations import configurations

SCHEMA = schema_of(PerformanceConfig)
validate = fastjsonschema.compile(SCHEMA)


def test_the_default_configuration_is_valid() -> None:
    validate(tomllib.loads(to_toml(PerformanceConfig())))
    validate({})


@given(configurations())
def test_every_configuration_that_can_be_made_is_valid(config: PerformanceConfig) -> None:
    validate(tomllib.loads(to_toml(config)))


@pytest.mark.parametrize(
    "tables",
    [
        {"pool": 3},
        {"pol": {}},
        {"pool": {"max_conections": 3}},
        {"pool": {"max_connections": "3"}},
        {"pool": {"max_connections": -1}},
        {"pool": {"max_connections": 1.5}},
        {"pool": {"acquire_timeout": "3"}},
        {"pool": {"acquire_timeout": "3 KiB"}},
        {"pool": {"acquire_timeout": -1}},
        {"pool": {"connect_rate": "3s"}},
        {"batch": {"batch_bytes": "3s"}},
        {"batch": {"batch_bytes": "3iB"}},
        {"cache": {"eviction_policy": "fifo"}},
        {"cache": {"enabled": "yes"}},
        {"cache": {"shared": 3}},
        {"sending": {"deduplicate": "contents"}},
    ],
)
def test_what_the_loader_refuses_the_schema_refuses(tables: dict[str, Any]) -> None:
    with pytest.raises(fastjsonschema.JsonSchemaException):
        validate(tables)
    with pytest.raises(ConfigError):
        PerformanceConfig.load(environ={}, **tables)


@pytest.mark.parametrize(
    "tables",
    [
        {"pool": {"acquire_timeout": "1.5h", "lease_warning": "none"}},
        {"batch": {"batch_bytes": "1.5 MiB"}},
        {"cache": {"max_bytes": "64kB", "shared": "none"}},
        {"sending": {"deduplicate": "2s"}},
    ],
)
def test_numbers_may_have_units(tables: dict[str, Any]) -> None:
    validate(tables)
    assert PerformanceConfig.load(environ={}, **tables) != PerformanceConfig()


def test_every_field_is_described_and_has_its_default() -> None:
    for name, section in sections_of(PerformanceConfig).items():
        described = SCHEMA["properties"][name]
        assert described["description"]
        assert described["title"]
        assert list(described["properties"]) == list(fields_of(section))
        assert all(field["description"] for field in described["properties"].values())
    without = {
        path
        for path in paths_of(PerformanceConfig)
        if "default" not in SCHEMA["properties"][path.partition(".")[0]]["properties"][path.partition(".")[2]]
    }
    assert without == {"pool.min_connections", "pool.max_total"}
