"""ASGI applications on a server of their own, in the test's event loop."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

IMPLEMENTATIONS = ("websockets", "websockets-sansio", "wsproto")

each_implementation = pytest.mark.parametrize("ws", IMPLEMENTATIONS)


@asynccontextmanager
async def uvicorn_serving(
    app: Any, *, ws: str = "websockets-sansio", port: int = 0, lifespan: str = "on", **options: Any
) -> AsyncIterator[int]:
    """Serve with ``uvicorn``, and yield the port."""
    import uvicorn

    sock = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, ws=ws, lifespan=lifespan, log_config=None, **options)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one implementation is deprecated, and in use all the same
        config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([sock])  # without the loop that waits for signals
    try:
        yield int(sock.getsockname()[1])
    finally:
        async with asyncio.timeout(10):
            await server.shutdown([sock])
