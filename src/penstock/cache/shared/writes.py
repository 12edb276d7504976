"""What this process tells the server of the shared tier."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count, islice
from typing import Any

from penstock.cache.shared.entries import Command, delete, first_bytes, head, put, renew
from penstock.cache.shared.link import Link, Lost, failure
from penstock.cache.shared.names import Names
from penstock.cache.shared.notes import Change, Keep, Note, Packed, Put

MOST_ECHOES = 1000
MOST_OWED = 100_000
"""Changes that are waiting; beyond that all entries are given up instead."""
_RETRIES = 100
_SCANNED = 1000


class Writes:
    """Sends changes in their order, and those that were not confirmed again, until they are.

    A value is sent once. What is not confirmed is that its key has another one: after a break the key is deleted.

    Args:
        number: 8 bytes that are given only once.
    """

    def __init__(self, names: Names, number: Callable[[], bytes]) -> None:
        self.link: Link | None = None
        self.stored = self.outdated = self.unwritten = 0
        self._names = names
        self._number = number
        self._notes: deque[Note] = deque()
        """From all threads; the rest is the event loop's."""
        self._owed: dict[Change, int] = {}
        """With the number of the last attempt."""
        self._refused: dict[Change, None] = {}
        self._attempts = count()
        self._echoes: OrderedDict[bytes, bytes] = OrderedDict()
        """What was written lately by script, and how it begins."""
        self._unanswered = 0
        self._sweeps = set[asyncio.Task[None]]()
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def owed(self) -> int:
        return len(self._notes) + len(self._owed)

    def note(self, one: Note) -> None:
        """Something is to be sent; in any thread, with the cache's lock held."""
        if len(self._notes) >= MOST_OWED:
            self._notes.clear()
            self._notes.append(Change("all"))
        self._notes.append(one)

    def drain(self) -> None:
        """Send what was noted, or note that it is owed."""
        while self._notes:
            try:
                one = self._notes.popleft()
            except IndexError:  # given up by another thread in this moment
                return
            if isinstance(one, Keep):
                self._keep(one)
            elif isinstance(one, Put):
                self._owe(Change("key", one.key), one)
            else:
                self._owe(one, None)

    def came_up(self, link: Link) -> None:
        """There is a connection: it gets all that is owed before anybody asks anything on it."""
        self.drain()
        self.link = link
        self._refused.clear()
        for change in list(self._owed):
            self._send(change, None)

    def went_down(self) -> None:
        self.link = None
        self._echoes.clear()

    def is_echo(self, name: bytes) -> bool:
        """Whether word of a change may be of one that was made here: of what scripts write, servers tell the client
        that had them run as well, ``NOLOOP`` or not. `ask_whether` tells.
        """
        return name in self._echoes

    def ask_whether(self, name: bytes, changed: Callable[[], object]) -> None:
        """Call ``changed`` if the server has something else than what was written here."""
        written = self._echoes[name]

        def compare(answer: asyncio.Future[Any]) -> None:
            if answer.result() != written:
                changed()

        if self.link is not None:
            self.link.ask(first_bytes(name)).add_done_callback(compare)

    def _put(self, names: list[bytes], packed: Packed, expected: Sequence[bytes] = ()) -> Command:
        number, echoes = self._number(), self._echoes
        echoes[names[0]] = head(packed.content)
        for name in names[2:]:
            echoes.setdefault(name, number)  # the first one has begun it
        while len(echoes) > MOST_ECHOES:
            echoes.popitem(last=False)
        return put(names, packed, number, expected)

    def retry(self) -> None:
        """Once more what the server has refused, a server without memory, perhaps: it can always forget."""
        if self.link is None:
            return
        for change in list(islice(self._refused, _RETRIES)):
            del self._refused[change]
            if change in self._owed:
                self._ask(change, ("UNLINK", self._name(change)), None)

    async def settled(self) -> None:
        """Return when everything is answered, and nothing is owed."""
        while self._notes or self._owed or self._unanswered:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def end(self) -> None:
        for sweep in self._sweeps:
            sweep.cancel()

    def _owe(self, change: Change, value: Put | None) -> None:
        if len(self._owed) >= MOST_OWED:
            change, value = Change("all"), None
        if change.kind == "all":  # whatever came before it
            self._owed.clear()
            self._refused.clear()
        self._owed.pop(change, None)
        self._owed[change] = -1
        if self.link is not None:
            self._send(change, value)
        elif value is not None:
            self.unwritten += 1

    def _send(self, change: Change, value: Put | None) -> None:
        if value is not None:
            names = self._names
            stamped = [names.entry(value.key), names.beginnings, names.all, *map(names.tag, value.tags)]
            self._ask(change, self._put(stamped, value.packed), value)
        elif change.kind == "key":
            self._ask(change, delete(self._name(change), self._number()), None)
        elif change.kind == "prefix":
            self._invalidate_beginning(change)
        else:
            self._ask(change, renew(self._name(change), self._number()), None)

    def _name(self, change: Change) -> bytes:
        names, what = self._names, change.what
        if change.kind == "key":
            return names.entry(what)
        if change.kind == "all":
            return names.all
        return names.tag(str(what)) if change.kind == "tag" else names.beginning(str(what))

    def _ask(self, change: Change, command: Command, value: Put | None) -> None:
        assert self.link is not None
        attempt = self._owed[change] = next(self._attempts)
        self._unanswered += 1
        self.link.ask(command).add_done_callback(partial(self._answered, change, attempt, value))

    def _answered(self, change: Change, attempt: int, value: Put | None, answer: asyncio.Future[Any]) -> None:
        self._unanswered -= 1
        reply = answer.result()
        failed = failure(reply) is not None
        if value is not None:
            self.stored += not failed
            self.unwritten += failed
        if not failed:
            self._confirm(change, attempt)
        elif not isinstance(reply, Lost) and self._owed.get(change) == attempt:
            self._refused[change] = None
        self._tell()

    def _confirm(self, change: Change, attempt: int) -> None:
        if self._owed.get(change) == attempt:
            del self._owed[change]

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _keep(self, one: Keep) -> None:
        if self.link is None:
            self.unwritten += 1
            return
        self._unanswered += 1
        self.link.ask(self._put(one.names, one.packed, one.expected)).add_done_callback(self._kept)

    def _kept(self, answer: asyncio.Future[Any]) -> None:
        self._unanswered -= 1
        reply = answer.result()
        if failure(reply) is not None:
            self.unwritten += 1
        elif reply:
            self.stored += 1
        else:
            self.outdated += 1
        self._tell()

    def _invalidate_beginning(self, change: Change) -> None:
        """Nobody knows which entries begin so: the server is looked through, in steps, while it does other work.

        Loads that began before are told by the first command; so whatever is stored after it is newer.
        """
        assert self.link is not None
        attempt = self._owed[change] = next(self._attempts)
        self.link.ask(renew(self._names.beginnings, self._number()))
        self.link.ask(renew(self._name(change), self._number()))
        sweep = asyncio.get_running_loop().create_task(self._sweep(self.link, change, attempt))
        self._sweeps.add(sweep)
        sweep.add_done_callback(self._sweeps.discard)

    async def _sweep(self, link: Link, change: Change, attempt: int) -> None:
        pattern = self._names.entries_beginning(str(change.what))
        cursor: bytes | None = b"0"
        while cursor is not None:
            reply = await link.ask(("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED))
            if failure(reply) is None:
                cursor, found = reply
                reply = await self._unlink(link, found)
            if failure(reply) is not None:
                if not isinstance(reply, Lost):
                    self._refused[change] = None
                return
            if cursor == b"0":
                cursor = None
        self._confirm(change, attempt)
        self._tell()

    @staticmethod
    async def _unlink(link: Link, names: Iterable[bytes]) -> Any:
        command: Command = ("UNLINK", *names)
        return await link.ask(command) if len(command) > 1 else 0
