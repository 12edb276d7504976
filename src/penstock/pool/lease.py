"""A connection as its borrower has it: asked for, lent, returned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable, Sequence
from ssl import SSLContext
from threading import get_ident
from types import TracebackType
from typing import Any, ClassVar, Self, cast

from penstock.connection.connection import Connection
from penstock.connection.messages import DataLike, Fragments, is_whole
from penstock.errors import LeaseReturned, WrongLoop
from penstock.errors.urls import shown_url
from penstock.pool.absent import NOT_LENT, REPLACING, RETURNED
from penstock.pool.lender import Lender, ShareLender
from penstock.pool.slots import Key, Member
from penstock.pool.swift import Sender, sender_of
from penstock.pool.target import target_of, url_of
from penstock.transport.base import ConnectionClosed, ConnectionClosedOK, Data, HeadersLike, State, Subprotocol

REPLACED = "replaced"
"""Why a connection is returned on which the first send of a loan failed."""
DISCARDED = "discarded"
"""Why a connection is returned that its borrower finds unfit."""


Receive = Callable[[], Coroutine[Any, Any, Data]]


class _Replacing:
    """The lender of a loan while its connection is replaced: whoever returns it meanwhile ends the loan."""

    def __init__(self, lease: PooledConnection, lender: Lender) -> None:
        self.thread = lender.thread
        self.ended = False
        self._lease, self._lender = lease, lender

    def give_back(self, member: Member[Connection], reason: str | None) -> None:
        self.ended = True
        self._lease._lender = self._lender

    def collected(self, member: Member[Connection], weight: int) -> None:
        """The send that waits for the replacement holds the loan: this is the end of both."""


class PooledConnection:
    """A loan: ``await`` it or ``async with`` it, and it is the connection until it is returned, an error after that.

    Give it back with `release`, or by leaving ``async with pool.get_connection(url)``; what is not fit to be lent again
    is closed by the pool then, and so is a connection that was used in a block that ends with an exception: an answer
    may still be under way. Attributes that are not listed here are the connection's own.

    The first `send` on a connection that was lent before may find that the peer has just closed it: nothing of the loan
    is lost then, and it goes on, once, on another connection.

    Await what `recv`, `recv_many` and `send` give before you return the connection: once they have been called, they go
    on with it, whoever has it by then. An iterator looks before each message whether the loan still lasts.
    """

    __slots__ = ("_connection", "_key", "_lender", "_member", "_sender", "_swift_send", "_timeout", "_untried")

    _swift: ClassVar[type[PooledConnection]]
    """What it becomes once it has sent, until it is returned."""

    def __init__(self, lender: Lender, key: Key, timeout: float | None) -> None:
        self._lender = lender
        self._key = key
        self._timeout = timeout
        self._connection: Connection = NOT_LENT
        self._member: Member[Connection]
        self._untried = False  # True from when it is lent until it is used
        self._sender: Sender
        self._swift_send: Any

    def __repr__(self) -> str:
        gone = {NOT_LENT: "asked for", RETURNED: "returned", REPLACING: "being replaced"}
        state = gone.get(self._connection) or self._connection.state.name
        return f"<PooledConnection {state} {shown_url(self.url)}>"

    # Borrowing

    def __await__(self) -> Generator[Any, None, Self]:
        return self._hold().__await__()

    async def _hold(self) -> Self:
        await self.__aenter__()
        self.__class__ = HeldConnection  # type: ignore[assignment]
        return self

    async def __aenter__(self) -> Self:
        if self._connection is NOT_LENT or self._connection is RETURNED:  # else lent by ``await`` already
            lender = self._lender
            member = lender.take(self._key)
            if member is None:
                member = await lender.wait(self._key, self._timeout)
            self._member = member
            self._connection = member.connection
            self._untried = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._untried:
            self._untried = False
            self._connection = RETURNED
            self._lender.give_back(self._member, None)
        elif self._connection is not RETURNED:
            self._slow_down()
            self._connection = RETURNED
            self._lender.give_back(self._member, None if exc_type is None else "error")

    def release(self) -> None:
        """Return the connection. Calling it again does nothing.

        Raises:
            WrongLoop: called from another thread, or in a child process.
        """
        self._end(None)

    def discard(self, reason: str = "") -> None:
        """Return the connection, not to be lent again. Calling it again does nothing; `WrongLoop` as `release`."""
        self._end(reason or DISCARDED)

    def _end(self, reason: str | None) -> None:
        if self._is_lent():
            self._slow_down()
            self._untried = False
            self._connection = RETURNED
            self._lender.give_back(self._member, reason)

    def _is_lent(self) -> bool:
        """Whether there is anything to return. Raises WrongLoop in another thread than the pool's."""
        if self._connection is RETURNED or self._connection is NOT_LENT:
            return False
        if get_ident() != self._lender.thread:
            raise WrongLoop
        return True

    # What it is

    @property
    def url(self) -> str:
        """What was asked for."""
        return url_of(self._key)

    @property
    def created_at(self) -> float:
        """When the connection was opened, on the event loop's clock, in seconds."""
        return self._member.opened_at

    @property
    def last_used(self) -> float:
        """When it was lent last, on the event loop's clock, in seconds."""
        return self._member.used_at

    @property
    def request_count(self) -> int:
        """Times that the connection was lent, this one among them."""
        return self._member.uses

    @property
    def is_connected(self) -> bool:
        """Whether it is lent to you, and open."""
        connection = self._connection
        return connection not in (NOT_LENT, RETURNED, REPLACING) and connection.state is State.OPEN

    @property
    def connection(self) -> Connection:
        """The connection itself, which may be lent again later: what is known of it can be kept by it.

        Raises:
            LeaseReturned: it was returned.
        """
        self._connection.state  # noqa: B018 - what stands for none raises here
        return self._connection

    def is_healthy(self) -> bool:
        """Whether it is open, and the pool has found nothing wrong with it."""
        return self.is_connected and self._member.retired is None

    # The connection

    def send(self, message: DataLike | Fragments, *, text: bool | None = None) -> Coroutine[Any, Any, None]:
        """See `penstock.Connection.send`."""
        connection = self._connection
        if self._untried:
            return self._send_first(connection, message, text)
        self._quicken(connection)
        return connection.send(message, text=text)

    def _quicken(self, connection: Connection) -> None:
        """Spare what is sent from now on the way through `send`."""
        sender = sender_of(connection)
        if sender is not None:
            self._sender, self._swift_send = sender, sender.send
            self.__class__ = self._swift

    def _slow_down(self) -> None:
        """Undo that: the loan ends."""

    async def _send_first(self, connection: Connection, message: DataLike | Fragments, text: bool | None) -> None:
        self._check_still(connection)
        self._untried = False
        try:
            await connection.send(message, text=text)
            if self._connection is connection and not self._untried:  # the same loan still
                self._quicken(connection)
        except ConnectionClosed:
            if self._connection is not connection or self._member.uses <= 1 or not is_whole(message):
                raise  # it was returned meanwhile, or it was new, or the fragments may be used up
            await self._replace()
            await self._connection.send(message, text=text)

    async def _replace(self) -> None:
        """Go on with another connection; whoever ends the loan meanwhile, ends it."""
        lender = self._lender
        self._connection = REPLACING
        pending = _Replacing(self, lender)
        self._lender = cast("Lender", pending)  # nobody asks a lender for what seems to be lent
        lender.give_back(self._member, REPLACED)
        try:
            member = lender.take(self._key) or await lender.wait(self._key, self._timeout)
        except BaseException:
            if not pending.ended:
                self._lender = lender
                self._connection = RETURNED
            raise
        if pending.ended:
            lender.give_back(member, None)
            raise LeaseReturned
        self._lender = lender
        self._member = member
        self._connection = member.connection

    def _check_still(self, connection: Connection) -> None:
        if self._connection is not connection:
            raise LeaseReturned

    def send_many(self, messages: Iterable[DataLike]) -> Coroutine[Any, Any, None]:
        """See `penstock.Connection.send_many`."""
        self._untried = False
        return self._connection.send_many(messages)

    def offer(self, texts: Sequence[str]) -> int:
        """See `penstock.Connection.offer`."""
        self._untried = False
        return self._connection.offer(texts)

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]:
        """See `penstock.Connection.recv`."""
        self._untried = False
        return self._connection.recv(decode)

    def recv_many(self, max: int | None = None) -> Coroutine[Any, Any, list[Data]]:  # noqa: A002
        """See `penstock.Connection.recv_many`."""
        self._untried = False
        return self._connection.recv_many(max)

    def recv_streaming(self, decode: bool | None = None) -> AsyncIterator[Data]:
        """See `penstock.Connection.recv_streaming`."""
        self._untried = False
        return self._pieces(self._connection, self._connection.recv_streaming(decode))

    async def _pieces(self, connection: Connection, pieces: AsyncIterator[Data]) -> AsyncIterator[Data]:
        self._check_still(connection)
        async for piece in pieces:
            yield piece
            self._check_still(connection)

    def ping(self, data: DataLike | None = None) -> Coroutine[Any, Any, Awaitable[float]]:
        """See `penstock.Connection.ping`."""
        return self._connection.ping(data)

    def __aiter__(self) -> AsyncIterator[Data]:
        self._untried = False
        return self._messages(self._connection, self._connection.recv)

    async def _messages(self, connection: Connection, recv: Receive) -> AsyncIterator[Data]:
        try:
            while self._connection is connection:
                yield await recv()
        except ConnectionClosedOK:
            return
        raise LeaseReturned

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class SharedConnection(PooledConnection):
    """A part of a connection that others use at the same time; for protocols that tell answers apart."""

    __slots__ = ("_sharing", "weight")

    def __init__(self, lender: ShareLender, key: Key, timeout: float | None, weight: int) -> None:
        super().__init__(lender, key, timeout)
        self._sharing = lender
        self.weight = weight
        """What it takes of `ConnectionPoolConfig.shared_capacity`."""

    async def _hold(self) -> Self:
        await self.__aenter__()
        self.__class__ = HeldShare  # type: ignore[assignment]
        return self

    async def __aenter__(self) -> Self:
        if self._connection is NOT_LENT or self._connection is RETURNED:
            lender = self._sharing
            member = lender.take_share(self._key, self.weight)
            if member is None:
                member = await lender.wait(self._key, self._timeout, self.weight)
            self._member = member
            self._connection = member.connection
            self._untried = True
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(None if exc_type is None or self._untried else "error")

    def send(self, message: DataLike | Fragments, *, text: bool | None = None) -> Coroutine[Any, Any, None]:
        """See `penstock.Connection.send`; others may be in the middle of something, so nothing is replaced."""
        self._untried = False
        return self._connection.send(message, text=text)

    def _end(self, reason: str | None) -> None:
        if self._is_lent():
            self._untried = False
            self._connection = RETURNED
            self._sharing.give_back_share(self._member, self.weight, reason)


class HeldConnection(PooledConnection):
    """A loan that was awaited, and so may be forgotten; ``async with`` cannot be, and is spared the finalizer."""

    __slots__ = ()

    def __del__(self) -> None:
        if self._connection is not RETURNED:
            self._lender.collected(self._member, 0)


class _Swift(PooledConnection):
    """A loan that has sent, and is not returned: `send` is its sender's."""

    __slots__ = ()

    send = vars(PooledConnection)["_swift_send"]

    def _quicken(self, connection: Connection) -> None:
        """It has been."""

    def _slow_down(self) -> None:
        self._sender.end()
        self.__class__ = PooledConnection  # type: ignore[assignment]


class _SwiftHeld(_Swift, HeldConnection):
    """The same of one that was awaited."""

    __slots__ = ()

    def _slow_down(self) -> None:
        self._sender.end()
        self.__class__ = HeldConnection  # type: ignore[assignment]

    def __del__(self) -> None:
        self._sender.end()
        super().__del__()


PooledConnection._swift, HeldConnection._swift = _Swift, _SwiftHeld


class HeldShare(SharedConnection):
    """The same, of a part."""

    __slots__ = ()

    def __del__(self) -> None:
        if self._connection is not RETURNED:
            self._sharing.collected(self._member, self.weight)


def loan(
    lender: ShareLender,
    url: str,
    timeout: float | None,
    additional_headers: HeadersLike | None = None,
    subprotocols: Sequence[Subprotocol] | None = None,
    ssl: SSLContext | None = None,
    weight: int = 0,
) -> PooledConnection:
    """A loan that is asked for as `ConnectionPool.get_connection` says; of a part if it has a weight."""
    key = target_of(url, additional_headers, subprotocols, ssl)
    return SharedConnection(lender, key, timeout, weight) if weight else PooledConnection(lender, key, timeout)
