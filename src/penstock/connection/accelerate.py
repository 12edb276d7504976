"""Taking over a connection that is open already."""

from __future__ import annotations

from penstock.batch.policy import BatchConfig
from penstock.connection.connection import Connection
from penstock.transport.base import State
from penstock.transport.websockets import WebsocketsConnection, adopt

_MARK = "_accelerated_by_penstock"


def accelerate(ws: WebsocketsConnection | Connection, *, batch: BatchConfig | None = None) -> Connection:
    """Speed up an open asyncio connection of ``websockets``, client's or server's.

    What is sent through the result goes many messages to a write, uncompressed even if permessage-deflate was
    negotiated (compressed answers are inflated). Keepalive pings go on as they were, but no longer kill a connection
    whose messages are not being received. ``ws`` itself stays usable, but do not send through one of them while a
    message in fragments is being sent through the other. A penstock connection comes back as it is, and a ``ws`` that
    was given before brings the same result.

    Raises:
        TypeError: ``ws`` is something else.
    """
    if isinstance(ws, Connection):
        return ws
    known: Connection | None = getattr(ws, _MARK, None)
    if known is not None:
        return known
    transport = adopt(ws)
    connection = Connection(transport, BatchConfig() if batch is None else batch, optimize=True)
    if transport.state is not State.OPEN:
        connection.outbox.closed()
    setattr(ws, _MARK, connection)  # two outboxes for one socket would overtake each other
    return connection
