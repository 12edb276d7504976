"""Taking over a connection that is open already."""

from __future__ import annotations

from penstock.batch.policy import BatchConfig
from penstock.connection.connection import Connection
from penstock.transport.websockets import WebsocketsConnection, adopt


def accelerate(ws: WebsocketsConnection | Connection, *, batch: BatchConfig | None = None) -> Connection:
    """Speed up an open asyncio connection of ``websockets``, client's or server's.

    What is sent through the result goes many messages to a write, uncompressed even if permessage-deflate was
    negotiated (compressed answers are inflated). Keepalive pings go on as they were, but no longer kill a connection
    whose messages are not being received. ``ws`` itself stays usable. A penstock connection comes back as it is.

    Raises:
        TypeError: ``ws`` is something else.
    """
    if isinstance(ws, Connection):
        return ws
    return Connection(adopt(ws), BatchConfig() if batch is None else batch, optimize=True)
