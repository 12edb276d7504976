"""The JSON Schema of a configuration file, for editors and checkers. Pure."""

from __future__ import annotations

from dataclasses import MISSING
from enum import Enum
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from penstock.config.documentation import meanings, summary
from penstock.config.fields import BYTES, SECONDS, Field, fields_of, sections_of
from penstock.config.values import DURATION, NONE, SIZE, plain

DRAFT = "http://json-schema.org/draft-07/schema#"
"""Editors of TOML know this one, and not all a later one."""


def schema_of(config: type) -> dict[str, Any]:
    """What a file may have."""
    texts = meanings(config)
    return {
        "$schema": DRAFT,
        "title": "penstock.toml",
        "description": summary(config),
        "type": "object",
        "properties": {
            name: _section(section) | {"title": texts[name]} for name, section in sections_of(config).items()
        },
        "additionalProperties": False,
    }


def _section(section: type) -> dict[str, Any]:
    texts = meanings(section)
    return {
        "description": summary(section),
        "type": "object",
        "properties": {name: _field(field, texts[name]) for name, field in fields_of(section).items()},
        "additionalProperties": False,
    }


def _field(field: Field, text: str) -> dict[str, Any]:
    kinds = [kind for each in field.kinds for kind in _kinds(each, field.unit)]
    described = {"description": text, **(kinds[0] if len(kinds) == 1 else {"anyOf": kinds})}
    return described if field.default is MISSING else described | {"default": plain(field.default)}


def _kinds(kind: Any, unit: str) -> list[dict[str, Any]]:
    if get_origin(kind) is Literal:
        return [{"enum": list(get_args(kind))}]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [{"enum": [member.value for member in kind]}]
    if kind is int:
        return [{"type": "integer", "minimum": 0}, *([_pattern(SIZE)] if unit == BYTES else [])]
    if kind is float:
        return [{"type": "number", "minimum": 0}, *([_pattern(DURATION)] if unit == SECONDS else [])]
    return [{NoneType: {"const": NONE}, bool: {"type": "boolean"}, str: {"type": "string"}}[kind]]


def _pattern(pattern: str) -> dict[str, Any]:
    return {"type": "string", "pattern": pattern}
