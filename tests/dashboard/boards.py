"""Dashboards, and who looks at them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import penstock
from penstock import AlertRule, Dashboard
from penstock.config.sections import AlertsConfig, MetricsConfig
from penstock.metrics.alerts.engine import Track
from penstock.middleware.middleware import PerformanceMiddleware
from support.pipes import piped

BY_HAND: dict[str, Any] = {
    "alerts": AlertsConfig(log=False),
    "metrics": MetricsConfig(interval=3600.0, history=3600.0),
}
"""Metrics are read when a test says so."""


@asynccontextmanager
async def watched(sections: dict[str, Any] | None = None) -> AsyncIterator[PerformanceMiddleware]:
    """A middleware without alert rules: a machine that is slow is none of the tests' business."""
    async with piped(sections=BY_HAND | (sections or {}), sending={"idle_time": 60.0}) as pipe:
        judge(pipe)
        yield pipe


def judge(pipe: PerformanceMiddleware, *rules: AlertRule) -> None:
    """Have these rules, and no other."""
    pipe.alerts._engine._tracks = [Track(rule) for rule in rules]


@asynccontextmanager
async def boarded(
    *, sections: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[PerformanceMiddleware, Dashboard]]:
    async with watched(sections) as pipe, Dashboard(pipe, **options) as board:
        yield pipe, board


def port_in(board: Dashboard) -> int:
    return int(board.url.split(":")[2].partition("/")[0])


def feed_of(board: Dashboard) -> str:
    return f"ws://127.0.0.1:{port_in(board)}/feed"


async def asked(
    port: int, path: str = "/", *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """What is answered to a request with these headers and no other; a name's underscores are hyphens."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "Connection: close", "", ""]).encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    first, *rest = head.decode().split("\r\n")
    return int(first.split()[1]), {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in rest}, body


class Viewer:
    """One that speaks as the page does."""

    def __init__(self, conn: Any) -> None:
        self.conn = conn

    async def told(self) -> Any:
        """The next message, answered."""
        message = await self.unanswered()
        await self.conn.send("ok")
        return message

    async def unanswered(self) -> Any:
        async with asyncio.timeout(5):
            return json.loads(await self.conn.recv())


@asynccontextmanager
async def viewing(board: Dashboard, token: str | None = None, **options: Any) -> AsyncIterator[Viewer]:
    async with penstock.connect(feed_of(board), **options) as conn:
        await conn.send(json.dumps({"token": token}))
        yield Viewer(conn)
