"""JSON as it comes from a peer, which may send anything. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from sys import getrecursionlimit
from typing import Any, TypeVar

from msgspec import DecodeError, Raw
from msgspec.json import Decoder

from penstock.wire.depth import MAX_DEPTH, TRUSTED_LIMIT

T = TypeVar("T")

ABSENT = Raw(b"")
"""A member that is not there; compare by identity."""

NULL = b"null"

_LONE_SURROGATE = re.compile(
    r"(?P<before>(?<!\\)(?:\\\\)*)(?:(?P<pair>\\u[dD][89abAB]..\\u[dD][c-fC-F]..)|\\u[dD][89a-fA-F]..)"
)

read_any: Callable[[Raw | str | bytes], Any] = Decoder().decode
read_members: Callable[[Raw | str | bytes], dict[str, Raw]] = Decoder(dict[str, Raw]).decode
read_items: Callable[[Raw | str | bytes], list[Raw]] = Decoder(list[Raw]).decode


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def check_depth(text: Raw | str | bytes) -> None:
    """Raise RecursionError for JSON whose depth would end the process."""
    if getrecursionlimit() > TRUSTED_LIMIT and is_deep(text.encode() if isinstance(text, str) else bytes(text)):
        raise RecursionError("nested too deep")


def is_deep(text: bytes) -> bool:
    """Whether JSON is deeper than `MAX_DEPTH`; also where strings in it hold more brackets that do not match."""
    left = text.translate(None, _NO_BRACKETS)
    if len(left) <= MAX_DEPTH:
        return False
    for _ in range(MAX_DEPTH):
        inner = left
        left = inner.replace(b"[]", b"").replace(b"{}", b"")
        if len(left) == len(inner):
            return len(left) > MAX_DEPTH
    return bool(left)


class BadJson(Exception):  # noqa: N818 - not raised to applications
    """What came is no JSON, or not of the expected shape."""


def as_text(message: str | bytes) -> str:
    """The text of a message; JSON may come in binary ones too.

    Raises:
        BadJson: it is not UTF-8.
    """
    if isinstance(message, str):
        return message
    try:
        return message.decode()
    except UnicodeDecodeError as exc:
        raise BadJson(f"not UTF-8: {exc.reason} at byte {exc.start}") from exc


UNREADABLE = (DecodeError, UnicodeError, RecursionError)
"""What decoding raises."""


def reason_of(error: BaseException) -> str:
    """Why a text could not be decoded."""
    if isinstance(error, UnicodeDecodeError | UnicodeEncodeError):
        return f"not UTF-8: {error.reason}"
    return "nested too deep" if isinstance(error, RecursionError) else str(error)


def read(decode: Callable[[Any], T], text: str | bytes | Raw) -> T:
    """What ``decode`` makes of a text.

    Raises:
        BadJson: it is no JSON, of another shape, or nested too deep.
    """
    try:
        check_depth(text)
        return decode(text)
    except UNREADABLE as exc:
        raise BadJson(reason_of(exc)) from exc


def is_array(text: str) -> bool:
    """Whether a text that holds JSON holds an array."""
    return (text[:1] if text[:1] in {"{", "["} else text.lstrip(" \t\r\n")[:1]) == "["


def without_lone_surrogates(text: str) -> str | None:
    """The text with U+FFFD for each escape of half a surrogate pair, as JavaScript writes them; None if it has none.

    They are allowed in JSON, but no UTF-8 and no WebSocket text can carry what they stand for.
    """
    if "\\ud" not in text and "\\uD" not in text:
        return None
    repaired = _LONE_SURROGATE.sub(lambda found: found[0] if found["pair"] else found["before"] + "\\ufffd", text)
    return None if repaired == text else repaired
