"""Calls to a JSON-RPC server, and what becomes of them. Pure."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

from msgspec import Raw, Struct

from penstock.errors import InvalidReply, RpcError
from penstock.protocols.batching import Plan
from penstock.protocols.reading import UNREADABLE, check_depth, read_any, reason_of
from penstock.wire.depth import MAX_DEPTH


class Stage(Enum):
    """Where a call is."""

    WAITING = 1
    """To be written."""
    SENT = 2
    """Written, as far as is known; to be answered."""
    FORGOTTEN = 3
    """Timed out or cancelled after it was sent: a tombstone."""
    SETTLED = 4
    """Answered, refused, lost, or cancelled before it was sent."""


class Array(Struct, eq=False):
    """Calls that were sent as one message."""

    calls: tuple[Call, ...]
    unanswered: int
    """Of `calls`; forgotten ones among them."""


_FORGOTTEN, _SETTLED = Stage.FORGOTTEN, Stage.SETTLED


class Call(Struct, eq=False):
    """One call; it belongs to one connection, from when it is added to when it is settled."""

    method: str
    method_text: str
    """As JSON."""
    params: str | None
    """As JSON."""
    idempotent: bool = False
    """May be sent again when it is not known what became of it."""
    owner: Any = None
    """Whatever the caller finds itself by: a future, or the request of a proxy's client with that client's id."""
    id: int = 0
    """On the wire; 0 before it is sent."""
    added_at: float = 0.0
    alone: bool = False
    """Not to be sent in an array."""
    stage: Stage = Stage.WAITING
    written: bool = False
    """It may have reached the server."""
    array: Array | None = None
    plan: Plan | None = None
    """What its time counts for."""

    @property
    def is_forgotten(self) -> bool:
        """Nobody waits for it any more, though it is on its way; perhaps its tombstone was dropped."""
        return self.stage is _FORGOTTEN or self.stage is _SETTLED


class Frame(Struct, frozen=True):
    """A message to be sent as text, and the calls in it; of any of the protocols."""

    text: str
    calls: tuple[Any, ...] = ()


class Reply(Struct, frozen=True):
    """A call has its result, which is a view of the message that it came in: copy what is kept for long."""

    call: Call
    raw: Raw

    def value(self) -> Any:
        """The result.

        Raises:
            InvalidReply: Python cannot hold it: a number out of range, or nested too deep.
        """
        return parse(self.raw)


class Failed(Struct, frozen=True):
    """The server has answered a call with an error, ``raw`` as it came."""

    call: Call
    error: RpcError
    raw: Raw


class Late(Struct, frozen=True):
    """A reply to a call that was forgotten; only a subscription that nobody wants any more needs it."""

    call: Call
    raw: Raw | None
    """The result; None of an error."""


class Missing(Struct, frozen=True):
    """The array that answers these calls came without them; they stay pending, and may yet come."""

    calls: tuple[Call, ...]


class Refused(Struct, frozen=True):
    """An array was refused as a whole, with one error that names no call; all its calls are settled."""

    error: RpcError
    raw: Raw
    again: tuple[Call, ...]
    """Idempotent ones, which may be sent again, one by one."""
    failed: tuple[Call, ...]


class Notified(Struct, frozen=True):
    """The server tells something."""

    method: str
    params: Raw | None


class Requested(Struct, frozen=True):
    """The server asks something, and is owed a reply with its ``id``."""

    id: Raw
    method: str
    params: Raw | None


class Unsolicited(Struct, frozen=True):
    """A reply or error that belongs to no call, or to one that was answered before."""

    id: Raw | None
    error: RpcError | None


class Malformed(Struct, frozen=True):
    """A message, or an item of an array, that is no JSON-RPC."""

    reason: str


class Lost(Struct, frozen=True):
    """A call that was pending when the connection was lost."""

    call: Call
    written: bool
    """It may have reached the server."""

    @property
    def may_send_again(self) -> bool:
        """Whether it cannot be done twice so, or may be."""
        return self.call.idempotent or not self.written


Event: TypeAlias = Reply | Failed | Late | Missing | Refused | Notified | Requested | Unsolicited | Malformed


class JsonRpcStats(Struct, frozen=True):
    """What has come that no caller gets to know, and what is pending. Counts."""

    waiting: int
    """Calls to be written."""
    sent: int
    """Calls to be answered."""
    forgotten: int
    """Tombstones."""
    late: int
    """Replies to calls that had been forgotten."""
    unsolicited: int
    """Replies and errors that belong to no call."""
    malformed: int
    """Messages, or items of arrays, that are no JSON-RPC."""
    missing: int
    """Calls that the reply to their array came without."""
    refused: int
    """Arrays that were refused as a whole."""


def parse(raw: Raw | bytes) -> Any:
    """What a part of a message holds, anew each time.

    Raises:
        InvalidReply: Python cannot hold it: a number out of range, or nested too deep.
    """
    try:
        if len(raw) > MAX_DEPTH:
            check_depth(raw)
        return read_any(raw)
    except UNREADABLE as exc:
        raise InvalidReply(reason_of(exc)) from exc


def error_of(raw: Raw) -> RpcError:
    """The error that an error object describes, whatever a server takes for one.

    Its code is 0 if the server gave no integer, and ``data`` is then the whole.
    """
    try:
        error = parse(raw)
    except InvalidReply as exc:
        return RpcError(0, f"an error that cannot be read: {exc}")
    if not isinstance(error, dict):
        return RpcError(0, error if isinstance(error, str) else "an error without a message", error)
    code, message = error.get("code"), error.get("message")
    text = message if isinstance(message, str) else "an error without a message"
    if type(code) is float and code.is_integer():
        code = int(code)
    return RpcError(code, text, error.get("data")) if type(code) is int else RpcError(0, text, error)
