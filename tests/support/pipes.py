"""A middleware, and a server that writes down what arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from penstock import serve
from penstock.config.performance import PerformanceConfig
from penstock.config.sections import FallbackConfig, SendingConfig
from penstock.middleware.middleware import PerformanceMiddleware
from support.servers import port_of


class Ledger:
    """What has arrived, and over which connections."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.connections: list[Any] = []
        self.port = 0
        self.url = ""

    async def take(self, conn: Any) -> None:
        self.connections.append(conn)
        async for message in conn:
            self.messages.append(message)
            if message == "echo":
                await conn.send(message)


@asynccontextmanager
async def ledger(**options: Any) -> AsyncIterator[Ledger]:
    """A server; ``options`` are those of `serve`."""
    book = Ledger()
    async with serve(book.take, "127.0.0.1", 0, **options) as server:
        book.port = port_of(server)
        book.url = f"ws://127.0.0.1:{book.port}/"
        yield book


@asynccontextmanager
async def piped(
    *,
    sending: dict[str, Any] | None = None,
    fallback: dict[str, Any] | None = None,
    sections: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[PerformanceMiddleware]:
    """A middleware; samples nothing unless asked to."""
    config = PerformanceConfig(
        sending=SendingConfig(**(sending or {})),
        fallback=FallbackConfig(**{"sample_every": 0, **(fallback or {})}),
        **(sections or {}),
    )
    async with PerformanceMiddleware(config, **options) as pipe:
        yield pipe
