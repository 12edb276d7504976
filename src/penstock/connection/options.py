"""Arguments that nobody knows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches


def refuse_unknown(call: str, given: Iterable[str], known: Collection[str], renamed: Mapping[str, str]) -> None:
    """Raise TypeError, as calls do with an argument that they do not have, and name the nearest that there is.

    Args:
        renamed: what became of names that were valid once.
    """
    for name in given:
        if name not in known:
            nearest = renamed.get(name) or next(iter(get_close_matches(name, sorted(known), 1)), "")
            remedy = f". Did you mean {nearest!r}?" if nearest else ""
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{remedy}")
