"""What a client of a JSON-RPC server sends, checked item by item before any of it is passed on. Pure.

A client's ids are kept as the bytes that they came in, and go back so; on the way to the server others stand for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw, Struct
from msgspec.json import Decoder

from penstock.errors import RpcError
from penstock.protocols import messages
from penstock.protocols.messages import INVALID_REQUEST, PARSE_ERROR
from penstock.protocols.reading import ABSENT, NULL, BadJson, as_text, is_array, read, read_any, read_items

MAX_ITEMS = 1000
"""Of an array that a client sends."""

_NO_ID = Raw(NULL)


class _Item(Struct):
    jsonrpc: Raw = ABSENT
    id: Raw = ABSENT
    method: Raw = ABSENT
    params: Raw = ABSENT


_read_item: Callable[[Raw | str], _Item] = Decoder(_Item).decode


class Request(Struct, eq=False):
    """A valid call or notification."""

    id: Raw | None
    """None of a notification."""
    method: str
    params: Raw | None
    answers: Answers | None = None
    """Of the array that it came in."""
    place: int = 0

    def reply(self, value: Any) -> str | None:
        """What to send with its result, which may be `Raw`; None for now, or for good if it is a notification."""
        return None if self.id is None else self._answer(messages.result(self.id, value))

    def fail(self, error: RpcError | Raw) -> str | None:
        """What to send because it failed; None for now, or for good if it is a notification."""
        return None if self.id is None else self._answer(messages.failure(self.id, error))

    def _answer(self, text: str) -> str | None:
        return text if self.answers is None else self.answers.add(self.place, text)


class Answers:
    """The answers to an array, until they are complete: in the order of what they answer."""

    def __init__(self) -> None:
        self._texts: dict[int, str | None] = {}
        self._lacking = 0

    def expect(self, place: int) -> None:
        """An answer will come."""
        self._texts[place] = None
        self._lacking += 1

    def add(self, place: int, text: str) -> str | None:
        """The whole array, when this was the last that was lacking; an answer counts once."""
        if self._texts.get(place, "") is not None:
            return None
        self._texts[place] = text
        self._lacking -= 1
        return None if self._lacking else f"[{','.join(text for text in self._texts.values() if text is not None)}]"


class Asked(Struct, frozen=True):
    """What one message of a client holds."""

    requests: tuple[Request, ...]
    """Valid ones."""
    answer: str | None
    """What to send back at once: nothing valid was in the message that wants a reply."""
    invalid: int
    """Items that were refused."""


def read_requests(message: str | bytes, *, max_items: int = MAX_ITEMS) -> Asked:
    """The requests in a message; it raises nothing, whatever the message is. What is wrong has its reply."""
    try:
        text = as_text(message)
        if not is_array(text):
            return _read_single(read(_just, text))
        items = read(read_items, text)
    except BadJson as exc:
        return Asked((), _refusal(PARSE_ERROR, f"Parse error: {exc}"), 1)
    if not items:
        return Asked((), _refusal(INVALID_REQUEST, "Invalid Request: an empty array"), 1)
    if len(items) > max_items:
        reason = f"Invalid Request: {len(items)} items in an array; {max_items} at most"
        return Asked((), _refusal(INVALID_REQUEST, reason), len(items))
    return _read_array(items)


_just: Callable[[Raw | str], Raw] = Decoder(Raw).decode


def _read_single(item: Raw) -> Asked:
    request = _check(item)
    return Asked((request,), None, 0) if isinstance(request, Request) else Asked((), request, 1)


def _read_array(items: list[Raw]) -> Asked:
    answers = Answers()
    requests: list[Request] = []
    refusals: list[tuple[int, str]] = []
    for place, item in enumerate(items):
        request = _check(item)
        if isinstance(request, Request):
            requests.append(request)
            if request.id is not None:
                request.answers, request.place = answers, place
                answers.expect(place)
        else:
            refusals.append((place, request))
            answers.expect(place)
    answer = None
    for place, refusal in refusals:
        answer = answers.add(place, refusal)
    return Asked(tuple(requests), answer, len(refusals))


def _check(item: Raw) -> Request | str:
    """The request, or the refusal of what is none."""
    try:
        parts = read(_read_item, item)
    except BadJson:
        return _refusal(INVALID_REQUEST, "Invalid Request: no object")
    sent_id = None if parts.id is ABSENT else parts.id
    if sent_id is not None and not _may_be_id(sent_id):
        return _refusal(INVALID_REQUEST, "Invalid Request: an id is a string, a number or null")
    echo = sent_id or _NO_ID
    if parts.jsonrpc is not ABSENT and bytes(parts.jsonrpc) != b'"2.0"':
        return _refusal(INVALID_REQUEST, "Invalid Request: jsonrpc is not 2.0", echo)
    if bytes(memoryview(parts.method)[:1]) != b'"':
        return _refusal(INVALID_REQUEST, "Invalid Request: the method is no string", echo)
    params = None if parts.params is ABSENT or bytes(parts.params) == NULL else parts.params
    if params is not None and bytes(memoryview(params)[:1]) not in {b"[", b"{"}:
        return _refusal(INVALID_REQUEST, "Invalid Request: params are neither an array nor an object", echo)
    return Request(sent_id, read_any(parts.method), params)


def _may_be_id(value: Raw) -> bool:
    return bytes(value) == NULL or bytes(memoryview(value)[:1]) in _FIRST_OF_IDS


_FIRST_OF_IDS = {bytes([byte]) for byte in b'"-0123456789'}


def _refusal(code: int, reason: str, sent_id: Raw = _NO_ID) -> str:
    return messages.failure(sent_id, RpcError(code, reason))
