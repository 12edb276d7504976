"""What a cache takes for its arguments. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf


def check_seconds(name: str, value: float, *, most: float = inf) -> None:
    """Raise ValueError if ``value`` is no duration, or more than ``most``."""
    if not isinstance(value, int | float) or not 0 <= value <= most:
        limit = "math.inf for no limit" if most == inf else f"{most:g} at most"
        raise ValueError(f"{name}={value!r}: must be a number of seconds, at least 0; {limit}")


def check_bounds(max_size: int, max_bytes: int | None, jitter: float) -> None:
    """Raise ValueError if one of them is out of bounds."""
    for name, value in (("max_size", max_size), ("max_bytes", max_bytes)):
        if value is not None and (not isinstance(value, int) or value < 0):
            raise ValueError(f"{name}={value!r}: must be a whole number of at least 0")
    if max_size is None:
        raise ValueError("max_size=None: must be a whole number of at least 0; every entry takes memory")
    if not isinstance(jitter, int | float) or not 0 <= jitter <= 1:
        raise ValueError(f"jitter={jitter!r}: must be at least 0 and at most 1")


def check_failures(negative_ttl: Mapping[type[Exception], float]) -> None:
    """Raise TypeError or ValueError if these are no exceptions with their seconds."""
    for error, seconds in negative_ttl.items():
        if not isinstance(error, type) or not issubclass(error, Exception):
            raise TypeError(f"negative_ttl has the key {error!r}: must be a class of exceptions")
        check_seconds(f"negative_ttl[{error.__name__}]", seconds)


def as_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags as they are kept.

    Raises:
        TypeError: text is no collection of tags.
    """
    if isinstance(tags, str):
        raise TypeError(f"tags={tags!r}: must be a collection of texts, as ({tags!r},)")
    return tuple(dict.fromkeys(tags))
