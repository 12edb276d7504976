"""Protocols whose JSON carries an id: Chrome DevTools, Home Assistant, Janus, and whatever a `Dialect` describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec import Raw
from msgspec.json import encode

from penstock.errors import ConnectionDenied, InvalidReply
from penstock.protocols import keys
from penstock.protocols.calls import Frame, Malformed, parse
from penstock.protocols.dialects import DEVTOOLS, HOME_ASSISTANT, JANUS, Dialect
from penstock.protocols.feeds import Feed, Id
from penstock.protocols.idjson import (
    Answered,
    Ask,
    AskFailed,
    Event,
    IdJson,
    LoginAsked,
    LoginRefused,
    Pushed,
    Stray,
    Streamed,
    with_id,
)
from penstock.rpc import feeding
from penstock.rpc.asking import Gone
from penstock.rpc.client import GREETING, MAX_CALLS, Client, lost_with, shut_out
from penstock.rpc.consumer import MAX_EVENT_BYTES, MAX_EVENTS, Subscription
from penstock.rpc.identity import identity_of
from penstock.rpc.keeping import AnswerCache
from penstock.rpc.link import Link, logger
from penstock.rpc.sources import Lends, Source
from penstock.transport.base import ConnectionClosed, Data

DIALECTS = {"devtools": DEVTOOLS, "home-assistant": HOME_ASSISTANT, "janus": JANUS}

Message = Mapping[str, Any] | Raw


class _Request:
    """A message that wants a reply."""

    def __init__(self, name: str, message: Message, *, idempotent: bool) -> None:
        self.name, self._message, self._idempotent = name, message, idempotent

    def send(self, link: Link[IdJson], owner: Any) -> Ask:
        ask = link.rpc.add(self._message, idempotent=self._idempotent, owner=owner)
        link.wake()
        return ask

    def may_keep(self, answer: Any) -> bool:
        return isinstance(answer, Answered)


class _Feeds(feeding.Feeds):
    """Subscriptions that a message begins, whose id its events have, and another message ends."""

    def _call(self, link: Link[IdJson], feed: Feed, ask: feeding.Ask) -> Ask:
        call = link.rpc.add(feed.params, opens=True, owner=ask)
        link.wake()
        return call

    def _uncall(self, link: Link[IdJson], method: Any, id: Id) -> Ask | None:  # noqa: A002 - the protocol's word
        subscribed = link.rpc.find(id)
        if subscribed is not None:
            link.rpc.forget(subscribed)
        if method is None:
            self._subs.closed(link, id)
            return None
        call = link.rpc.add(method(id), owner=_Unask(id, subscribed))
        link.wake()
        return call

    def _forget(self, link: Link[IdJson], call: Ask) -> None:
        link.rpc.forget(call)

    def answered(self, link: Link[IdJson], ask: Ask, error: Exception | None) -> None:
        """A message that begins or ends a subscription is answered, or was when nobody waited any more."""
        owner = ask.owner
        if isinstance(owner, _Unask):
            if owner.subscribed is not None:
                link.rpc.close(owner.subscribed)
            self._subs.closed(link, owner.id)
        elif isinstance(owner, feeding.Ask) and ask.id is not None:
            if error is None:
                self._apply(self._subs.opened(owner.feed, link, ask.id))
            else:
                self._apply(self._subs.refused(owner.feed, link, error))
            owner.tell()


class _Unask(feeding.Unask):
    """And whose tombstone then is of no use any more."""

    def __init__(self, id: Id, subscribed: Ask | None) -> None:  # noqa: A002 - the protocol's word
        super().__init__(id)
        self.subscribed = subscribed


class IdJsonRpc(Client[IdJson]):
    """A client of any server whose JSON messages carry an id; for a pool's connections, or by `penstock.rpc.connect`.

    As `penstock.Rpc`, but: calls are whole messages, and their ids are put in here. A connection that it has taken of a
    pool is closed when it is returned, half a minute after the last call.

    Args:
        dialect: where the protocol has what: ``"devtools"``, ``"home-assistant"``, ``"janus"``, or a
            ``penstock.protocols.dialects.Dialect``.
        login: the message that a server gets that asks for credentials.
        on_message: called with each message, as parsed, that the server sends by itself; nothing else is read
            meanwhile. What it raises is logged.
        greeting: seconds for the server to let the client in, where it has to.
        pool: this and the following are as for `penstock.Rpc`.

    Raises:
        ValueError: a bound is no positive number, there is no such dialect, or it has a login and none is given.
    """

    IS_REUSABLE = False
    _feeds: _Feeds

    def __init__(
        self,
        pool: Lends | Source,
        url: str,
        *,
        dialect: str | Dialect,
        login: Mapping[str, Any] | None = None,
        on_message: Callable[[Any], object] | None = None,
        connections: int = 4,
        cache: AnswerCache | None = None,
        max_calls: int = MAX_CALLS,
        identity: str = "",
        greeting: float = GREETING,
        **options: Any,
    ) -> None:
        if isinstance(dialect, str):
            if dialect not in DIALECTS:
                raise ValueError(f"dialect={dialect!r}: must be a Dialect, or one of {', '.join(map(repr, DIALECTS))}")
            dialect = DIALECTS[dialect]
        if (login is None) != (dialect.login is None):
            raise ValueError(f"login={'...' if login else None}: {dialect.name} has {_needs(dialect)}")
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
        self._who = identity_of(url, options, identity, login)
        self._dialect = dialect
        self._login = None if login is None else encode(login).decode()
        self._on_message = on_message
        self._feeds = _Feeds(self._links, self._counts)

    # Calls

    async def call(
        self,
        message: Message,
        *,
        timeout: float | None = 10.0,
        ttl: float | None = None,
        idempotent: bool = False,
    ) -> Any:
        """The reply to a message, as parsed; with the message's own id, if it has one, else without.

        Args:
            message: a dict of what JSON knows, or ``msgspec.Raw`` JSON.
            timeout: seconds for all of it; None for no limit.
            ttl: seconds for which the reply may be kept, in the client's cache. Errors are never kept.
            idempotent: it may be sent again though it may have been done.

        Raises:
            RpcError: the server has answered with an error, which is whole in ``data``.
            CallTimeout, CallLost, TooManyCalls, SerializationError, InvalidReply, RpcClosed, ConnectionFailed,
                PoolExhausted: as `Rpc.call`.
            ConnectionDenied: the server has refused the login.
            ValueError: ``ttl`` is no number of seconds, or there is no cache to keep it in.
        """
        self._check_ttl(ttl)
        given = IdJson(self._dialect).add(message)
        self._admit()
        name = _name_of(message)
        request = _Request(name, message, idempotent=idempotent)
        key = None
        if ttl:
            key = keys.key(self._dialect.name, Raw(with_id(self._dialect, _raw(message), None).encode()), self._who)
        if key is None or not ttl:
            answer = await self._ask(request, timeout)
            raw = answer.raw
        else:
            found = self._find(key)
            raw = Raw(await self._load(key, request, ttl, timeout) if found is None else found)
        return parse(Raw(with_id(self._dialect, raw, given.own_id).encode()))

    def subscribe(
        self,
        message: Message,
        *,
        unsubscribe: Callable[[str | int], Message] | None = None,
        resume: bool = True,
        share: bool = False,
        timeout: float | None = feeding.TIMEOUT,
        max_events: int = MAX_EVENTS,
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> Subscription:
        """The messages that follow the reply to a message, with its id; made when the iteration begins.

        Args:
            unsubscribe: gives the message that ends it, from the id on the wire; by default the dialect's, if any.
            resume: this and the following are as for `Rpc.subscribe`.

        Raises:
            SerializationError: the message is no JSON.
            ValueError: a bound is not positive.
        """
        IdJson(self._dialect).add(message)  # raises what cannot be sent
        name = _name_of(message)
        raw = _raw(message)
        without = Raw(with_id(self._dialect, raw, None).encode())
        begin = partial(
            self._feeds.begin,
            method=name,
            params=without,
            unsubscribe=unsubscribe or self._dialect.close,
            resume=resume,
            key=keys.key(name, without) if share and unsubscribe is None else None,
            timeout=timeout,
        )
        return Subscription(name, begin, self._feeds.end, max_events, max_event_bytes, timeout, self._read_event)

    def _read_event(self, raw: Raw) -> Any:
        return parse(Raw(with_id(self._dialect, raw, None).encode()))

    # What happens on links; penstock's own

    def speak(self, known: Any) -> IdJson:
        rpc = IdJson(self._dialect)
        if self._dialect.opening is not None:
            rpc.add(self._dialect.opening)
        return rpc

    def due(self, link: Link[IdJson]) -> Sequence[Frame]:
        return link.rpc.due()

    def take(self, link: Link[IdJson], message: Data) -> None:
        for event in link.rpc.receive(message):
            match event:
                case Answered(ask):
                    self._settle(ask.owner, event)
                    self._feeds.answered(link, ask, None)
                case AskFailed(ask, error):
                    self._fail(ask.owner, error)
                    self._feeds.answered(link, ask, error)
                case Streamed(ask, raw):
                    assert ask.id is not None
                    self._feeds.received(link, ask.id, raw)
                case Pushed(raw):
                    self._pushed(raw)
                case Stray(ask):
                    self._stray(link, ask)
                case Malformed(reason):
                    self._counts.malformed += 1
                    logger.debug("the server sent what is no %s: %s", self._dialect.name, reason)
                case _:
                    self._log_in(link, event)

    def _log_in(self, link: Link[IdJson], event: Event) -> None:
        if isinstance(event, LoginAsked):
            assert self._login is not None
            link.put(self._login)
        elif isinstance(event, LoginRefused):
            link.refuse(ConnectionDenied(self.url, f"the login was refused: {bytes(event.raw).decode()}"))

    def _stray(self, link: Link[IdJson], ask: Ask | None) -> None:
        if ask is None:
            self._counts.unsolicited += 1
            return
        self._counts.late += 1
        if isinstance(ask.owner, feeding.Ask) and not ask.owner.done.done():
            return
        if isinstance(ask.owner, _Unask):
            self._feeds.answered(link, ask, None)

    def _pushed(self, raw: Raw) -> None:
        try:
            message = parse(raw)
        except InvalidReply:
            self._counts.malformed += 1
        else:
            self._tell(self._on_message, message)

    def _forget(self, link: Link[IdJson], call: Ask) -> None:
        link.rpc.forget(call)

    def _lost(self, link: Link[IdJson], exc: ConnectionClosed | None) -> Exception:
        for lost in link.rpc.lost():
            owner = lost.ask.owner
            if isinstance(owner, feeding.Ask):
                owner.tell()
            else:
                error = lost_with(self._dialect.name, lost.written, exc)
                self._settle(owner, Gone(lost.written, lost.may_send_again, error))
        return shut_out(self.url, exc)


def _raw(message: Message) -> Raw:
    return message if isinstance(message, Raw) else Raw(encode(message))


def _name_of(message: Message) -> str:
    """What errors call a message: its method or type."""
    found = parse(message) if isinstance(message, Raw) else message
    for member in ("method", "type", "janus"):
        name = found.get(member)
        if isinstance(name, str):
            return name
    return "the call"


def _needs(dialect: Dialect) -> str:
    return "no login" if dialect.login is None else "a login; pass the message for it"
