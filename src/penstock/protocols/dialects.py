"""Protocols whose JSON carries an id, each in its own place. Pure."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, TypeAlias

from msgspec import Raw, Struct

from penstock.errors import InvalidReply, RpcError
from penstock.protocols.calls import parse
from penstock.protocols.reading import ABSENT, BadJson, read, read_any, read_members

Members: TypeAlias = dict[str, Raw]


class Verdict(Enum):
    """What a message with the id of a call is to that call."""

    REPLY = 1
    FAILURE = 2
    INTERIM = 3
    """The server has taken it; the reply comes."""
    EVENT = 4
    """Of the subscription that the call has made."""


class Login(Struct, frozen=True):
    """A phase before the first call, in which messages have no ids."""

    ask: str
    """The type of the server's message that asks for credentials."""
    accepted: str
    refused: str


class Dialect(Struct, frozen=True):
    """Where a protocol has what."""

    name: str
    path: tuple[str, ...]
    """Of the id, in calls and in replies."""
    judge: Callable[[Members, Members], Verdict]
    """What a message is to a call; both by their members."""
    failure: Callable[[Members], RpcError]
    """The error that a failure tells."""
    scope: tuple[str, ...] = ()
    """Members that a call and its reply have in common, or both lack."""
    make_id: Callable[[int], str | int] = int
    login: Login | None = None
    is_array_allowed: bool = False
    """The server may send several messages in an array."""
    opening: dict[str, Any] | None = None
    """The first message on each connection; what comes of it is of no matter."""
    close: Callable[[str | int], dict[str, Any]] | None = None
    """The message that ends what the call of that id has subscribed to."""


def text_in(members: Members, name: str) -> str | None:
    """A member that is a string."""
    try:
        found = read(read_any, members.get(name, ABSENT))
    except BadJson:
        return None
    return found if isinstance(found, str) else None


def inside(members: Members, name: str) -> Members:
    """The members of a member that is an object; none if it is none."""
    try:
        return read(read_members, members.get(name, ABSENT))
    except BadJson:
        return {}


def _error_in(members: Members, code: str, message: str) -> RpcError:
    """The error in the member of that name, by the names of its parts."""
    raw = members.get("error")
    try:
        whole: Any = None if raw is None else parse(raw)
    except InvalidReply as exc:
        return RpcError(0, f"an error that cannot be read: {exc.reason}")
    parts = whole if isinstance(whole, dict) else {}
    number, text = parts.get(code), parts.get(message)
    return RpcError(
        number if isinstance(number, int) else 0, text if isinstance(text, str) else "an error without a message", whole
    )


def _judge_devtools(_: Members, message: Members) -> Verdict:
    return Verdict.FAILURE if "error" in message else Verdict.REPLY


def _judge_hub(_: Members, message: Members) -> Verdict:
    match text_in(message, "type"):
        case "event":
            return Verdict.EVENT
        case "result":
            is_success = bytes(message.get("success", ABSENT)) == b"true"
            return Verdict.REPLY if is_success else Verdict.FAILURE
    return Verdict.REPLY  # such as a pong


_DONE_WITH_AN_ACK = frozenset({"keepalive", "trickle", "hangup"})


def _judge_janus(call: Members, message: Members) -> Verdict:
    match text_in(message, "janus"):
        case "error":
            return Verdict.FAILURE
        case "ack" if text_in(call, "janus") not in _DONE_WITH_AN_ACK:
            return Verdict.INTERIM
    return Verdict.REPLY


DEVTOOLS = Dialect(
    "Chrome DevTools",
    ("id",),
    _judge_devtools,
    lambda members: _error_in(members, "code", "message"),
    scope=("sessionId",),
)
HOME_ASSISTANT = Dialect(
    "Home Assistant",
    ("id",),
    _judge_hub,
    lambda members: _error_in(members, "code", "message"),  # its codes are words: see `RpcError.data`
    login=Login("auth_required", "auth_ok", "auth_invalid"),
    is_array_allowed=True,
    opening={"type": "supported_features", "features": {"coalesce_messages": 1}},
    close=lambda subscribed: {"type": "unsubscribe_events", "subscription": subscribed},
)
JANUS = Dialect(
    "Janus",
    ("transaction",),
    _judge_janus,
    lambda members: _error_in(members, "code", "reason"),
    make_id=str,
)
