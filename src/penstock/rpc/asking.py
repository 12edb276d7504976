"""One call, from the link that it is sent on to its answer, over as many links as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from penstock.errors import CallTimeout, GraphQLError, RpcClosed, RpcError, TooManyCalls
from penstock.rpc.deadlines import Deadlines, no_time
from penstock.rpc.keeping import Answer
from penstock.rpc.link import Link, S
from penstock.rpc.links import Links
from penstock.rpc.stats import Counts

MAX_SENDS = 3
"""Times that a call is written, if it may be: one that ends each connection that it is sent on has to end as well."""

R = TypeVar("R")


class Gone(Struct, frozen=True):
    """A call has ended without an answer of its own."""

    written: bool
    may_send_again: bool
    error: Exception
    """Why, if it is not sent again."""
    by_server: bool = False
    """It was refused together with others; else its connection was lost."""


LATE: Final = object()
"""What a call is settled with that was not answered in time."""


class Waiting:  # no ABC: looking whether something is one takes longer than telling it
    """Who is told what becomes of a call, where that is not a future."""

    __slots__ = ()

    def done(self) -> bool:
        """It was told."""
        raise NotImplementedError

    def set_result(self, outcome: Answer | Gone) -> None:
        """The call has its answer, or is gone."""
        raise NotImplementedError

    def set_exception(self, error: Exception) -> None:
        """The call has failed."""
        raise NotImplementedError


Owner: TypeAlias = asyncio.Future[Any] | Waiting
"""Whose call it is."""
OWNERS: Final = (asyncio.Future, Waiting)


class Request(Protocol[S]):
    """A call on its way."""

    @property
    def name(self) -> str: ...

    def send(self, link: Link[S], owner: Owner) -> Any:
        """Have it go out on a link; the owner gets an `Answer` or `Gone`. What is returned can be forgotten."""

    def may_keep(self, answer: Any) -> bool:
        """Whether a cache may keep its answer."""


class Asking(Generic[S]):
    """A client's calls.

    Args:
        forget: called with a link and a call on it to whose answer nobody waits for any more.
        max_calls: that wait for their answers at a time.
    """

    def __init__(self, links: Links[S], counts: Counts, forget: Callable[[Link[S], Any], None], max_calls: int) -> None:
        self.links, self.counts, self.forget = links, counts, forget
        self._max_calls = max_calls
        self.deadlines = Deadlines(LATE)
        self.pending = 0

    @property
    def is_full(self) -> bool:
        """Whether the next call is refused."""
        return self.pending >= self._max_calls

    async def ask(
        self, request: Request[S], timeout: float | None, gone: Gone | None = None, began: float | None = None
    ) -> Answer:
        """The server's answer in time; raises what it has answered with, or why it has not.

        Args:
            gone: what became of it before, if it was sent already.
            began: when it was sent for the first time, if it was.
        """
        if gone is None:
            self._admit()
        self.pending += 1
        began = monotonic() if began is None else began
        left, sends = timeout, 0
        try:
            while True:
                if gone is not None:
                    sends += gone.written
                    self._check_again(gone, sends)
                    left = None if timeout is None else timeout - (monotonic() - began)
                link = self.links.ready()
                if link is None:
                    link = await self.limited(request.name, timeout, self.links.pick(), left)
                    left = None if timeout is None else timeout - (monotonic() - began)
                settled: asyncio.Future[Any] = link.loop.create_future()
                self.deadlines.add(settled, left, link.loop)
                link.users += 1
                link.uses += 1
                try:
                    call = request.send(link, settled)
                    outcome = await settled
                except asyncio.CancelledError:
                    self.forget(link, call)
                    raise
                finally:
                    self.deadlines.remove(settled, left)
                    self.leave(link)
                if outcome is LATE:
                    self.forget(link, call)
                    raise self.late(request.name, timeout)
                if not isinstance(outcome, Gone):
                    self.counts.took(monotonic() - began)
                    return outcome  # type: ignore[no-any-return]
                gone = outcome
        except (RpcError, GraphQLError):
            self.counts.errors += 1
            self.counts.took(monotonic() - began)
            raise
        finally:
            self.pending -= 1

    def _admit(self) -> None:
        if self.pending >= self._max_calls:
            self.counts.refused += 1
            self.counts.calls -= 1
            raise TooManyCalls(self.pending, self._max_calls)

    def leave(self, link: Link[S]) -> None:
        """A call does not wait on a link any more."""
        link.users -= 1
        if not link.users:
            self.links.unused(link)

    async def limited(
        self, name: str, timeout: float | None, work: Coroutine[Any, Any, R], left: float | None = None
    ) -> R:
        """Do it in time, or raise CallTimeout; ``left`` is what is left of the time, if it is not all of it."""
        try:
            limit = asyncio.timeout(timeout if left is None else left)
        except TypeError:
            work.close()
            raise no_time(timeout) from None
        try:
            async with limit as deadline:
                return await work
        except TimeoutError as exc:
            if timeout is None or not deadline.expired():
                raise
            raise self.late(name, timeout) from exc

    def late(self, name: str, timeout: float | None) -> CallTimeout:
        """What to raise where a call was not answered in time."""
        assert timeout is not None
        self.counts.timeouts += 1
        return CallTimeout(name, timeout)

    def _check_again(self, gone: Gone, sends: int) -> None:
        """Return if a call may be sent again; else raise why it is over."""
        if self.links.is_closed and not gone.by_server:
            raise RpcClosed
        if not gone.may_send_again or sends >= MAX_SENDS:
            self.counts.lost += not gone.by_server
            raise gone.error
        self.counts.retried += 1
