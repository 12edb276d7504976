"""A configuration as the text of a file. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from penstock.config.fields import fields_of, sections_of
from penstock.config.values import NONE


def to_toml(
    config: object, notes: Mapping[str, str] | None = None, *, shown: Callable[[Any], Any] = lambda value: value
) -> str:
    """A file that gives the same configuration.

    Args:
        notes: by path, as ``section.field``; each becomes the comment of its line.
        shown: makes of a value what is written instead.
    """
    lines = []
    for name, section in sections_of(type(config)).items():
        values = getattr(config, name)
        lines += ["", f"[{name}]"]
        for field in fields_of(section):
            line = f"{field} = {_text(shown(getattr(values, field)))}"
            note = (notes or {}).get(f"{name}.{field}")
            lines.append(line if note is None else f"{line:<40}  # {note}")
    return "\n".join(lines[1:]) + "\n"


def _text(value: Any) -> str:
    if value is None:
        value = NONE
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
