"""The messages of JSON-RPC 2.0, read and written. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from msgspec import MsgspecError, Raw, Struct
from msgspec.json import Decoder, Encoder

from penstock.errors import RpcError, SerializationError
from penstock.protocols.reading import (
    ABSENT,
    NULL,
    UNREADABLE,
    BadJson,
    check_depth,
    is_array,
    read,
    read_any,
    read_items,
    read_members,
    without_lone_surrogates,
)
from penstock.wire.depth import MAX_DEPTH

encode = Encoder().encode

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32601, -32602, -32603
OVERHEAD = 64
"""More bytes than a call has beside its method and parameters."""

_NO_ANSWER = Raw(b'"a reply with neither result nor error"')
_LONGEST_ID = 18  # digits


class Message(Struct, gc=False):
    """Whatever a server sends, not looked into."""

    id: Raw = ABSENT
    method: Raw = ABSENT
    params: Raw = ABSENT
    result: Raw = ABSENT
    error: Raw = ABSENT

    @property
    def number(self) -> int:
        """The id, of those that this end gives away; 0 if it is none of these."""
        text = bytes(self.id)
        if len(text) > _LONGEST_ID:
            return 0
        if text.isdigit():
            return int(text)
        if not text[:1].isdigit():
            return 0
        value = float(text)  # to JSON, 1.0 and 1 are one number
        return int(value) if value.is_integer() else 0

    @property
    def has_id(self) -> bool:
        """Whether it has an id other than null."""
        return self.id is not ABSENT and bytes(self.id) != NULL

    @property
    def has_method(self) -> bool:
        """Whether it is a request or a notification."""
        return self.method is not ABSENT and bytes(memoryview(self.method)[:1]) == b'"'

    @property
    def failure(self) -> Raw | None:
        """The error of a reply, which is one too if it has no result; None if it has one."""
        if self.error is ABSENT:
            return _NO_ANSWER if self.result is ABSENT else None
        if bytes(memoryview(self.error)[:5]) != NULL:
            return self.error
        return _NO_ANSWER if self.result is ABSENT else None


class Plain(Struct, gc=False):
    """A message whose id is an integer, as nearly all are that answer a call; 0 if it has none."""

    id: int = 0
    method: Raw = ABSENT
    result: Raw = ABSENT
    error: Raw = ABSENT


_read_plain: Callable[[str], Plain | list[Plain]] = Decoder(Plain | list[Plain]).decode
_read_one: Callable[[Raw | str], Message] = Decoder(Message).decode
_read_many: Callable[[str], list[Message]] = Decoder(list[Message]).decode


def read_plain(text: str) -> Plain | list[Plain] | None:
    """What `read_messages` finds, where all of it is plain; else None."""
    try:
        if len(text) > MAX_DEPTH:
            check_depth(text)
        return _read_plain(text)
    except UNREADABLE:
        return None


def read_messages(text: str) -> Message | list[Message | BadJson]:
    """The message in a text, or the messages and what is none in an array.

    Escapes of half a surrogate pair, as JavaScript writes them, become U+FFFD.

    Raises:
        BadJson: it is no JSON, neither an object nor an array, or an empty one.
    """
    try:
        return _read(text)
    except BadJson:
        repaired = without_lone_surrogates(text)
        if repaired is None:
            raise
        return _read(repaired)


def _read(text: str) -> Message | list[Message | BadJson]:
    if not is_array(text):
        return read(_read_one, text)
    try:
        items: list[Message | BadJson] = [*read(_read_many, text)]
    except BadJson:
        items = [_read_item(item) for item in read(read_items, text)]
    if not items:
        raise BadJson("an empty array")
    return items


def _read_item(item: Raw) -> Message | BadJson:
    try:
        return read(_read_one, item)
    except BadJson as exc:
        return exc


def text_of_params(method: str, params: Any) -> str | None:
    """Parameters as JSON; None if there are none.

    Raises:
        SerializationError: they are no JSON, or neither an array nor an object.
    """
    if params is None:
        return None
    try:
        text = encode(params).decode()
    except (MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise SerializationError(
            f"the parameters of {method!r} are no JSON: {exc}", "pass a list or a dict of what JSON knows"
        ) from exc
    if text[:1] not in {"[", "{"}:
        raise SerializationError(
            f"the parameters of {method!r} are neither an array nor an object", "pass a list or a dict"
        )
    return text


def text_of_method(method: str) -> str:
    """A method's name as JSON.

    Raises:
        SerializationError: it is none.
    """
    try:
        return _name(method)
    except (TypeError, UnicodeError) as exc:
        raise SerializationError(f"{method!r} is no method", "pass a str without lone surrogates") from exc


@lru_cache(maxsize=256)
def _name(method: str) -> str:
    return encode(method + "").decode()


def call(method: str, params: str | None, number: int) -> str:
    """A call; ``method`` and ``params`` are JSON."""
    if params is None:
        return f'{{"jsonrpc":"2.0","id":{number},"method":{method}}}'
    return f'{{"jsonrpc":"2.0","id":{number},"method":{method},"params":{params}}}'


def notification(method: str, params: Any = None) -> str:
    """A call that gets no reply.

    Raises:
        SerializationError: it is no JSON.
    """
    name, text = text_of_method(method), text_of_params(method, params)
    if text is None:
        return f'{{"jsonrpc":"2.0","method":{name}}}'
    return f'{{"jsonrpc":"2.0","method":{name},"params":{text}}}'


def result(id: Raw, value: Any) -> str:  # noqa: A002 - the protocol's word
    """The reply to a request.

    Raises:
        SerializationError: the result is no JSON.
    """
    try:
        text = encode(value).decode()
    except (MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise SerializationError(f"the result is no JSON: {exc}", "return what JSON knows") from exc
    return f'{{"jsonrpc":"2.0","id":{bytes(id).decode()},"result":{text}}}'


def failure(id: Raw, error: RpcError | Raw) -> str:  # noqa: A002 - the protocol's word
    """The reply to a request that failed.

    Raises:
        SerializationError: the error's data is no JSON.
    """
    if isinstance(error, Raw):
        text = bytes(error).decode()
    else:
        facts = {"code": error.code, "message": error.message}
        if error.data is not None:
            facts["data"] = error.data
        try:
            text = encode(facts).decode()
        except (MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise SerializationError(f"the error's data is no JSON: {exc}", "give what JSON knows") from exc
    return f'{{"jsonrpc":"2.0","id":{bytes(id).decode()},"error":{text}}}'


def unknown_method(id: Raw) -> str:  # noqa: A002 - the protocol's word
    """The reply to a server that asks what nobody here can answer."""
    return failure(id, RpcError(METHOD_NOT_FOUND, "Method not found"))


# Events of subscriptions


def subscription_of(params: Raw | None) -> str | int | None:
    """The server's id of the subscription that a notification belongs to; None if it names none."""
    if params is None:
        return None
    try:
        found = read(read_any, read(read_members, params).get("subscription", ABSENT))
    except BadJson:
        return None
    return found if isinstance(found, str | int) and not isinstance(found, bool) else None


def result_of_event(params: Raw) -> Raw:
    """What a subscription's notification tells; null if nothing."""
    return read(read_members, params).get("result", Raw(NULL))


def event(method: str, params: Raw, subscription: str | int) -> str:
    """The notification of a subscription, under another id, and else as it came."""
    return notification(method, {**read(read_members, params), "subscription": subscription})
