"""What a dataclass of the configuration has. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

SECONDS = "seconds"
BYTES = "bytes"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a section."""

    name: str
    kinds: tuple[Any, ...]
    """Types of which its value is one, ``NoneType`` before all others."""
    unit: str
    """Of the number that it is; empty for a count, and for what is no number."""
    default: Any
    """``dataclasses.MISSING`` if it depends on others."""


def sections_of(config: type) -> Mapping[str, type]:
    """The dataclasses that a configuration consists of."""
    return {
        name: hint for name, hint in get_type_hints(config).items() if isinstance(hint, type) and is_dataclass(hint)
    }


def fields_of(section: type) -> Mapping[str, Field]:
    """The fields of a section.

    Numbers with a fraction are seconds unless the metadata of the field has a ``unit``.
    """
    hints = get_type_hints(section)
    found = {}
    for field in dataclasses.fields(section):
        kinds = _kinds(hints[field.name])
        unit = field.metadata.get("unit") or _unit(field.name, kinds)
        default = field.default
        if default is None and NoneType not in kinds:
            default = dataclasses.MISSING
        found[field.name] = Field(field.name, kinds, unit, default)
    return found


def paths_of(config: type) -> dict[str, Field]:
    """All fields, as ``section.field``."""
    sections = sections_of(config).items()
    return {f"{name}.{field.name}": field for name, section in sections for field in fields_of(section).values()}


def _kinds(hint: Any) -> tuple[Any, ...]:
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(sorted(kinds, key=lambda kind: kind is not NoneType))


def _unit(name: str, kinds: tuple[Any, ...]) -> str:
    if float in kinds:
        return SECONDS
    return BYTES if name.endswith("_bytes") else ""
