"""What a GraphQL document does, without reading all of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum


class Kind(Enum):
    """Of an operation."""

    QUERY = "query"
    """May be cached, and repeated."""
    MUTATION = "mutation"
    SUBSCRIPTION = "subscription"
    UNKNOWN = "unknown"
    """To be treated as a mutation."""


_TOKEN = re.compile(
    r'"""(?:\\"""|[^"]|"(?!""))*"""|"(?:\\.|[^"\\\r\n])*"|#[^\r\n]*|[_A-Za-z][_0-9A-Za-z]*|[{}()\[\]]|"'
)
_DEEPER, _HIGHER = frozenset("{(["), frozenset("})]")
_KINDS = {kind.value: kind for kind in (Kind.QUERY, Kind.MUTATION, Kind.SUBSCRIPTION)}


def kind_of(document: str, operation_name: str | None = None) -> Kind:
    """The kind of the operation that is chosen in a document; UNKNOWN if that is not certain."""
    operations = _operations(document)
    if operations is None:
        return Kind.UNKNOWN
    chosen = [kind for name, kind in operations if operation_name in {None, name}]
    return chosen[0] if len(chosen) == 1 else Kind.UNKNOWN


def _operations(document: str) -> list[tuple[str | None, Kind]] | None:
    """Name and kind of each operation; None if the document is not balanced."""
    operations: list[tuple[str | None, Kind]] = []
    head: list[str] = []
    """Words of a definition before its first bracket."""
    depth = 0
    is_open = is_body = False  # of a definition
    for word in _words(document):
        if word in _DEEPER:
            if depth == 0:
                if not is_open:
                    _define(head, operations)
                is_open, is_body = True, word == "{"
            depth += 1
        elif word in _HIGHER:
            depth -= 1
            if depth == 0 and is_body:
                head, is_open = [], False
        elif depth == 0:
            head.append(word)
        if depth < 0 or word == '"':
            return None
    return None if depth or is_open or head else operations


def _words(document: str) -> Iterator[str]:
    """Names and brackets; a quote of a string that does not end."""
    for found in _TOKEN.finditer(document):
        word = found[0]
        if word == '"' or word[0] not in '"#':
            yield word


def _define(head: list[str], operations: list[tuple[str | None, Kind]]) -> None:
    keyword = head[0] if head else "query"
    if keyword != "fragment":
        operations.append((head[1] if len(head) > 1 else None, _KINDS.get(keyword, Kind.UNKNOWN)))
