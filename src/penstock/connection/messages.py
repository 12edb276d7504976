"""What an application may send, as payloads of frames."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from penstock.errors import MessageTypeError
from penstock.message import not_unicode
from penstock.wire.frames import BINARY, FIN, TEXT

DataLike: TypeAlias = str | bytes | bytearray | memoryview
Fragments: TypeAlias = Iterable[DataLike] | AsyncIterable[DataLike]

_REMEDY = "send str as text, bytes, bytearray or memoryview as binary, or an iterable of one kind as fragments"


def encode(message: DataLike, text: bool | None = None) -> tuple[int, bytes]:
    """The first byte of the frame of a whole message, and its payload, which is the caller's no longer.

    Raises:
        SerializationError: text that is not Unicode.
        MessageTypeError: neither text nor bytes.
    """
    if isinstance(message, str):
        return FIN | (BINARY if text is False else TEXT), utf8(message)
    if isinstance(message, bytes | bytearray | memoryview):
        return FIN | (TEXT if text is True else BINARY), bytes(message)
    raise refused(message)


def encode_alike(messages: Sequence[DataLike]) -> tuple[int, list[bytes]]:
    """The first byte and the payloads of messages of one kind; no payloads if they are not, or need a closer look."""
    kinds = set(map(type, messages))
    if kinds == {str}:
        try:
            return FIN | TEXT, [message.encode() for message in messages]  # type: ignore[union-attr]
        except UnicodeEncodeError:
            return 0, []
    if kinds == {bytes}:
        return FIN | BINARY, list(messages)  # type: ignore[arg-type]
    return 0, []


def is_whole(message: Any) -> bool:
    """Whether ``message`` is one payload rather than fragments."""
    return isinstance(message, str | bytes | bytearray | memoryview)


def refused(message: Any) -> MessageTypeError:
    """What to raise for something that cannot be sent."""
    kind = type(message).__name__
    if isinstance(message, Mapping):
        return MessageTypeError(f"a dict-like object ({kind}) is no message", "encode it first, e.g. with json.dumps")
    return MessageTypeError(f"{kind} is no message", _REMEDY)


def mixed(first: Any, other: Any) -> MessageTypeError:
    """What to raise for fragments of both kinds."""
    return MessageTypeError(
        f"fragments of one message must be all text or all bytes, not {type(first).__name__} and then "
        f"{type(other).__name__}",
        _REMEDY,
    )


def utf8(text: str) -> bytes:
    """Raises SerializationError: ``text`` is not Unicode."""
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise not_unicode(exc) from exc
