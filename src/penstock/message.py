"""What an application batches: a message, and how urgent it is. Pure."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import Any, TypeAlias, cast

from msgspec import Struct
from msgspec.structs import force_setattr

from penstock.errors import MessageTypeError, SerializationError

_REMEDY = "give str for text, bytes for binary"


class MessageType(Enum):
    """What the data of a message is."""

    TEXT = "text"
    BINARY = "binary"
    BATCH = "batch"
    """Many messages in one, as `BatchProcessor.compress_batch` makes and `BatchProcessor.expand_batch` undoes."""


class Priority(IntEnum):
    """How urgent a message is; an ``URGENT`` one does not wait for company."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3


Content: TypeAlias = tuple[MessageType, str | bytes]

TEXT, BINARY, BATCH = MessageType  # looked up for every message, and a member is slow to find
NORMAL, URGENT = Priority.NORMAL, Priority.URGENT
_KINDS = {str: TEXT, bytes: BINARY}


class Message(Struct, frozen=True, gc=False):
    """A message that does not change.

    Raises:
        MessageTypeError: ``data`` is neither text nor bytes, or not what ``message_type`` says.
    """

    data: str | bytes
    """Text or bytes; a ``bytearray`` or ``memoryview`` is copied."""
    message_type: MessageType = cast("Any", None)
    """Told by the type of ``data``, unless it is a batch."""
    priority: Priority = NORMAL
    key: str | None = None
    """Names what the message is the latest value of: a later one with the same key takes its place in the queue."""
    expires_at: float | None = None
    """Seconds on the clock of the event loop, from when on the message is not sent any more; None for never."""

    def __post_init__(self) -> None:
        kind = _KINDS.get(type(self.data))
        if kind is None or kind is not self.message_type:
            self._complete()

    def _complete(self) -> None:
        data: Any = self.data
        if isinstance(data, bytearray | memoryview):
            data = bytes(data)
            force_setattr(self, "data", data)
        kind = kind_of(data)
        if cast("Any", self.message_type) is None:
            force_setattr(self, "message_type", kind)
        elif self.message_type is not kind and (self.message_type is not BATCH or kind is TEXT):
            raise MessageTypeError(f"{type(data).__name__} is no data of a {self.message_type.value} message", _REMEDY)


def content_of(message: Message | str) -> Content:
    """What makes two messages equal: their type and their data, so that ``"a"`` and ``b"a"`` differ."""
    return (TEXT, message) if isinstance(message, str) else (message.message_type, message.data)


def kind_of(data: Any) -> MessageType:
    """What ``data`` is as a message.

    Raises:
        MessageTypeError: neither text nor bytes.
    """
    if isinstance(data, str):
        return TEXT
    if isinstance(data, bytes):
        return BINARY
    raise MessageTypeError(f"{type(data).__name__} is no message", _REMEDY)


def payload_bytes(data: str | bytes) -> int:
    """The size of ``data`` as a payload, in bytes.

    Raises:
        SerializationError: text that is not Unicode.
    """
    if isinstance(data, bytes) or data.isascii():
        return len(data)
    try:
        return len(data.encode())
    except UnicodeEncodeError as exc:
        raise not_unicode(exc) from exc


def not_unicode(exc: UnicodeEncodeError) -> SerializationError:
    """What to raise for text that UTF-8 cannot carry."""
    return SerializationError(
        f"text holds a lone surrogate {exc.object[exc.start]!r} at position {exc.start}, which UTF-8 cannot carry",
        "send it as bytes, or clean it with text.encode('utf-8', 'replace')",
    )
