"""The frames of ``Penstock: v1``: msgpack arrays that carry many messages each, numbered. Pure.

The protocol is described, clause by clause, in the documentation's page about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeAlias

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError
from msgspec.msgpack import Decoder, encode

from penstock.wire.depth import check_depth

HEADER = "Penstock"
VERSION = "v1"
SUBPROTOCOL = "penstock.v1"
"""What a client offers that cannot set headers; ``penstock.v1+inner`` beside an application's ``inner``."""

MAX_MESSAGES = 4096
"""In one frame."""
MAX_INTEGER = 2**53 - 1
SID_BYTES = 32
OVERHEAD = 64
"""More than a frame has beside what it carries."""

BAD_FRAME, BAD_TEXT, TAKEN_OVER, GAP, TOO_BIG = 4900, 4907, 4909, 4910, 4913
"""Close codes: inner protocols own 44xx."""

NEW, RESUMED, UNKNOWN, LOST, ENDED = range(5)
"""What a WELCOME says: a new session, one resumed, one that is not known or has expired, one with a gap, and one that
was closed in order."""

Number = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Content: TypeAlias = str | bytes


class BadFrame(Exception):  # noqa: N818 - not raised to applications
    """The peer broke the rules; it is told by the close code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


class Data(Struct, array_like=True, tag=0):
    """Messages."""

    seq: Number
    messages: Raw


class Compressed(Struct, array_like=True, tag=1):
    """Messages: what compresses to ``packed`` is an array of ``count``, of ``size`` bytes."""

    seq: Number
    count: Number
    size: Number
    packed: bytes


class Part(Struct, array_like=True, tag=2):
    """A piece of one large message."""

    seq: Number
    flags: Number
    piece: bytes


LAST, TEXT = 1, 2
"""Flags of a `Part`."""


class Ack(Struct, array_like=True, tag=3):
    """Every frame up to ``taken`` was handed to the application; tell as soon as yours has taken ``want``."""

    taken: Number
    want: Number


class Hello(Struct, array_like=True, tag=4):
    """A client opens a session, or goes on with ``sid``."""

    sid: bytes
    rx: Number
    first: Number
    max_frame: Number
    window: Number
    codecs: Number
    max_message: Number

    def __repr__(self) -> str:
        return "<Hello>"  # the sid is a secret


class Welcome(Struct, array_like=True, tag=5):
    """A server's answer; ``ttl`` in milliseconds."""

    sid: bytes
    status: Number
    rx: Number
    first: Number
    max_frame: Number
    window: Number
    codec: Number
    ttl: Number
    max_message: Number
    node: str

    def __repr__(self) -> str:
        return f"<Welcome with status {self.status}>"  # the sid is a secret


class Bye(Struct, array_like=True, tag=6):
    """I send and take no more; nothing is to be resumed."""

    code: Number
    reason: str
    taken: Number


class Unknown(Struct):
    """Of a later version; to be ignored."""


class _Type(Struct, array_like=True):
    """Of any frame, by its first field; what follows is looked through and not made."""

    number: Number


Frame: TypeAlias = Data | Compressed | Part | Ack | Hello | Welcome | Bye | Unknown

_read: Callable[[bytes], Frame] = Decoder(Data | Compressed | Part | Ack | Hello | Welcome | Bye).decode
_read_type = Decoder(_Type).decode
_read_any = Decoder(list[Raw]).decode
_read_texts = Decoder(list[str]).decode
_read_binaries = Decoder(list[bytes]).decode
_read_text = Decoder(str).decode
_read_binary = Decoder(bytes).decode

_FIRST_UNKNOWN = 16


def read(frame: Content) -> Frame:
    """What a WebSocket message holds.

    Raises:
        BadFrame: it is no frame of this protocol.
    """
    if isinstance(frame, str):
        raise BadFrame(BAD_FRAME, "a text frame")
    try:
        check_depth(frame)  # of what is looked through, and not made
        return _read(frame)
    except UnicodeDecodeError as exc:
        raise BadFrame(BAD_TEXT, exc.reason) from exc
    except ValidationError as exc:
        if _is_of_a_later_version(frame):
            return Unknown()
        raise BadFrame(BAD_FRAME, str(exc)) from exc
    except (DecodeError, RecursionError) as exc:
        raise BadFrame(BAD_FRAME, str(exc)) from exc


def _is_of_a_later_version(frame: bytes) -> bool:
    try:
        return _read_type(frame).number >= _FIRST_UNKNOWN
    except (DecodeError, RecursionError):
        return False


def count_of(array: Raw | bytes) -> int:
    """How many items a msgpack array has, by its first bytes; -1 if it is none."""
    head = bytes(memoryview(array)[:5])
    if not head:
        return -1
    if head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    size = {0xDC: 2, 0xDD: 4}.get(head[0])
    return -1 if size is None or len(head) <= size else int.from_bytes(head[1 : size + 1])


def unpack(array: Raw | bytes, count: int | None = None) -> list[Content]:
    """The messages in an array; looks at their number before it makes any.

    Args:
        count: how many there have to be.

    Raises:
        BadFrame: there are none or too many, or some are neither text nor binary.
    """
    view = memoryview(array)
    if view.nbytes > MAX_MESSAGES:  # else there cannot be too many
        found = count_of(array)
        if found > MAX_MESSAGES:
            raise BadFrame(TOO_BIG, f"{found} messages in a frame; {MAX_MESSAGES} at most")
    try:
        messages = _read_messages(view)
    except UnicodeDecodeError as exc:
        raise BadFrame(BAD_TEXT, exc.reason) from exc
    except (DecodeError, RecursionError) as exc:
        raise BadFrame(BAD_FRAME, str(exc)) from exc
    if not messages or (count is not None and len(messages) != count):
        wanted = "at least 1" if count is None else count
        raise BadFrame(BAD_FRAME, f"{len(messages)} messages in a frame, not {wanted}")
    return messages


def _read_messages(array: memoryview) -> list[Content]:
    # One kind after the other: of an array of anything, the decoder would make any number of nested objects.
    try:
        return _read_texts(array)  # type: ignore[return-value]
    except ValidationError:
        pass
    try:
        return _read_binaries(array)  # type: ignore[return-value]
    except ValidationError:
        check_depth(array)
        return [_read_message(item) for item in _read_any(array)]


def _read_message(item: Raw) -> Content:
    try:
        return _read_text(item)
    except ValidationError:
        return _read_binary(item)


def size_of(message: Content) -> int:
    """Bytes of a message's payload."""
    return len(message) if isinstance(message, bytes) or message.isascii() else len(message.encode())


def pack(messages: list[Content]) -> bytes:
    """The array of ``messages``."""
    return encode(messages)


def write(frame: Frame) -> bytes:
    """The bytes of a frame."""
    return encode(frame)


def is_node(name: str) -> bool:
    """Whether a server may be named so to a balancer, in a header."""
    return name.isascii() and (not name or name.isprintable()) and not any(mark in name for mark in ";, ")
