"""GraphQL, with the subprotocol ``graphql-transport-ws``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

from msgspec import Raw, Struct

from penstock.errors import GraphQLClosed, GraphQLError, InvalidReply
from penstock.protocols.calls import Frame, Malformed, parse
from penstock.protocols.documents import Kind, kind_of
from penstock.protocols.feeds import Feed, Id
from penstock.protocols.graphql import (
    SUBPROTOCOL,
    Completed,
    Errored,
    GraphQL,
    Next,
    Operation,
    Stray,
    operation_key,
)
from penstock.rpc.asking import Gone
from penstock.rpc.client import GREETING, MAX_CALLS, Client, lost_with, shut_out
from penstock.rpc.consumer import MAX_EVENT_BYTES, MAX_EVENTS, Subscription
from penstock.rpc.feeding import TIMEOUT, Ask, Feeds
from penstock.rpc.identity import identity_of
from penstock.rpc.keeping import AnswerCache
from penstock.rpc.link import Link, logger
from penstock.rpc.sources import Lends, Source
from penstock.transport.base import ConnectionClosed, Data

Part = Mapping[str, Any] | Raw | None


class _Document(Struct, frozen=True):
    """What is to be done."""

    query: str
    variables: Part
    operation_name: str | None
    extensions: Part

    @property
    def name(self) -> str:
        """For errors."""
        return self.operation_name or self.kind.value

    @property
    def kind(self) -> Kind:
        return kind_of(self.query, self.operation_name)

    def send(self, link: Link[GraphQL], owner: Any) -> Operation:
        operation = link.rpc.add(self.query, self.variables, self.operation_name, self.extensions, owner=owner)
        link.wake()
        return operation

    def may_keep(self, answer: Any) -> bool:
        return isinstance(answer, Next) and answer.may_keep


class _Number:
    """Whose results they are: a feed's, by the number that it has on its connection."""

    def __init__(self, number: int) -> None:
        self.number = number


class _Feeds(Feeds):
    """Subscriptions that begin with an operation, which no reply confirms, and end with it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._last = 0
        self._operations: dict[Id, Operation] = {}

    async def _ask(self, link: Link[GraphQL], feed: Feed) -> None:
        self._last += 1
        number = self._last
        operation = feed.params.send(link, _Number(number))
        self._operations[number] = operation
        self._subs.asked(feed, link)
        self._apply(self._subs.opened(feed, link, number))

    def _call(self, link: Link[GraphQL], feed: Feed, ask: Ask) -> Any:
        raise AssertionError

    def _uncall(self, link: Link[GraphQL], method: Any, id: Id) -> None:  # noqa: A002 - the protocol's word
        operation = self._operations.pop(id, None)
        if operation is not None:
            self._forget(link, operation)
        self._subs.closed(link, id)

    def _forget(self, link: Link[GraphQL], call: Operation) -> None:
        link.rpc.complete(call)
        link.wake()

    def ended(self, link: Link[GraphQL], number: int, error: Exception | None) -> None:
        """The server has ended one, or it could not be sent."""
        self._operations.pop(number, None)
        self._apply(self._subs.completed(link, number, error))

    def unsent(self, link: Link[GraphQL], call: Operation, exc: Exception) -> None:
        if isinstance(call.owner, _Number):
            self.ended(link, call.owner.number, exc)

    def gone(self, number: int) -> None:
        """Its connection was lost."""
        self._operations.pop(number, None)


class GraphQLRpc(Client[GraphQL]):
    """A client of a GraphQL server; made for a pool's connections, or by `penstock.rpc.connect` for one.

    As `penstock.Rpc`, but: a connection that it has taken of a pool is closed when it is returned, because the server
    has let this client in; it is kept for half a minute without operations. Queries are sent again when their
    connection was lost, mutations only if they certainly were not sent.

    Args:
        init: the payload of ``connection_init``, such as a token: a dict, or a function that gives one for each
            connection. Clients that share a cache share answers if URL, headers and this are equal; with a function
            if ``identity`` is.
        greeting: seconds for the server to accept the connection.
        pool: this and the following are as for `penstock.Rpc`.

    Raises:
        ValueError: a bound is no positive number.
        SerializationError: ``init`` is no JSON.
    """

    SUBPROTOCOLS: ClassVar[Sequence[str]] = (SUBPROTOCOL,)
    IS_REUSABLE = False
    _feeds: _Feeds

    def __init__(
        self,
        pool: Lends | Source,
        url: str,
        *,
        init: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        connections: int = 4,
        cache: AnswerCache | None = None,
        max_calls: int = MAX_CALLS,
        identity: str = "",
        greeting: float = GREETING,
        **options: Any,
    ) -> None:
        super().__init__(
            pool,
            url,
            options,
            connections=connections,
            cache=cache,
            max_calls=max_calls,
            identity=identity,
            greeting=greeting,
        )
        if not callable(init):
            GraphQL(init)
            self._who = identity_of(url, options, identity, init)
        elif cache is not None and not identity:
            raise ValueError("init= is a function and cache= is shared: pass identity=, which tells who asks")
        self._init = init
        self._feeds = _Feeds(self._links, self._counts)

    # Operations

    async def call(
        self,
        document: str,
        variables: Part = None,
        *,
        operation_name: str | None = None,
        extensions: Part = None,
        timeout: float | None = 10.0,
        ttl: float | None = None,
    ) -> Any:
        """The ``data`` of a query or mutation.

        Args:
            variables: a dict of what JSON knows, or ``msgspec.Raw`` JSON.
            operation_name: which one of several in the document.
            timeout: seconds for all of it; None for no limit.
            ttl: seconds for which the answer may be kept in the client's cache, if it has no errors.

        Raises:
            GraphQLError: the answer has errors; what data there is has the error's ``data``.
            CallTimeout, CallLost, TooManyCalls, SerializationError, InvalidReply, RpcClosed, ConnectionFailed,
                PoolExhausted: as `Rpc.call`.
            GraphQLClosed: the server does not let this client in.
            ValueError: a ``ttl`` for what is no query, or without a cache; or a subscription.
        """
        result = await self.execute(
            document,
            variables,
            operation_name=operation_name,
            extensions=extensions,
            timeout=timeout,
            ttl=ttl,
        )
        return _data_of(result)

    async def query(self, document: str, variables: Part = None, **options: Any) -> Any:
        """The ``data`` of a query: `call`, which raises ValueError of what certainly is none."""
        kind = kind_of(document, options.get("operation_name"))
        if kind is not Kind.QUERY:
            raise ValueError(f"this is a {kind.value} operation; for mutations there is call, else subscribe")
        return await self.call(document, variables, **options)

    async def execute(
        self,
        document: str,
        variables: Part = None,
        *,
        operation_name: str | None = None,
        extensions: Part = None,
        timeout: float | None = 10.0,
        ttl: float | None = None,
    ) -> Any:
        """The whole result: a dict with ``data``, and perhaps ``errors`` and ``extensions``. Else as `call`."""
        request = _Document(document, variables, operation_name, extensions)
        kind = request.kind
        if kind is Kind.SUBSCRIPTION:
            raise ValueError("this document is a subscription; use subscribe")
        self._check_ttl(ttl)
        if ttl and kind is not Kind.QUERY:
            raise ValueError(f"ttl={ttl!r}: only queries are kept, and this is a {kind.value} operation")
        self._admit()
        key = operation_key(document, variables, operation_name, extensions, who=self._who) if ttl else None
        if key is None or not ttl:
            reply = await self._ask(request, timeout)
            return parse(reply.raw)
        found = self._find(key)
        return parse(await self._load(key, request, ttl, timeout) if found is None else found)

    def subscribe(
        self,
        document: str,
        variables: Part = None,
        *,
        operation_name: str | None = None,
        extensions: Part = None,
        whole: bool = False,
        resume: bool = True,
        share: bool = True,
        timeout: float | None = TIMEOUT,
        max_events: int = MAX_EVENTS,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> Subscription:
        """The results of a subscription, to be iterated over; it is made when the iteration begins.

        Each event is the ``data`` of a result; one with errors is raised as `GraphQLError`, and the next can be taken.
        It ends when the server has completed it.

        Args:
            whole: events are whole results, with ``errors`` and ``extensions``, and none is raised.
            resume: after a reconnect subscribe again, and tell of it with a `Gap`; else it ends with `CallLost`.
            share: the server is asked once for all equal ones of this client. Who comes later gets no events from
                before.
            timeout: seconds until it is on its way to a server; the protocol does not confirm it.
            max_events: that wait to be taken; at the next it ends with `ConsumerTooSlow`.
            max_event_bytes: the same, of all that wait. One event may be longer.

        Raises:
            SerializationError: the variables are no JSON.
            ValueError: a bound is not positive, or the document is no subscription.
        """
        wanted = _Document(document, variables, operation_name, extensions)
        if wanted.kind not in {Kind.SUBSCRIPTION, Kind.UNKNOWN}:
            raise ValueError(f"this document is a {wanted.kind.value}; use call")
        GraphQL().add(document, variables, operation_name, extensions)  # raises what cannot be sent
        key = operation_key(document, variables, operation_name, extensions) if share else None
        begin = partial(
            self._feeds.begin,
            method=wanted.name,
            params=wanted,
            unsubscribe=None,
            resume=resume,
            key=key,
            timeout=timeout,
        )
        read = parse if whole else _read_data
        return Subscription(wanted.name, begin, self._feeds.end, max_events, max_event_bytes, timeout, read)

    # What happens on links; penstock's own

    def speak(self, known: Any) -> GraphQL:
        return GraphQL(self._init() if callable(self._init) else self._init)

    def due(self, link: Link[GraphQL]) -> Sequence[Frame]:
        return link.rpc.due()

    def take(self, link: Link[GraphQL], message: Data) -> None:
        for event in link.rpc.receive(message):
            match event:
                case Next(operation, raw) if isinstance(operation.owner, _Number):
                    self._feeds.received(link, operation.owner.number, raw)
                case Next(operation):
                    self._settle(operation.owner, event)
                case Errored(operation, error) if isinstance(operation.owner, _Number):
                    self._feeds.ended(link, operation.owner.number, error)
                case Errored(operation, error):
                    self._fail(operation.owner, error)
                case Completed(operation) if isinstance(operation.owner, _Number):
                    self._feeds.ended(link, operation.owner.number, None)
                case Completed(operation):
                    self._fail(operation.owner, GraphQLError([{"message": "completed without a result"}]))
                case Stray():
                    self._counts.late += 1
                case Malformed(reason):
                    self._counts.malformed += 1
                    logger.debug("the server sent what is no graphql-transport-ws: %s", reason)

    def _forget(self, link: Link[GraphQL], call: Operation) -> None:
        link.rpc.complete(call)
        link.wake()

    def _lost(self, link: Link[GraphQL], exc: ConnectionClosed | None) -> Exception:
        code, reason = (None, "") if exc is None or exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason)
        for lost in link.rpc.lost(code, reason):
            owner = lost.operation.owner
            if isinstance(owner, _Number):
                self._feeds.gone(owner.number)
            else:
                error = lost.error or lost_with(lost.operation.kind.value, lost.written, exc)
                self._settle(owner, Gone(lost.written, lost.may_send_again, error))
        if code is not None and 4400 <= code <= 4599:
            error = GraphQLClosed(code, reason)
            error.__cause__ = exc
            return error
        return shut_out(self.url, exc)


def _data_of(result: Any) -> Any:
    if not isinstance(result, dict):
        raise InvalidReply("a result that is no object")
    errors = result.get("errors")
    if errors:
        raise GraphQLError(errors if isinstance(errors, list) else [errors], result.get("data"))
    return result.get("data")


def _read_data(raw: Raw) -> Any:
    return _data_of(parse(raw))
