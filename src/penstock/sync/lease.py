"""A connection that is lent, for programs without asyncio."""

from __future__ import annotations

from types import TracebackType

from penstock.pool.lease import PooledConnection as AsyncPooledConnection
from penstock.sync.connection import Connection
from penstock.sync.thread import LoopThread

UNREAD = "unread"
"""Why a connection is not lent again on which messages came that nobody took."""


class PooledConnection(Connection):
    """A loan, until `release` or the end of its ``with`` block; see `penstock.PooledConnection`."""

    def __init__(self, lease: AsyncPooledConnection, thread: LoopThread) -> None:
        super().__init__(lease, thread)
        self._lease = lease

    def __repr__(self) -> str:
        return f"<sync {self._lease!r}>"

    def release(self) -> None:
        """Return the connection. Calling it again does nothing."""
        self._end(UNREAD if self._here else None)

    def discard(self, reason: str = "") -> None:
        """Return the connection, not to be lent again. Calling it again does nothing."""
        self._end(reason or "discarded")

    def _end(self, reason: str | None) -> None:
        async def end() -> None:
            if reason is None:
                self._lease.release()
            else:
                self._lease.discard(reason)

        self._thread.run("release", end)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._thread.is_foreign:
            return
        if self._here:
            self.discard(UNREAD)
        else:
            self._thread.run("release", lambda: self._lease.__aexit__(exc_type, exc_value, traceback))

    @property
    def url(self) -> str:
        """What was asked for."""
        return self._lease.url

    @property
    def request_count(self) -> int:
        """Times that the connection was lent, this one among them."""
        return self._lease.request_count

    @property
    def is_connected(self) -> bool:
        """Whether it is lent to you, and open."""
        return self._lease.is_connected

    def is_healthy(self) -> bool:
        """Whether it is open, and the pool has found nothing wrong with it."""
        return self._lease.is_healthy()
