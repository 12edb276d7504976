"""Values as people write them, and as a field takes them. Pure."""

from __future__ import annotations

import re
from enum import Enum
from fractions import Fraction
from math import inf
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from penstock.config.fields import BYTES, SECONDS, Field

NONE = "none"
"""How a file and a variable say None."""
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
"""What variables say for True and False."""

_BYTES = {"b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_SECONDS: dict[str, Fraction | int] = {"ms": Fraction(1, 1000), "s": 1, "m": 60, "h": 3600, "d": 86_400}

NUMBER = r"[0-9]+(?:\.[0-9]+)?"
SIZE = rf"^{NUMBER} ?(?:[kKmMgG][iI]?)?[bB]$"
DURATION = rf"^{NUMBER} ?(?:ms|s|m|h|d)$"
_MEASURE = re.compile(rf"({NUMBER}) ?([A-Za-z]+)", re.ASCII)


class Unfit(ValueError):  # noqa: N818 - it never leaves the package
    """A value is none that the field takes; ``expected`` says what is."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected


def read(given: Any, field: Field, *, is_text: bool) -> Any:
    """The value of a field.

    Text may stand for None (``none``), a size (``64MiB``) or a duration (``100ms``). With ``is_text``, as from the
    environment, it may stand for numbers, and for True and False, as well.

    Raises:
        Unfit: it is no such value.
    """
    for kind in field.kinds:
        try:
            value = _parsed(given, kind, field.unit, is_text) if isinstance(given, str) else given
            if _is(value, kind):
                return float(value) if kind is float else value
        except (ValueError, OverflowError):  # no number, or one that a float cannot hold
            pass
    raise Unfit("must be " + " or ".join(_expected(kind, field.unit) for kind in reversed(field.kinds)))


def plain(value: Any) -> Any:
    """A value as a file of JSON's types has it: None is `NONE`, infinity text."""
    if value is None:
        return NONE
    if value == inf:
        return "inf"
    return value.value if isinstance(value, Enum) else value


def _parsed(text: str, kind: Any, unit: str, is_text: bool) -> Any:
    """What text stands for, if a value of this kind is wanted; the text itself if for nothing else."""
    if kind is NoneType:
        return None if text.lower() == NONE else text
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(text.lower())
    if kind is bool:
        return WORDS.get(text.lower(), text) if is_text else text
    if kind in (int, float):
        value = _measured(text, unit)
        return kind(text) if value is None and is_text else value
    return text


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool)
    return isinstance(value, kind)


def _measured(text: str, unit: str) -> int | float | None:
    """A number that is written with its unit; None if it is not."""
    found = _MEASURE.fullmatch(text)
    if found is None:
        return None
    factor: Fraction | int | None = None
    if unit == SECONDS:
        factor = _SECONDS.get(found[2])
    elif unit == BYTES:
        factor = _BYTES.get(found[2].lower())
    if factor is None:
        return None
    value = Fraction(found[1]) * factor
    return int(value) if value.denominator == 1 else float(value)


def _expected(kind: Any, unit: str) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(repr(member.value) for member in kind)
    if kind is int:
        return "bytes, as 65536 or '64KiB'" if unit == BYTES else "a whole number"
    if kind is float:
        return "seconds, as 0.5 or '500ms'" if unit == SECONDS else "a number"
    return {NoneType: NONE, bool: "true or false", str: "text"}[kind]
