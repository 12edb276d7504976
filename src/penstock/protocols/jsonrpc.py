"""JSON-RPC 2.0, the client's end of one connection. Pure.

Calls are added, and go out when they are due; what the server sends becomes events. Ids on the wire are integers from
1, strictly increasing in the order of sending, and never used twice, so a late reply can reach nobody else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Raw

from penstock.protocols import messages
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
from penstock.protocols.messages import OVERHEAD, Message, read_messages, text_of_method, text_of_params
from penstock.protocols.reading import ABSENT, NULL, BadJson, as_text, read_any, without_lone_surrogates

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
        text = text_of_params(method, params)
        call = Call(method, text_of_method(method), text, idempotent, owner, added_at=now, alone=alone)
        self._waiting[call] = None
        return call

    def add_again(self, call: Call, *, now: float) -> Call:
        """Take anew, alone, a call that was settled without a result, here or on another connection."""
        again = Call(call.method, call.name, call.params, call.idempotent, call.owner, added_at=now, alone=True)
        self._waiting[again] = None
        return again

    def due(self, random: Callable[[], float]) -> list[Frame]:
        """All calls that wait, as messages to send now; they count as written.

        Args:
            random: a number in [0, 1), for the batching policy.
        """
        calls, self._waiting = self._waiting, {}
        together: list[Call] = []
        batching = self.batching
        if batching is not None and len(calls) > 1:
            together = self._choose(calls, batching, random)
        if not together:
            return [self._single(call) for call in calls]
        in_array = set(together)
        frames = [self._single(call) for call in calls if call not in in_array]
        assert batching is not None
        parts = self._parts(together, batching)
        return frames + [self._array(part) if len(part) > 1 else self._single(part[0]) for part in parts]

    def _choose(self, calls: dict[Call, None], batching: Batching, random: Callable[[], float]) -> list[Call]:
        if batching.serial and self._arrays:
            return []
        able = [call for call in calls if not call.alone and batching.allows(call.method)]
        if len(able) < 2:
            return []
        for call in able:
            call.plan = batching.plan(call.method, random())
        together = [call for call in able if call.plan is not None and call.plan.array]
        if len(together) == 1:
            together[0].plan = None  # its time would say nothing about arrays
            return []
        return together

    def _parts(self, calls: list[Call], batching: Batching) -> list[list[Call]]:
        """Calls in the order given, as many to an array as the caps allow; one array if there may be no more."""
        parts: list[list[Call]] = []
        room = 0
        for call in calls:
            size = OVERHEAD + _bytes_of(call.name) + _bytes_of(call.params or "")
            if not parts or size > room or len(parts[-1]) == batching.max_items:
                parts.append([])
                room = batching.max_bytes
            parts[-1].append(call)
            room -= size
        if batching.serial:
            return parts[:1] + [[call] for part in parts[1:] for call in part]
        return parts

    def _single(self, call: Call) -> Frame:
        if call.plan is not None and call.plan.array:
            call.plan = None
        return Frame(self._text(call), (call,))

    def _array(self, calls: Sequence[Call]) -> Frame:
        array = Array(tuple(calls), len(calls))
        self._arrays[array] = None
        texts = []
        for call in calls:
            call.array = array
            texts.append(self._text(call))
        return Frame(f"[{','.join(texts)}]", array.calls)

    def _text(self, call: Call) -> str:
        self._last_id = call.id = self._last_id + 1
        self._sent[call.id] = call
        call.stage = _SENT
        call.written = True
        return messages.call(call.name, call.params, call.id)

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
        try:
            text = as_text(message)
            try:
                found = read_messages(text)
            except BadJson:
                repaired = without_lone_surrogates(text)
                if repaired is None:
                    raise
                found = read_messages(repaired)
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
        if error is None:
            events.append(Reply(call, message.result))
        else:
            events.append(Failed(call, error_of(error), error))

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
            call.array.unanswered -= 1
            if not call.array.unanswered:
                del self._arrays[call.array]
                call.array.calls = ()  # which have the array: a circle, too

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


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
