"""What two requests have to share to have the same answer, as one string. Pure.

A key is injective: equal keys mean the same method, the same parameters as JSON, and the same identity. Numbers and
the escapes of strings are compared as they are written, so ``1`` and ``1.0`` are two, and so are numbers that a float
cannot tell apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from json import JSONDecoder
from typing import Any, NoReturn

from msgspec import MsgspecError, Raw
from msgspec.json import Encoder, encode

from penstock.protocols.reading import check_depth

_SPACE = frozenset(" \t\r\n")
_encode_sorted = Encoder(order="sorted").encode


def identity(
    url: str, subprotocol: str | None = None, headers: Iterable[tuple[str, str]] = (), init: Any = None
) -> str:
    """Who asks, as a digest that betrays no token: connections and answers of two identities are never shared."""
    named = [(name.lower(), value) for name, value in headers]
    facts = encode((url, subprotocol, named, None if init is None else Raw(canonical(init).encode())))
    return sha256(facts).hexdigest()[:32]


def key(method: str, params: Any = None, who: str = "") -> str | None:
    """The key of a call; None if it can have none, and must not be cached.

    It begins with the identity and the method, so that a cache can drop all of either by prefix.

    Args:
        params: what JSON knows, or `Raw` JSON.
        who: the `identity`.
    """
    try:
        return prefix(method, who) + ("" if params is None else canonical(params))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def prefix(method: str, who: str = "") -> str:
    """What the keys of a method begin with.

    Raises:
        ValueError: the method or identity is no text.
    """
    return f"{encode((who, method)).decode()}"


def canonical(value: Any) -> str:
    """JSON without spaces, and the members of objects in order.

    Args:
        value: what JSON knows, or `Raw` JSON.

    Raises:
        ValueError: it has no JSON, or is ambiguous: an object that has a member twice.
    """
    try:
        if not isinstance(value, Raw):
            try:
                return _encode_sorted(value).decode()
            except TypeError:  # an object whose names are no strings, or no JSON at all
                value = Raw(encode(value))
        check_depth(value)
        text = bytes(value).decode()
        if "{" not in text and _SPACE.isdisjoint(text):
            return text
        return _encode_sorted(_decoder.decode(text)).decode()
    except (MsgspecError, TypeError, RecursionError, OverflowError) as exc:
        raise ValueError(f"no JSON: {exc}") from exc


def _number(text: str) -> Raw:
    return Raw(text.encode())


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has a member twice")  # servers differ in which of them they take
    return members


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


_decoder = JSONDecoder(parse_int=_number, parse_float=_number, parse_constant=_no_number, object_pairs_hook=_members)
