"""``graphql-transport-ws``, the client's end of one connection. Pure.

Operations wait until the server has accepted the connection, and have ids that are used once. Pings are answered here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeAlias

from msgspec import MsgspecError, Raw, Struct
from msgspec.json import Decoder, encode

from penstock.errors import GraphQLClosed, GraphQLError, InvalidReply, SerializationError
from penstock.protocols import keys
from penstock.protocols.calls import Frame, Malformed, parse
from penstock.protocols.documents import Kind, kind_of
from penstock.protocols.reading import (
    ABSENT,
    NULL,
    BadJson,
    as_text,
    read,
    read_members,
    without_lone_surrogates,
)

SUBPROTOCOL = "graphql-transport-ws"
MAX_FORGOTTEN = 10_000


class State(Enum):
    """Of an operation."""

    WAITING = 1
    SENT = 2
    FORGOTTEN = 3
    DONE = 4


class Operation(Struct, eq=False):
    """A query, mutation or subscription; it belongs to one connection."""

    payload: str
    """JSON."""
    kind: Kind
    owner: Any = None
    id: str = ""
    """On the wire; empty before it is sent."""
    state: State = State.WAITING
    written: bool = False
    """It may have reached the server."""

    @property
    def is_forgotten(self) -> bool:
        """Nobody waits for it any more, though it is on its way."""
        return self.state is State.FORGOTTEN

    @property
    def may_repeat(self) -> bool:
        """Whether it may be cached, and sent again when it is not known what became of it."""
        return self.kind is Kind.QUERY


class Accepted(Struct, frozen=True):
    """The server has accepted the connection."""

    payload: Raw | None


class Next(Struct, frozen=True):
    """A result of an operation, a view of the message that it came in."""

    operation: Operation
    raw: Raw

    def value(self) -> Any:
        """The result: ``data``, and perhaps ``errors`` and ``extensions``.

        Raises:
            InvalidReply: Python cannot hold it: a number out of range, or nested too deep.
        """
        return parse(self.raw)

    @property
    def may_keep(self) -> bool:
        """Whether it may be cached: a query's, and without errors."""
        if not self.operation.may_repeat:
            return False
        try:
            return bytes(read(read_members, self.raw).get("errors", ABSENT)) in {b"", NULL, b"[]"}
        except BadJson:
            return False


class Errored(Struct, frozen=True):
    """The server has refused an operation; it is over."""

    operation: Operation
    error: GraphQLError
    raw: Raw


class Completed(Struct, frozen=True):
    """An operation has had its last result."""

    operation: Operation


class Stray(Struct, frozen=True):
    """A message about an operation that is over, or never was."""

    id: str


class OperationLost(Struct, frozen=True):
    """An operation that was under way when the connection was lost."""

    operation: Operation
    written: bool
    error: GraphQLClosed | None
    """What the server closed for, if that is the protocol's."""

    @property
    def may_send_again(self) -> bool:
        """Whether another connection may do it, without doing it twice; a subscription will have missed events."""
        again = self.operation.kind in {Kind.QUERY, Kind.SUBSCRIPTION} or not self.written
        return again and (self.error is None or not self.error.is_final)


Event: TypeAlias = Accepted | Next | Errored | Completed | Stray | Malformed


class GraphQLStats(Struct, frozen=True):
    """Counts."""

    waiting: int
    sent: int
    forgotten: int
    strays: int
    """Messages about operations that are over, or never were."""
    malformed: int


class _Message(Struct):
    type: str
    id: str | None = None
    payload: Raw = ABSENT


_read: Callable[[str], _Message] = Decoder(_Message).decode


def operation_key(
    query: str,
    variables: Mapping[str, Any] | Raw | None = None,
    operation_name: str | None = None,
    extensions: Mapping[str, Any] | Raw | None = None,
    *,
    who: str = "",
) -> str | None:
    """What equal operations share: a query its cached answer, a subscription its events; None if it can share none.

    Args:
        who: the `identity`.
    """
    try:
        parts = [Raw((keys.canonical({} if part is None else part)).encode()) for part in (variables, extensions)]
        return keys.prefix("graphql", who) + encode((query, operation_name, *parts)).decode()
    except ValueError:
        return None


class GraphQL:
    """One connection.

    Args:
        init: the payload of ``connection_init``.

    Raises:
        SerializationError: the payload is no JSON.
    """

    def __init__(self, init: Any = None, *, max_forgotten: int = MAX_FORGOTTEN) -> None:
        self._max_forgotten = max_forgotten
        self._init = _text({"type": "connection_init"} | ({} if init is None else {"payload": init}))
        self.is_accepted = False
        self._last_id = 0
        self._waiting: dict[Operation, None] = {}
        self._sent: dict[str, Operation] = {}
        """By id, until they are over; forgotten ones are not in it."""
        self._forgotten: dict[str, None] = {}
        self._out = [Frame(self._init)]
        self._strays = self._malformed = 0

    # Out

    @property
    def is_ready(self) -> bool:
        """Operations may be sent."""
        return self.is_accepted

    @property
    def has_due(self) -> bool:
        """Whether anything is `due`."""
        return bool(self._out or (self.is_accepted and self._waiting))

    def add(
        self,
        query: str,
        variables: Mapping[str, Any] | Raw | None = None,
        operation_name: str | None = None,
        extensions: Mapping[str, Any] | Raw | None = None,
        *,
        owner: Any = None,
    ) -> Operation:
        """Take an operation, which goes out when it is `due`.

        Raises:
            SerializationError: it is no JSON; nothing was added.
        """
        named = {"query": query, "operationName": operation_name, "variables": variables, "extensions": extensions}
        payload = _text({name: part for name, part in named.items() if part is not None})
        operation = Operation(payload, kind_of(query, operation_name), owner)
        self._waiting[operation] = None
        return operation

    def due(self) -> list[Frame]:
        """What is to be sent now; it counts as written. Operations once the connection is accepted."""
        out, self._out = self._out, []
        if self.is_accepted:
            for operation in self._waiting:
                self._last_id += 1
                operation.id, operation.state = str(self._last_id), State.SENT
                operation.written = True
                self._sent[operation.id] = operation
                text = f'{{"id":"{operation.id}","type":"subscribe","payload":{operation.payload}}}'
                out.append(Frame(text, (operation,)))
            self._waiting.clear()
        return out

    def complete(self, operation: Operation) -> None:
        """Nobody wants an operation any more: it is not sent, or the server is told to end it when that is `due`."""
        if operation.state is State.WAITING:
            del self._waiting[operation]
            operation.state = State.DONE
        elif operation.state is State.SENT:
            del self._sent[operation.id]
            operation.state = State.FORGOTTEN
            self._forgotten[operation.id] = None
            if len(self._forgotten) > self._max_forgotten:
                del self._forgotten[next(iter(self._forgotten))]
            self._out.append(_complete(operation))

    def unwritten(self, frame: Frame) -> None:
        """Nothing of a message has reached the socket, nor will it: its operation may be sent elsewhere."""
        for operation in frame.calls:
            operation.written = False

    def withdraw(self, frame: Frame) -> None:
        """A message will not be sent, though the connection goes on: its operation is over, and leaves no trace."""
        for operation in frame.calls:
            if operation.state is State.FORGOTTEN:
                self._forgotten.pop(operation.id, None)
                self._out = [one for one in self._out if one != _complete(operation)]
            elif operation.state is State.SENT:
                del self._sent[operation.id]
            operation.written, operation.state = False, State.DONE

    # In

    def receive(self, message: str | bytes) -> list[Event]:
        """What a message of the server says; it raises nothing, whatever the message is. Then more may be `due`."""
        try:
            text = as_text(message)
            try:
                found = read(_read, text)
            except BadJson:
                repaired = without_lone_surrogates(text)
                if repaired is None:
                    raise
                found = read(_read, repaired)
            return self._take(found)
        except BadJson as exc:
            self._malformed += 1
            return [Malformed(str(exc))]

    def _take(self, message: _Message) -> list[Event]:
        payload = None if message.payload is ABSENT else message.payload
        match message.type:
            case "connection_ack":
                self.is_accepted = True
                return [Accepted(payload)]
            case "ping":
                echo = "" if payload is None else f',"payload":{bytes(payload).decode()}'
                self._out.append(Frame(f'{{"type":"pong"{echo}}}'))
                return []
            case "pong":
                return []
            case "next" | "error" | "complete" if message.id is not None:
                return self._take_result(message.type, message.id, payload)
        raise BadJson(f"a message of type {message.type!r}, with id {message.id!r}")

    def _take_result(self, kind: str, id: str, payload: Raw | None) -> list[Event]:  # noqa: A002 - the protocol's word
        operation = self._sent.get(id)
        if operation is None:
            if kind != "next":
                self._forgotten.pop(id, None)
            self._strays += 1
            return [Stray(id)]
        if kind == "next":
            if payload is None:
                raise BadJson("a result without payload")
            return [Next(operation, payload)]
        del self._sent[id]
        operation.state = State.DONE
        if kind == "complete":
            return [Completed(operation)]
        return [Errored(operation, _errors(payload), Raw(b"[]") if payload is None else payload)]

    # The end

    def lost(self, code: int | None = None, reason: str = "") -> list[OperationLost]:
        """The connection is lost: what was under way, in order.

        Args:
            code: that the server closed with.
        """
        error = GraphQLClosed(code, reason) if code is not None and 4400 <= code <= 4599 else None
        lost = [OperationLost(operation, operation.written, error) for operation in self._sent.values()]
        lost += [OperationLost(operation, False, error) for operation in self._waiting]
        for each in lost:
            each.operation.state = State.DONE
        self._sent.clear()
        self._waiting.clear()
        self._forgotten.clear()
        return lost

    def stats(self) -> GraphQLStats:
        """Counts until now."""
        return GraphQLStats(len(self._waiting), len(self._sent), len(self._forgotten), self._strays, self._malformed)


def _complete(operation: Operation) -> Frame:
    return Frame(f'{{"id":"{operation.id}","type":"complete"}}')


def _errors(payload: Raw | None) -> GraphQLError:
    try:
        errors = [] if payload is None else parse(payload)
    except InvalidReply as exc:
        errors = [{"message": f"an error that cannot be read: {exc.reason}"}]
    return GraphQLError(errors if isinstance(errors, list) else [errors])


def _text(value: Any) -> str:
    try:
        return encode(value).decode()
    except (MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as exc:
        raise SerializationError(f"no JSON: {exc}", "pass what JSON knows") from exc
