"""A small server of graphql-transport-ws, which behaves as it should, or as its tests want."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import websockets

from support.servers import port_of, serving


class GraphQLServer:
    """Answers a document by what is in it: ``echo`` with its variables, ``fail`` with errors as well, ``refuse`` with
    an error message, ``never`` not at all; a subscription stays open for `emit`.
    """

    def __init__(self) -> None:
        self.port = 0
        self.frames: list[Any] = []
        self.conns: list[Any] = []
        self.subs: list[tuple[Any, str]] = []
        self.inits: list[Any] = []
        self.on_init: Callable[[Any, Any], Awaitable[None]] | None = None
        self.on_operation: Callable[[Any, Any], Awaitable[None]] | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    def times(self, kind: str) -> int:
        return sum(frame["type"] == kind for frame in self.frames)

    @asynccontextmanager
    async def up(self, **options: Any) -> AsyncIterator[GraphQLServer]:
        async with serving("websockets", self._handle, subprotocols=["graphql-transport-ws"], **options) as server:
            self.port = port_of(server)
            yield self

    def hang_up(self) -> None:
        for conn in self.conns:
            conn.transport.abort()
        self.conns.clear()

    async def emit(self, data: Any, *, to: int = -1, **more: Any) -> None:
        conn, id = self.subs[to]  # noqa: A001
        await self.say(conn, type="next", id=id, payload={"data": data, **more})

    @staticmethod
    async def say(conn: Any, **message: Any) -> None:
        await conn.send(json.dumps(message))

    async def _handle(self, conn: Any) -> None:
        self.conns.append(conn)
        try:
            async for text in conn:
                message = json.loads(text)
                self.frames.append(message)
                await self._take(conn, message)
        except websockets.ConnectionClosed:
            pass
        finally:
            self.subs = [one for one in self.subs if one[0] is not conn]

    async def _take(self, conn: Any, message: Any) -> None:
        match message["type"]:
            case "connection_init":
                self.inits.append(message.get("payload"))
                if self.on_init is not None:
                    await self.on_init(conn, message)
                else:
                    await self.say(conn, type="ping", payload={"t": 1})
                    await self.say(conn, type="connection_ack")
            case "complete":
                self.subs = [one for one in self.subs if one != (conn, message["id"])]
            case "subscribe":
                if self.on_operation is not None:
                    await self.on_operation(conn, message)
                else:
                    await self._run(conn, message["id"], message["payload"])

    async def _run(self, conn: Any, id: str, payload: Any) -> None:  # noqa: A002
        query = payload["query"]
        if query.startswith("subscription"):
            if "refuse" in query:
                await self.say(conn, type="error", id=id, payload=[{"message": "no"}])
            else:
                self.subs.append((conn, id))
        elif "refuse" in query:
            await self.say(conn, type="error", id=id, payload=[{"message": "no"}])
        elif "never" not in query:
            result: Any = {"data": payload.get("variables")}
            if "fail" in query:
                result["errors"] = [{"message": "half"}]
            await self.say(conn, type="next", id=id, payload=result)
            await self.say(conn, type="complete", id=id)


@asynccontextmanager
async def graphql_server(**options: Any) -> AsyncIterator[GraphQLServer]:
    async with GraphQLServer().up(**options) as server:
        yield server
