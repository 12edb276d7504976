"""What sections of the configuration take for their fields. Pure.

Each function raises ValueError if a field is out of bounds; the message names the field, its value and the bound.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from math import inf
from typing import Any
from urllib.parse import urlsplit

from penstock.errors.urls import shown_text, shown_url


def check_count(section: object, name: str, *, least: int = 1, optional: bool = False) -> None:
    """A whole number; None as well, if that is ``optional``."""
    value = getattr(section, name)
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        number = "whole number of bytes, at" if name.endswith("_bytes") else "whole number of at"
        raise ValueError(f"{name}={value!r}: must be a {number} least {least}{_or_none(optional)}")


def check_amount(section: object, name: str, *, most: float = inf, unit: str = " of seconds") -> None:
    """A number of at least 0."""
    value = getattr(section, name)
    if not _is_number(value) or not 0 <= value <= most:
        raise ValueError(f"{name}={value!r}: must be a number{unit}, at least 0{_at_most(most)}")


def check_positive(section: object, name: str, *, most: float = inf, optional: bool = False) -> None:
    """Seconds that pass; None as well, if that is ``optional``."""
    value = getattr(section, name)
    if optional and value is None:
        return
    if not _is_number(value) or not 0 < value <= most:
        raise ValueError(
            f"{name}={value!r}: must be a number of seconds, more than 0{_at_most(most)}{_or_none(optional)}"
        )


def check_choice(section: object, *names: str, choices: Collection[object]) -> None:
    """One of a few values; True is not 1."""
    for name in names:
        value = getattr(section, name)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            *others, last = map(repr, choices)
            raise ValueError(f"{name}={value!r}: must be {', '.join(others)} or {last}")


def check_member(section: object, name: str, kind: type[Enum]) -> None:
    """A member of ``kind``, or its value, in place of which the member is put."""
    value = getattr(section, name)
    try:
        object.__setattr__(section, name, kind(value))
    except ValueError:
        *others, last = (repr(member.value) for member in kind)
        raise ValueError(f"{name}={value!r}: must be {', '.join(others)} or {last}") from None


def check_switch(section: object, *names: str) -> None:
    """True or False."""
    check_choice(section, *names, choices=(True, False))


def check_url(section: object, name: str, *, schemes: Collection[str]) -> None:
    """A URL that names a place, or None."""
    value = getattr(section, name)
    if value is None:
        return
    begins = " or ".join(f"{scheme}://" for scheme in schemes)
    if not isinstance(value, str) or not _is_url(value, schemes):
        raise ValueError(f"{name}={told(value)}: must be a URL that begins with {begins}, or None")


def masked(value: Any) -> Any:
    """A value as it may be shown: without the secrets of URLs."""
    return shown_url(value) if isinstance(value, str) and "://" in value else value


def told(value: Any) -> str:
    """Python's text for a value, which may be any, likewise."""
    return repr(shown_url(value)) if isinstance(value, str) else shown_text(repr(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_url(text: str, schemes: Collection[str]) -> bool:
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.path if parts.scheme == "unix" else parts.hostname) and parts.port != 0
        return parts.scheme in schemes and is_whole
    except ValueError:
        return False


def _at_most(most: float) -> str:
    return "" if most == inf else f" and at most {most:.10g}"


def _or_none(optional: bool) -> str:
    return ", or None" if optional else ""
