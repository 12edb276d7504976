"""A connection as its borrower has it: asked for, lent, returned."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from threading import get_ident
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self

from penstock.connection.connection import Connection
from penstock.connection.messages import DataLike, Fragments
from penstock.errors import LeaseReturned, WrongLoop
from penstock.pool.slots import Key, Member
from penstock.pool.target import url_of
from penstock.transport.base import ConnectionClosed, Data, State

REPLACED = "replaced"
"""Why a connection is returned on which the first send of a loan failed."""


class Lender(Protocol):
    """Who lends connections, and takes them back."""

    def take(self, key: Key) -> Member[Connection] | None: ...
    async def wait(self, key: Key, timeout: float | None, weight: int = 0) -> Member[Connection]: ...
    def give_back(self, member: Member[Connection], reason: str | None) -> None: ...
    def collected(self, member: Member[Connection], weight: int) -> None:
        """A loan was never returned, and is gone."""


class ShareLender(Lender, Protocol):
    """Who lends parts of connections as well."""

    def take_share(self, key: Key, weight: int) -> Member[Connection] | None: ...
    def give_back_share(self, member: Member[Connection], weight: int, reason: str | None) -> None: ...


Send = Callable[..., Coroutine[Any, Any, None]]


class _NotLent:
    """In place of the connection before it was lent."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError("no connection yet: write `await pool.get_connection(url)`, or `async with`")


class _Returned:
    """In place of the connection, once it was returned."""

    def __getattr__(self, name: str) -> NoReturn:
        raise LeaseReturned


_NOT_LENT: Any = _NotLent()
_RETURNED: Any = _Returned()


class PooledConnection:
    """A loan: ``await`` it or ``async with`` it, and it is the connection until it is returned, an error after that.

    Give it back with `release`, or by leaving ``async with pool.get_connection(url)``; what is not fit to be lent again
    is closed by the pool then, and so is a connection that was used in a block that ends with an exception: an answer
    may still be under way. Attributes that are not listed here are the connection's own.

    The first `send` on a connection that was lent before may find that the peer has just closed it: nothing of the loan
    is lost then, and it goes on, once, on another connection.
    """

    __slots__ = ("_connection", "_key", "_lender", "_member", "_timeout", "_untried")

    def __init__(self, lender: Lender, key: Key, timeout: float | None) -> None:
        self._lender = lender
        self._key = key
        self._timeout = timeout
        self._connection: Connection = _NOT_LENT
        self._member: Member[Connection]
        self._untried: bool

    def __repr__(self) -> str:
        state = "asked for"
        if self._connection is not _NOT_LENT:
            state = "returned" if self._connection is _RETURNED else self._connection.state.name
        return f"<PooledConnection {state} {self.url}>"

    # Borrowing

    def __await__(self) -> Generator[Any, None, Self]:
        return self._hold().__await__()

    async def _hold(self) -> Self:
        await self.__aenter__()
        self.__class__ = HeldConnection  # type: ignore[assignment]
        return self

    async def __aenter__(self) -> Self:
        if self._connection is _NOT_LENT or self._connection is _RETURNED:  # else lent by ``await`` already
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
        if self._connection is not _RETURNED:
            self._connection = _RETURNED
            self._lender.give_back(self._member, None if exc_type is None or self._untried else "error")

    def release(self) -> None:
        """Return the connection. Calling it again does nothing; in another thread it raises `WrongLoop`."""
        self._end(None)

    def discard(self, reason: str = "discarded") -> None:
        """Return the connection, not to be lent again. Calling it again does nothing; `WrongLoop` as `release`."""
        self._end(reason)

    def _end(self, reason: str | None) -> None:
        if self._is_lent():
            self._connection = _RETURNED
            self._lender.give_back(self._member, reason)

    def _is_lent(self) -> bool:
        """Whether there is anything to return. Raises WrongLoop in another thread than the pool's."""
        if self._connection is _RETURNED or self._connection is _NOT_LENT:
            return False
        if get_ident() != self._connection.outbox.thread:
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
        return connection is not _RETURNED and connection is not _NOT_LENT and connection.state is State.OPEN

    def is_healthy(self) -> bool:
        """Whether it is open, and the pool has found nothing wrong with it."""
        return self.is_connected and self._member.retired is None

    # The connection

    def send(self, message: DataLike | Fragments, *, text: bool | None = None) -> Coroutine[Any, Any, None]:
        """See `penstock.Connection.send`."""
        if self._untried:
            return self._send_first(self._connection.send, message, text)
        return self._connection.send(message, text=text)

    async def _send_first(self, send: Send, message: DataLike | Fragments, text: bool | None) -> None:
        self._untried = False
        try:
            await send(message, text=text)
        except ConnectionClosed:
            if self._member.uses <= 1 or not isinstance(message, str | bytes | bytearray | memoryview):
                raise  # it was new, or the fragments may be used up
            self._connection = _RETURNED
            self._lender.give_back(self._member, REPLACED)
            member = self._lender.take(self._key) or await self._lender.wait(self._key, self._timeout)
            self._member = member
            self._connection = member.connection
            await member.connection.send(message, text=text)

    def send_many(self, messages: Iterable[DataLike]) -> Coroutine[Any, Any, None]:
        """See `penstock.Connection.send_many`."""
        self._untried = False
        return self._connection.send_many(messages)

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
        return self._connection.recv_streaming(decode)

    def ping(self, data: DataLike | None = None) -> Coroutine[Any, Any, Awaitable[float]]:
        """See `penstock.Connection.ping`."""
        return self._connection.ping(data)

    def __aiter__(self) -> AsyncIterator[Data]:
        self._untried = False
        return self._connection.__aiter__()

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
        if self._connection is _NOT_LENT or self._connection is _RETURNED:
            lender = self._sharing
            member = lender.take_share(self._key, self.weight)
            if member is None:
                member = await lender.wait(self._key, self._timeout, self.weight)
            self._member = member
            self._connection = member.connection
            self._untried = False  # others may be in the middle of something
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(None)

    def _end(self, reason: str | None) -> None:
        if self._is_lent():
            self._connection = _RETURNED
            self._sharing.give_back_share(self._member, self.weight, reason)


class HeldConnection(PooledConnection):
    """A loan that was awaited, and so may be forgotten; ``async with`` cannot be, and is spared the finalizer."""

    __slots__ = ()

    def __del__(self) -> None:
        if self._connection is not _RETURNED:
            self._lender.collected(self._member, 0)


class HeldShare(SharedConnection):
    """The same, of a part."""

    __slots__ = ()

    def __del__(self) -> None:
        if self._connection is not _RETURNED:
            self._sharing.collected(self._member, self.weight)
