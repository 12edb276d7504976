"""Which answers may be kept, and for how long: method by method, nothing that is not named. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, TypeAlias

from msgspec import Raw

from penstock.protocols.calls import Event, Reply
from penstock.protocols.reading import NULL, BadJson, read, read_any

Rule: TypeAlias = float | Callable[[Any], float]
"""Seconds, or what finds them by the parameters; it has to do with whatever a caller gives. 0 for never."""


class CachePolicy:
    """A table of methods.

    Args:
        table: a rule for each method.
        nulls: whether a null may be kept; it often stands for what is not there yet.

    Raises:
        ValueError: the table is wrong; says where.
    """

    def __init__(self, table: Mapping[str, Rule], *, nulls: bool = False) -> None:
        for method, rule in table.items():
            if not isinstance(method, str) or not method:
                raise ValueError(f"{method!r} is no method; a policy maps methods to seconds")
            if not callable(rule):
                _check(method, rule)
        self._table = dict(table)
        self._nulls = nulls

    def ttl(self, method: str, params: Any = None) -> float:
        """Seconds for which the answer to a call may be kept; 0 if not at all.

        Args:
            params: what JSON knows, or ``msgspec.Raw`` JSON.

        Raises:
            ValueError: the table's function for this method gave what are no seconds.
        """
        rule = self._table.get(method, 0.0)
        if not callable(rule):
            return rule
        if isinstance(params, Raw):
            try:
                params = read(read_any, params)
            except BadJson:
                return 0.0
        return _check(method, rule(params))

    def may_keep(self, event: Event) -> bool:
        """Whether an answer may be kept at all: an error never, and null only if it was asked for."""
        return isinstance(event, Reply) and (self._nulls or len(event.raw) != len(NULL) or bytes(event.raw) != NULL)


def _check(method: str, seconds: object) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError(f"{method}: {seconds!r} are no seconds; give a number, or a function of the parameters")
    if not isfinite(seconds) or seconds < 0:
        raise ValueError(f"{method}: {seconds} seconds; give a finite number that is not negative")
    return float(seconds)
