"""Calling what an application has to say about its connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from penstock.connection.connection import Connection
from penstock.errors import ConnectionFailed
from penstock.pool.lease import PooledConnection
from penstock.pool.slots import Key, Member
from penstock.pool.target import url_of

Hook: TypeAlias = Callable[[PooledConnection], Awaitable[None]]


class _HookLender:
    """Lends one connection for as long as a hook runs."""

    def __init__(self, member: Member[Connection]) -> None:
        self.member = member
        self.thread: int | None = member.connection.outbox.thread
        self.returned: str | None = None
        """Why the hook gave it back, if it did."""

    def take(self, key: Key) -> Member[Connection] | None:
        return self.member

    async def wait(self, key: Key, timeout: float | None, weight: int = 0) -> Member[Connection]:
        return self.member

    def give_back(self, member: Member[Connection], reason: str | None) -> None:
        self.returned = reason or "released"

    def collected(self, member: Member[Connection], weight: int) -> None:
        """It belongs to the pool, which closes it."""


async def call_hook(hook: Hook, member: Member[Connection]) -> None:
    """Run a hook with a loan that ends with it.

    Raises:
        ConnectionFailed: the hook gave the connection back: it is of no use.
    """
    lender = _HookLender(member)
    async with PooledConnection(lender, member.key, None) as lease:
        await hook(lease)
        reason = lender.returned
    if reason is not None:
        raise ConnectionFailed(url_of(member.key), f"a hook gave the connection back: {reason}")
