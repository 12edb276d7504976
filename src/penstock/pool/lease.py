"""A connection as its borrower has it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from penstock.connection.connection import Connection
from penstock.connection.messages import DataLike, Fragments
from penstock.errors import LeaseReturned
from penstock.transport.base import Data, State

if TYPE_CHECKING:
    from penstock.pool.state import Member


class _Returned:
    """In place of the connection, once it was returned."""

    def __getattr__(self, name: str) -> NoReturn:
        raise LeaseReturned


_RETURNED: Any = _Returned()


class PooledConnection:
    """A loan: the connection until it is returned, and an error after that.

    Give it back with `release`, or by leaving ``async with pool.get_connection(url)``; what is not fit to be lent again
    is closed by the pool then. Attributes that are not listed here are the connection's own.
    """

    __slots__ = ("_connection", "_give_back", "_member", "request_count", "url")

    def __init__(
        self, url: str, member: Member[Connection], give_back: Callable[[Member[Connection], str | None], None]
    ) -> None:
        self.url = url
        """What was asked for."""
        self.request_count = member.uses
        """Times that the connection was lent, this one among them."""
        self._member = member
        self._connection = member.connection
        self._give_back = give_back

    def __repr__(self) -> str:
        state = "returned" if self._connection is _RETURNED else self._connection.state.name
        return f"<{type(self).__name__} {state} {self.url}>"

    def release(self) -> None:
        """Return the connection. Calling it again does nothing."""
        if self._connection is not _RETURNED:
            self._connection = _RETURNED
            self._give_back(self._member, None)

    def discard(self, reason: str = "discarded") -> None:
        """Return the connection, not to be lent again. Calling it again does nothing."""
        if self._connection is not _RETURNED:
            self._connection = _RETURNED
            self._give_back(self._member, reason)

    @property
    def created_at(self) -> float:
        """When the connection was opened, on the event loop's clock, in seconds."""
        return self._member.opened_at

    @property
    def last_used(self) -> float:
        """When it was lent or returned last, on the event loop's clock, in seconds."""
        return self._member.used_at

    @property
    def is_connected(self) -> bool:
        """Whether it is lent to you, and open."""
        return self._connection is not _RETURNED and self._connection.state is State.OPEN

    def is_healthy(self) -> bool:
        """Whether it is open, and the pool has found nothing wrong with it."""
        return self.is_connected and self._member.retired is None

    def send(self, message: DataLike | Fragments, *, text: bool | None = None) -> Coroutine[Any, Any, None]:
        """See `penstock.Connection.send`."""
        return self._connection.send(message, text=text)

    def send_many(self, messages: Iterable[DataLike]) -> Coroutine[Any, Any, None]:
        """See `penstock.Connection.send_many`."""
        return self._connection.send_many(messages)

    def recv(self, decode: bool | None = None) -> Coroutine[Any, Any, Data]:
        """See `penstock.Connection.recv`."""
        return self._connection.recv(decode)

    def recv_many(self, max: int | None = None) -> Coroutine[Any, Any, list[Data]]:  # noqa: A002
        """See `penstock.Connection.recv_many`."""
        return self._connection.recv_many(max)

    def ping(self, data: DataLike | None = None) -> Coroutine[Any, Any, Awaitable[float]]:
        """See `penstock.Connection.ping`."""
        return self._connection.ping(data)

    def __aiter__(self) -> AsyncIterator[Data]:
        return self._connection.__aiter__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
