"""Any protocol whose JSON carries an id, the client's end of one connection. Pure.

The id of a message is taken out and kept, and another put in its place: strictly increasing in the order of sending,
used once.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

from msgspec import MsgspecError, Raw, Struct
from msgspec.json import encode

from penstock.errors import RpcError, SerializationError
from penstock.protocols.calls import Frame, Malformed
from penstock.protocols.dialects import Dialect, Members, Verdict, inside, text_in
from penstock.protocols.reading import (
    BadJson,
    as_text,
    is_array,
    read,
    read_any,
    read_items,
    read_members,
    without_lone_surrogates,
)

MAX_FORGOTTEN = 10_000


class Phase(Enum):
    """Of a call."""

    WAITING = 1
    SENT = 2
    OPEN = 3
    """Answered; its events follow until it is forgotten."""
    FORGOTTEN = 4
    DONE = 5


class Ask(Struct, eq=False):
    """One message that wants an answer; it belongs to one connection."""

    members: Members
    own_id: Raw | None
    """The id that the caller gave it."""
    opens: bool = False
    """Its events follow its reply."""
    idempotent: bool = False
    owner: Any = None
    id: str | int | None = None
    """On the wire; None before it is sent."""
    phase: Phase = Phase.WAITING
    written: bool = False
    """It may have reached the server."""

    @property
    def is_forgotten(self) -> bool:
        """Nobody waits for it any more, though it is on its way; perhaps its tombstone was dropped."""
        return self.phase is Phase.FORGOTTEN or self.phase is Phase.DONE


class Answered(Struct, frozen=True):
    """The reply, whole and as it came; of an `Ask` that `opens`, events follow."""

    ask: Ask
    raw: Raw


class AskFailed(Struct, frozen=True):
    """The server has answered with an error; ``raw`` is the whole message."""

    ask: Ask
    error: RpcError
    raw: Raw


class Interim(Struct, frozen=True):
    """The server has taken it, and will answer."""

    ask: Ask
    raw: Raw


class Streamed(Struct, frozen=True):
    """An event of an `Ask` that opens a subscription."""

    ask: Ask
    raw: Raw


class Pushed(Struct, frozen=True):
    """A message that has no id: an event for whom it concerns."""

    raw: Raw


class Stray(Struct, frozen=True):
    """A message whose id is of no call, or of one that is over or was forgotten: ``ask`` then."""

    ask: Ask | None
    raw: Raw


class LoginAsked(Struct, frozen=True):
    """The server wants credentials: to be sent as they are, before anything else."""

    raw: Raw


class LoggedIn(Struct, frozen=True):
    """The server takes calls now."""

    raw: Raw


class LoginRefused(Struct, frozen=True):
    """The server will close, and would refuse another attempt as well."""

    raw: Raw


class AskLost(Struct, frozen=True):
    """What was under way when the connection was lost."""

    ask: Ask
    written: bool

    @property
    def may_send_again(self) -> bool:
        """Whether it cannot be done twice so, or may be."""
        return self.ask.idempotent or not self.written


Event: TypeAlias = (
    Answered | AskFailed | Interim | Streamed | Pushed | Stray | LoginAsked | LoggedIn | LoginRefused | Malformed
)


class IdJson:
    """One connection.

    Args:
        dialect: where the protocol has what.
        max_forgotten: tombstones to keep.
    """

    def __init__(self, dialect: Dialect, *, max_forgotten: int = MAX_FORGOTTEN) -> None:
        self._dialect = dialect
        self._max_forgotten = max_forgotten
        self.is_ready = dialect.login is None
        """Calls may be sent: the server has let us in."""
        self._last_id = 0
        self._waiting: dict[Ask, None] = {}
        self._sent: dict[tuple[Any, ...], Ask] = {}
        """By what a reply shares with its call; open and forgotten ones too."""
        self._forgotten: dict[Ask, None] = {}
        self.strays = 0
        self.malformed = 0

    # Out

    @property
    def has_due(self) -> bool:
        """Whether anything is `due`."""
        return self.is_ready and bool(self._waiting)

    def add(self, message: Any, *, opens: bool = False, idempotent: bool = False, owner: Any = None) -> Ask:
        """Take a message, which goes out when it is `due`.

        Args:
            message: a dict, or `Raw` JSON; an id in it is kept, and comes back with `with_own_id`.
            opens: its events follow its reply, until it is forgotten.

        Raises:
            SerializationError: it is no JSON object; nothing was added.
        """
        try:
            members = read(read_members, message if isinstance(message, Raw) else encode(message))
        except (BadJson, MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as exc:
            raise SerializationError(f"a message that is no JSON object: {exc}", "pass a dict or an object") from exc
        ask = Ask(members, _at(members, self._dialect.path), opens, idempotent, owner)
        self._waiting[ask] = None
        return ask

    def due(self) -> list[Frame]:
        """What is to be sent now; it counts as written. Nothing before the server has let us in."""
        if not self.is_ready:
            return []
        out = []
        for ask in self._waiting:
            self._last_id += 1
            ask.id = self._dialect.make_id(self._last_id)
            ask.phase = Phase.SENT
            ask.written = True
            self._sent[self._key(ask.id, ask.members)] = ask
            text = encode(_put(ask.members, self._dialect.path, Raw(encode(ask.id)))).decode()
            out.append(Frame(text, (ask,)))
        self._waiting.clear()
        return out

    def find(self, id: str | int) -> Ask | None:  # noqa: A002 - the protocol's word
        """What is under way, or open, by its id on the wire; of a dialect without scopes."""
        return self._sent.get((id,))

    def _key(self, id: str | int, members: Members) -> tuple[Any, ...]:  # noqa: A002 - the protocol's word
        return (id, *(bytes(members.get(name, b"")) for name in self._dialect.scope))

    def with_own_id(self, ask: Ask, raw: Raw) -> str:
        """A message about a call, with the id that its caller gave it, byte for byte; without one if it gave none."""
        return with_id(self._dialect, raw, ask.own_id)

    def forget(self, ask: Ask) -> None:
        """Nobody wants a call any more: it is not sent, or what comes of it is dropped."""
        if ask.phase is Phase.WAITING:
            del self._waiting[ask]
            ask.phase = Phase.DONE
        elif ask.phase in {Phase.SENT, Phase.OPEN}:
            ask.phase = Phase.FORGOTTEN
            self._forgotten[ask] = None
            if len(self._forgotten) > self._max_forgotten:
                self._end(next(iter(self._forgotten)))

    def close(self, ask: Ask) -> None:
        """Nothing more can come of a call: the server has told that its subscription is over."""
        if ask.phase in {Phase.SENT, Phase.OPEN, Phase.FORGOTTEN}:
            self._end(ask)

    def unwritten(self, frame: Frame) -> None:
        """Nothing of a message has reached the socket, nor will it: its call may be sent elsewhere."""
        for ask in frame.calls:
            ask.written = False

    def withdraw(self, frame: Frame) -> None:
        """A message will not be sent, though the connection goes on: its call is over, and leaves no trace."""
        for ask in frame.calls:
            self.close(ask)
            ask.written = False

    def _end(self, ask: Ask) -> None:
        assert ask.id is not None
        del self._sent[self._key(ask.id, ask.members)]
        self._forgotten.pop(ask, None)
        ask.phase = Phase.DONE

    # In

    def receive(self, message: str | bytes) -> list[Event]:
        """What a message of the server says; it raises nothing, whatever the message is. Then more may be `due`."""
        try:
            text = as_text(message)
            try:
                items = self._read(text)
            except BadJson:
                repaired = without_lone_surrogates(text)
                if repaired is None:
                    raise
                items = self._read(repaired)
        except BadJson as exc:
            return [self._refuse(exc)]
        return [self._take(item) for item in items]

    def _read(self, text: str) -> list[Raw]:
        if not is_array(text):
            read(read_members, text)  # before it is taken for an item
            return [Raw(text.encode())]
        if not self._dialect.is_array_allowed:
            raise BadJson("an array")
        return read(read_items, text)

    def _refuse(self, reason: BadJson) -> Malformed:
        self.malformed += 1
        return Malformed(str(reason))

    def _take(self, raw: Raw) -> Event:
        try:
            members = read(read_members, raw)
            if not self.is_ready:
                return self._take_login(members, raw)
            found = _at(members, self._dialect.path)
            if found is None:
                return Pushed(raw)
            sent_id = read(read_any, found)
            if type(sent_id) not in {str, int}:
                raise BadJson("an id that is neither text nor an integer")
            return self._take_answer(self._sent.get(self._key(sent_id, members)), members, raw)
        except BadJson as exc:
            return self._refuse(exc)

    def _take_login(self, members: Members, raw: Raw) -> Event:
        login = self._dialect.login
        assert login is not None
        match text_in(members, "type"):
            case login.ask:
                return LoginAsked(raw)
            case login.accepted:
                self.is_ready = True
                return LoggedIn(raw)
            case login.refused:
                return LoginRefused(raw)
        return Pushed(raw)

    def _take_answer(self, ask: Ask | None, members: Members, raw: Raw) -> Event:
        if ask is None:
            self.strays += 1
            return Stray(None, raw)
        verdict = self._dialect.judge(ask.members, members)
        if ask.phase is Phase.FORGOTTEN:
            self.strays += 1
            if verdict in {Verdict.REPLY, Verdict.FAILURE} and not ask.opens:
                self._end(ask)
            return Stray(ask, raw)
        match verdict:
            case Verdict.INTERIM:
                return Interim(ask, raw)
            case Verdict.EVENT:
                return Streamed(ask, raw)
            case Verdict.FAILURE:
                error = self._dialect.failure(members)
                self._end(ask)
                return AskFailed(ask, error, raw)
        if ask.opens:
            ask.phase = Phase.OPEN
        else:
            self._end(ask)
        return Answered(ask, raw)

    # The end

    def lost(self) -> list[AskLost]:
        """The connection is lost: what was under way, open subscriptions too, in order; all of it is over."""
        lost = [AskLost(ask, ask.written) for ask in self._sent.values() if ask.phase is not Phase.FORGOTTEN]
        lost += [AskLost(ask, False) for ask in self._waiting]
        for each in lost:
            each.ask.phase = Phase.DONE
        self._sent.clear()
        self._waiting.clear()
        self._forgotten.clear()
        return lost


def with_id(dialect: Dialect, raw: Raw, id: Raw | None) -> str:  # noqa: A002 - the protocol's word
    """A message with another id, byte for byte; with none for None."""
    return encode(_put(read(read_members, raw), dialect.path, id)).decode()


def _at(members: Members, path: tuple[str, ...]) -> Raw | None:
    """What is at a path; None if nothing is."""
    for name in path[:-1]:
        members = inside(members, name)
    return members.get(path[-1])


def _put(members: Members, path: tuple[str, ...], value: Raw | None) -> Members:
    """The members with another value at a path; with nothing there for None."""
    name, *rest = path
    others = {known: part for known, part in members.items() if known != name}
    if rest:
        return others | {name: Raw(encode(_put(inside(members, name), tuple(rest), value)))}
    return others if value is None else {name: value} | others
