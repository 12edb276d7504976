"""What a loan sends with, once it has sent: the connection's own function, on a stand-in that dies with the loan.

A method of the loan that calls the connection's costs a third of what sending does. The function asks its connection
for nothing but the outbox, and a stand-in that has only that can be made to refuse, whoever has kept the method.
"""

from __future__ import annotations

from typing import Any, cast

from penstock.connection.connection import Connection
from penstock.connection.outbox import Outbox
from penstock.connection.reliable import ReliableConnection
from penstock.pool.absent import RETURNED


class Sender:
    """Sends on a connection that is lent, until the end of the loan."""

    __slots__ = ("outbox",)

    send: Any

    def __init__(self, outbox: Outbox) -> None:
        self.outbox = outbox

    def end(self) -> None:
        """Send no more: raise LeaseReturned instead."""
        self.outbox = RETURNED


class _PlainSender(Sender):
    __slots__ = ()
    send = cast("Any", Connection.send)


class _ReliableSender(Sender):
    __slots__ = ()
    send = cast("Any", ReliableConnection.send)


_SENDERS: dict[type, type[Sender]] = {Connection: _PlainSender, ReliableConnection: _ReliableSender}


def sender_of(connection: Connection) -> Sender | None:
    """What sends as a connection does; None for one of another class, whose ``send`` may ask for more."""
    kind = _SENDERS.get(type(connection))
    return None if kind is None else kind(connection.outbox)
