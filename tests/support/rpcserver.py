"""A small JSON-RPC server, which behaves as it should, or as its tests want."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import websockets

from support.servers import port_of, serving

KINDS = ("websockets", "penstock-picows")


class RpcServer:
    """Answers calls; keeps what it was asked.

    ``echo`` gives its parameters back, ``slow`` after the seconds that it is given, ``fail`` an error, ``null`` null,
    ``never`` nothing; ``subscribe`` opens a subscription, whose events `emit` sends. A method in `own` is answered by
    what is there: it gets the connection and the message.
    """

    def __init__(self) -> None:
        self.port = 0
        self.frames: list[Any] = []
        """What came, as JSON."""
        self.conns: list[Any] = []
        self.subs: list[tuple[Any, str]] = []
        """Connections and ids of subscriptions that are open."""
        self.own: dict[str, Callable[[Any, Any], Awaitable[None]]] = {}
        self.on_array: Callable[[Any, list[Any]], Awaitable[None]] | None = None
        self._number = 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def asked(self) -> list[Any]:
        """All messages, in arrays or not."""
        return [one for frame in self.frames for one in (frame if isinstance(frame, list) else [frame])]

    def times(self, method: str) -> int:
        return sum(one.get("method") == method for one in self.asked)

    @asynccontextmanager
    async def up(self, kind: str = "websockets", port: int = 0, **options: Any) -> AsyncIterator[RpcServer]:
        """Serve; another time with the same port as before."""
        if kind != "websockets":
            options["reliable"] = False
        if port:
            async with websockets.serve(self._handle, "127.0.0.1", port, **options):
                yield self
            return
        async with serving(kind, self._handle, **options) as server:
            self.port = port_of(server)
            yield self

    def hang_up(self) -> None:
        for conn in self.conns:
            conn.transport.abort()
        self.conns.clear()

    async def emit(self, value: Any, *, to: int = -1) -> None:
        conn, id = self.subs[to]  # noqa: A001
        await conn.send(self.event(id, value))

    @staticmethod
    def event(id: str, value: Any) -> str:  # noqa: A002
        return json.dumps({"jsonrpc": "2.0", "method": "subscription", "params": {"subscription": id, "result": value}})

    @staticmethod
    def result(message: Any, value: Any) -> dict[str, Any]:
        return {"jsonrpc": "2.0", "id": message["id"], "result": value}

    async def reply(self, conn: Any, message: Any, value: Any) -> None:
        await conn.send(json.dumps(self.result(message, value)))

    async def _handle(self, conn: Any) -> None:
        self.conns.append(conn)
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for text in conn:
                found = json.loads(text)
                self.frames.append(found)
                task = asyncio.create_task(self._frame(conn, found))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        except websockets.ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()
            self.subs = [one for one in self.subs if one[0] is not conn]

    async def _frame(self, conn: Any, found: Any) -> None:
        try:
            if not isinstance(found, list):
                await self._single(conn, found)
            elif self.on_array is not None:
                await self.on_array(conn, found)
            else:
                await conn.send(json.dumps([self.result(one, one.get("params")) for one in found]))
        except websockets.ConnectionClosed:
            pass

    async def _single(self, conn: Any, message: Any) -> None:
        method, params = message.get("method"), message.get("params")
        if method in self.own:
            await self.own[method](conn, message)
        elif "id" not in message or method in {"never", None}:
            return
        elif method == "slow":
            await asyncio.sleep(params[0])
            await self.reply(conn, message, params)
        elif method == "fail":
            error = {"code": -32000, "message": "no", "data": params}
            await conn.send(json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}))
        elif method == "subscribe":
            self._number += 1
            self.subs.append((conn, f"0x{self._number}"))
            await self.reply(conn, message, f"0x{self._number}")
        elif method == "unsubscribe":
            self.subs = [one for one in self.subs if one[1] != params[0]]
            await self.reply(conn, message, True)
        else:
            await self.reply(conn, message, None if method == "null" else params)


@asynccontextmanager
async def rpc_server(kind: str = "websockets", **options: Any) -> AsyncIterator[RpcServer]:
    async with RpcServer().up(kind, **options) as server:
        yield server
