"""Who lends connections, as a loan sees it."""

from __future__ import annotations

from typing import Protocol

from penstock.connection.connection import Connection
from penstock.pool.slots import Key, Member


class Lender(Protocol):
    """Who lends connections, and takes them back."""

    @property
    def thread(self) -> int | None:
        """The only one in which that may be done; no thread's number in a child process."""

    def take(self, key: Key) -> Member[Connection] | None: ...
    async def wait(self, key: Key, timeout: float | None, weight: int = 0) -> Member[Connection]: ...
    def give_back(self, member: Member[Connection], reason: str | None) -> None: ...
    def collected(self, member: Member[Connection], weight: int) -> None:
        """A loan was never returned, and is gone."""


class ShareLender(Lender, Protocol):
    """Who lends parts of connections as well."""

    def take_share(self, key: Key, weight: int) -> Member[Connection] | None: ...
    def give_back_share(self, member: Member[Connection], weight: int, reason: str | None) -> None: ...
