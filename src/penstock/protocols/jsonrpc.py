"""JSON-RPC 2.0, the client's end of one connection. Pure.

Calls are added, and go out when they are due; what the server sends becomes events. Ids on the wire are integers from
1, strictly increasing in the order of sending, and never used twice, so a late reply can reach nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, cast

from msgspec import Raw

from penstock.protocols import messages
from penstock.protocols.arrays import choose, divide
from penstock.protocols.batching import Batching
from penstock.protocols.calls import (
    Array,
    Call,
    Event,
    Failed,
    Frame,
    JsonRpcStats,
    Late,
    Lost,
    Malformed,
    Missing,
    Notified,
    Refused,
    Reply,
    Requested,
    Stage,
    Unsolicited,
    error_of,
)
from penstock.protocols.messages import (
    Message,
    Plain,
    read_messages,
    read_plain,
    text_of_method,
    text_of_params,
)
from penstock.protocols.reading import ABSENT, NULL, BadJson, as_text, read_any

_WAITING, _SENT, _FORGOTTEN, _SETTLED = Stage  # looked up a million times
MAX_FORGOTTEN = 10_000
"""Tombstones that a connection keeps; a reply to one that was dropped counts as unsolicited."""


class JsonRpc:
    """One connection.

    Args:
        batching: which calls go in arrays; None for no arrays.
        max_forgotten: tombstones to keep.
    """

    def __init__(self, batching: Batching | None = None, *, max_forgotten: int = MAX_FORGOTTEN) -> None:
        self.batching = batching
        """Whose connection it is may change, and this with it."""
        self._max_forgotten = max_forgotten
        self._last_id = 0
        self._waiting: dict[Call, None] = {}
        self._sent: dict[int, Call] = {}
        """By id, until they are answered; forgotten ones too."""
        self._forgotten: dict[int, Call] = {}
        self._dropped = 0  # tombstones that may still be answered
        self._notified = False
        self._arrays: dict[Array, None] = {}
        """Those in flight."""
        self._refusals: list[Raw] = []
        """Errors without id, each of one of several arrays."""
        self._late = self._unsolicited = self._malformed = self._missing = self._refused = 0

    # Out

    @property
    def is_ready(self) -> bool:
        """Calls may be sent: nothing has to come first."""
        return True

    @property
    def has_due(self) -> bool:
        """Whether anything is `due`."""
        return bool(self._waiting)

    def add(
        self,
        method: str,
        params: Any = None,
        *,
        now: float,
        idempotent: bool = False,
        alone: bool = False,
        owner: Any = None,
    ) -> Call:
        """Take a call, which goes out with the next that is `due`.

        Args:
            params: a list or a mapping of what JSON knows, or `Raw` JSON; NaN and infinity become null.
            now: seconds, of any clock.
            idempotent: it may be sent again when it is not known what became of it.
            alone: it must not go in an array.
            owner: given back with what becomes of it.

        Raises:
            SerializationError: the parameters are no JSON; nothing was added.
        """
        call = Call(method, text_of_method(method), text_of_params(method, params), idempotent, owner, 0, now, alone)
        self._waiting[call] = None
        return call

    def take(self, call: Call, *, now: float) -> None:
        """Take a call that was made before, and never taken."""
        call.added_at = now
        self._waiting[call] = None

    def add_again(self, call: Call, *, now: float) -> Call:
        """Take anew, alone, a call that was settled without a result, here or on another connection."""
        again = Call(call.method, call.method_text, call.params, call.idempotent, call.owner, added_at=now, alone=True)
        self._waiting[again] = None
        return again

    def due(self, random: Callable[[], float]) -> list[Frame]:
        """All calls that wait, as messages to send now; they count as written.

        Args:
            random: a number in [0, 1), for the batching policy.
        """
        calls, self._waiting = self._waiting, {}
        batching = self.batching
        if batching is None or len(calls) < 2 or (batching.serial and self._arrays):
            return self._singles(calls)
        together = choose(calls, batching, random)
        in_array = set(together)
        frames = self._singles([call for call in calls if call not in in_array])
        for part in divide(together, batching):
            if len(part) > 1:
                frames.append(self._array(part))
            else:
                part[0].plan = None
                frames += self._singles(part)
        return frames

    def _singles(self, calls: Collection[Call]) -> list[Frame]:
        return [Frame(text, (call,)) for call, text in zip(calls, self._texts(calls), strict=True)]

    def _array(self, calls: Sequence[Call]) -> Frame:
        array = Array(tuple(calls), len(calls))
        self._arrays[array] = None
        for call in calls:
            call.array = array
        return Frame(f"[{','.join(self._texts(calls))}]", array.calls)

    def _texts(self, calls: Iterable[Call]) -> list[str]:
        sent, number, texts = self._sent, self._last_id, []
        for call in calls:
            number += 1
            sent[number] = call
            call.id, call.stage, call.written = number, _SENT, True
            texts.append(messages.call(call.method_text, call.params, number))
        self._last_id = number
        return texts

    def notify(self, method: str, params: Any = None) -> str:
        """A notification to send now; no reply comes.

        Raises:
            SerializationError: it is no JSON.
        """
        text = messages.notification(method, params)
        self._notified = True
        return text

    def unwritten(self, frame: Frame) -> None:
        """Nothing of a message has reached the socket, nor will it: its calls may all be sent elsewhere."""
        for call in frame.calls:
            call.written = False

    def withdraw(self, frame: Frame) -> None:
        """A message will not be sent, though the connection goes on: all its calls are settled, and leave no trace."""
        for call in frame.calls:
            if call.stage in {_SENT, _FORGOTTEN}:
                call.written = False
                self._settle(call)

    def forget(self, call: Call, *, now: float) -> None:
        """A call was cancelled or timed out: it is not sent any more, or its reply is dropped when it comes."""
        if call.stage is _WAITING:
            del self._waiting[call]
            call.stage = _SETTLED
        elif call.stage is _SENT:
            call.stage = _FORGOTTEN
            self._measure(call, now)
            self._forgotten[call.id] = call
            if len(self._forgotten) > self._max_forgotten:
                oldest = self._forgotten.pop(next(iter(self._forgotten)))
                self._settle(oldest)
                self._dropped += 1

    # In

    def receive(self, message: str | bytes, *, now: float) -> list[Event]:
        """What a message of the server says; it raises nothing, whatever the message is."""
        if self._sent and isinstance(message, str) and (found := read_plain(message)):
            if isinstance(found, list):
                return self._take_plain(found, message, now)
            reply = self._reply(found, now)
            if reply is not None:
                return [reply]
        return self._look_through(message, now)

    def _reply(self, message: Plain, now: float) -> Reply | None:
        """What a reply answers; None if it is none, or a rare one, and to be looked through."""
        call = self._sent.get(message.id)
        if (
            call is None
            or call.stage is not _SENT
            or message.result is ABSENT
            or message.error is not ABSENT
            or message.method is not ABSENT
            or self._refusals
        ):
            return None
        del self._sent[message.id]
        call.stage = _SETTLED
        if call.array is not None:
            self._leave_array(call.array)
        if call.plan is not None:
            self._measure(call, now)
        return Reply(call, message.result)

    def _take_plain(self, items: list[Plain], text: str, now: float) -> list[Event]:
        """What an array says, whose items are mostly replies."""
        events: list[Event] = []
        arrays: dict[Array, None] = {}
        messages: list[Message] = []
        for position, item in enumerate(items):
            reply = self._reply(item, now)
            if reply is not None:
                events.append(reply)
                touched = reply.call.array
            else:
                messages = messages or cast("list[Message]", read_messages(text))
                touched = self._take(messages[position], events, now)
            if touched is not None:
                arrays[touched] = None
        self._note_missing(arrays, events)
        return events

    def _look_through(self, message: str | bytes, now: float) -> list[Event]:
        try:
            found = read_messages(as_text(message))
        except BadJson as exc:
            self._malformed += 1
            return [Malformed(str(exc))]
        events: list[Event] = []
        if isinstance(found, Message):
            self._take(found, events, now)
        else:
            self._take_array(found, events, now)
        return events

    def _take_array(self, items: list[Message | BadJson], events: list[Event], now: float) -> None:
        touched: dict[Array, None] = {}
        for item in items:
            if isinstance(item, BadJson):
                self._malformed += 1
                events.append(Malformed(str(item)))
                continue
            array = self._take(item, events, now)
            if array is not None:
                touched[array] = None
        self._note_missing(touched, events)

    def _note_missing(self, touched: dict[Array, None], events: list[Event]) -> None:
        for array in touched:
            missing = tuple(call for call in array.calls if call.stage is _SENT)
            if missing:
                self._missing += len(missing)
                events.append(Missing(missing))

    def _take(self, message: Message, events: list[Event], now: float) -> Array | None:
        """Add what one message says; the array whose call it answers, if it does."""
        if message.has_method:
            events.append(self._told(message))
            return None
        call = self._sent.get(message.number)
        if call is None:
            self._take_foreign(message, events, now)
            return None
        self._answered(call, message, events, now)
        if self._refusals and call.array is not None:
            self._resolve_refusals(events)
        return call.array

    def _answered(self, call: Call, message: Message, events: list[Event], now: float) -> None:
        is_late = call.stage is _FORGOTTEN
        self._settle(call)
        error = message.failure
        if is_late:
            self._late += 1
            events.append(Late(call, message.result if error is None else None))
            return
        self._measure(call, now)
        events.append(Reply(call, message.result) if error is None else Failed(call, error_of(error), error))

    @staticmethod
    def _told(message: Message) -> Event:
        method = read_any(message.method)  # a string, which was looked through with the rest
        params = None if message.params is ABSENT or bytes(message.params) == NULL else message.params
        return Requested(message.id, method, params) if message.has_id else Notified(method, params)

    def _take_foreign(self, message: Message, events: list[Event], now: float) -> None:
        error = None if message.error is ABSENT else message.failure
        if error is None or message.has_id:
            self._unsolicited += 1
            events.append(Unsolicited(message.id, None if error is None else error_of(error)))
            return
        if self._untouched():
            if self.batching is not None:
                self.batching.refused()
            self._refusals.append(error)
            self._resolve_refusals(events)
        elif len(self._sent) == 1 and not self._dropped and not self._notified:  # nothing else can be meant
            self._answered(next(iter(self._sent.values())), message, events, now)
        else:
            self._unsolicited += 1
            events.append(Unsolicited(None, error_of(error)))

    def _untouched(self) -> list[Array]:
        """Arrays of which no call was answered."""
        return [array for array in self._arrays if array.unanswered == len(array.calls)]

    def _resolve_refusals(self, events: list[Event]) -> None:
        # An error without id says that one array was refused, not which. None of whose calls one was answered: when
        # there are no more of these than errors, it is they.
        untouched = self._untouched()
        if len(untouched) > len(self._refusals):
            return
        for array, error in zip(untouched, self._refusals, strict=False):
            self._refuse(array, error, events)
        for error in self._refusals[len(untouched) :]:
            self._unsolicited += 1
            events.append(Unsolicited(None, error_of(error)))
        self._refusals.clear()

    def _refuse(self, array: Array, error: Raw, events: list[Event]) -> None:
        pending = [call for call in array.calls if call.stage is _SENT]
        for call in array.calls:
            self._settle(call)
        self._refused += 1
        again = tuple(call for call in pending if call.idempotent)
        failed = tuple(call for call in pending if not call.idempotent)
        events.append(Refused(error_of(error), error, again, failed))

    def _settle(self, call: Call) -> None:
        del self._sent[call.id]
        if self._forgotten:
            self._forgotten.pop(call.id, None)
        call.stage = _SETTLED
        if call.array is not None:
            self._leave_array(call.array)

    def _leave_array(self, array: Array) -> None:
        """One of its calls is settled."""
        array.unanswered -= 1
        if not array.unanswered:
            del self._arrays[array]
            array.calls = ()  # which have the array: a circle, too

    def _measure(self, call: Call, now: float) -> None:
        if call.plan is not None and self.batching is not None:
            self.batching.measured(call.plan, now - call.added_at)

    # The end

    def lost(self) -> list[Lost]:
        """The connection is lost: what was pending, in the order in which it was sent or added; all is settled."""
        pending = [call for call in self._sent.values() if call.stage is _SENT]
        pending += self._waiting
        for call in pending:
            call.stage = _SETTLED
        for state in (self._waiting, self._sent, self._forgotten, self._arrays, self._refusals):
            state.clear()
        return [Lost(call, call.written) for call in pending]

    def stats(self) -> JsonRpcStats:
        """Counts until now."""
        return JsonRpcStats(
            waiting=len(self._waiting),
            sent=len(self._sent) - len(self._forgotten),
            forgotten=len(self._forgotten),
            late=self._late,
            unsolicited=self._unsolicited,
            malformed=self._malformed,
            missing=self._missing,
            refused=self._refused,
        )
