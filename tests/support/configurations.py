"""Configurations of all kinds, and the texts that stand for their values."""

from __future__ import annotations

from enum import Enum
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from hypothesis import strategies as st

from penstock import PerformanceConfig
from penstock.config.fields import BYTES, SECONDS, Field, fields_of, sections_of

_NAMES = st.text("abcxyz0123456789", min_size=1, max_size=8)
_URLS = st.builds("{}://me:{}@{}/{}".format, st.sampled_from(("http", "https", "redis")), _NAMES, _NAMES, _NAMES)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)


@st.composite
def configurations(draw: st.DrawFn) -> PerformanceConfig:
    """Any that is valid, as far as each field keeps within bounds."""
    sections = {}
    for name, section in sections_of(PerformanceConfig).items():
        given: dict[str, Any] = {}
        for field in fields_of(section).values():
            more = {**given, field.name: draw(st.one_of(map(_values, field.kinds)))}
            try:
                section(**more)
            except ValueError:
                continue
            given = more
        sections[name] = section(**given)
    return PerformanceConfig(**sections)


def _values(kind: Any) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(list(kind))
    kinds: dict[Any, st.SearchStrategy[Any]] = {
        NoneType: st.none(),
        bool: st.booleans(),
        int: st.integers(0, 10) | st.integers(0, 2**40),
        float: st.floats(0, 1) | st.floats(0),
        str: _URLS | _TEXTS,
    }
    return kinds[kind]


def texts(value: Any, field: Field) -> st.SearchStrategy[str]:
    """What people may write for a value."""
    if value is None:
        return st.sampled_from(("none", "None"))
    if isinstance(value, bool):
        return st.sampled_from(("true", "yes", "on", "1") if value else ("false", "no", "off", "0"))
    if isinstance(value, Enum):
        return st.sampled_from((value.value, value.value.upper()))
    if isinstance(value, int):
        sized = (f"{value}B", f"{value} b", *([f"{value >> 10}KiB"] if value % 1024 == 0 else []))
        return st.sampled_from((str(value), f"{value:_}", *(sized if field.unit == BYTES else ())))
    if isinstance(value, float):
        whole = value.is_integer() and field.unit == SECONDS and value < 2**50
        return st.sampled_from((repr(value), *((f"{int(value)}s", f"{int(value) * 1000}ms") if whole else ())))
    return st.just(value)
