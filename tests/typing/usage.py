"""What a type checker makes of the public names; mypy reads this file, nothing runs it.

A ``type: ignore`` here is a claim: mypy reports it when the line is no error any more.
"""

from __future__ import annotations

from typing import Any, assert_type

import penstock
from penstock import (
    BatchConfig,
    BatchProcessor,
    BatchStats,
    CacheStats,
    Codec,
    Connection,
    Dashboard,
    Message,
    MessageBatcher,
    MessageCache,
    Priority,
    Receipt,
    Server,
    ServerConnection,
    SharedTier,
)


async def forgot_to_await() -> None:
    penstock.connect("ws://localhost").send  # type: ignore[attr-defined]  # noqa: B018 - the claim


async def client() -> None:
    async with penstock.connect("ws://localhost", batch=BatchConfig(batch_size=10)) as conn:
        assert_type(conn, Connection)
        await conn.send("text")
        await conn.send(b"binary", text=True)
        await conn.send(["in", "parts"])
        await conn.send({"a": "dict"})  # keys are strings, so that a checker cannot tell it from fragments
        await conn.send(5)  # type: ignore[arg-type]
        await conn.send_many(b"x" for _ in range(3))
        await conn.flush()
        assert_type(await conn.recv(), str | bytes)
        assert_type(await conn.recv(decode=True), str)
        assert_type(await conn.recv(decode=False), bytes)
        assert_type(await conn.recv_many(), list[str | bytes])
        async for message in conn:
            assert_type(message, str | bytes)
        async for part in conn.recv_streaming():
            assert_type(part, str | bytes)
        assert_type(await (await conn.ping()), float)
    assert_type(await penstock.connect("ws://localhost"), Connection)
    async for again in penstock.connect("ws://localhost"):
        assert_type(again, Connection)
    penstock.connect("ws://localhost", transport="carrier pigeon")  # type: ignore[arg-type]


async def handler(conn: ServerConnection) -> None:
    assert_type(conn.server, Server)
    penstock.broadcast(conn.server.connections, "hello")


async def server(ws: Any) -> None:
    async with penstock.serve(handler, "localhost", 8765) as running:
        assert_type(running, Server)
    assert_type(penstock.accelerate(ws), Connection)
    penstock.accelerate("ws://localhost")  # type: ignore[arg-type]


async def batches() -> None:
    async def deliver(messages: list[Message]) -> None: ...

    async with MessageBatcher(deliver, overflow="raise", processor=BatchProcessor(codec=Codec.ZLIB)) as batcher:
        receipt = await batcher.add_message("text", Priority.HIGH, key="k", ttl=1)
        assert_type(receipt, Receipt)
        await receipt
        assert_type(await batcher.flush_messages(), list[Message])
        assert_type(batcher.stats(), BatchStats)
    MessageBatcher(print)
    MessageBatcher(deliver, overflow="drop")  # type: ignore[arg-type]
    assert_type(BatchProcessor().expand_batch(BatchProcessor().compress_batch([Message(b"a")])), list[Message])


async def answers() -> None:
    async def load() -> int:
        return 1

    cache = MessageCache(100, negative_ttl={LookupError: 5}, size_of=len)
    assert_type(await cache.get_or_load("key", load, ttl=5, tags=["tag"]), int)
    assert_type(await cache.get_or_load("key", lambda: "text"), str)
    assert_type(cache.invalidate(tag="tag"), int)
    assert_type(cache.get_cache_stats(), CacheStats)
    cache.get(["list"])  # type: ignore[arg-type]
    cache.set("key", 1, eviction_policy="lru")  # type: ignore[call-arg]


async def with_extras(pipe: penstock.PerformanceMiddleware) -> None:
    async with SharedTier("redis://localhost", prefix="it:") as tier, Dashboard(pipe) as board:
        assert_type(tier, SharedTier)
        assert_type(board, Dashboard)
