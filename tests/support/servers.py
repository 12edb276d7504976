"""WebSocket servers of both libraries on loopback, for clients to meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

import penstock

TRANSPORTS = ("picows", "websockets")
SERVERS = ("websockets", "penstock-picows", "penstock-websockets")

each_transport = pytest.mark.parametrize("transport", TRANSPORTS)
each_server = pytest.mark.parametrize("kind", SERVERS)


async def echo(conn: Any) -> None:
    async for message in conn:
        await conn.send(message)


@asynccontextmanager
async def serving(
    kind: str = "websockets",
    handler: Callable[[Any], Awaitable[None]] = echo,
    host: Any = "127.0.0.1",
    **options: Any,
) -> AsyncIterator[Any]:
    """An open server; ``kind`` is one of `SERVERS`."""
    if kind == "websockets":
        server: Any = websockets.serve(handler, host, 0, **options)
    else:
        server = penstock.serve(handler, host, 0, transport=kind.removeprefix("penstock-"), **options)
    async with server:
        yield server


def port_of(server: Any) -> int:
    return int(server.sockets[0].getsockname()[1])


def url_of(server: Any, path: str = "/", *, scheme: str = "ws", host: str = "127.0.0.1", user: str = "") -> str:
    return f"{scheme}://{user}{host}:{port_of(server)}{path}"
