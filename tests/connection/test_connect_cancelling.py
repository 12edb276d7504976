"""Cancelling ``connect`` at any moment leaves no socket behind, on any way to the server."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import penstock
from support.certificates import server_tls, trusting
from support.peers import Peer, http, peer, saying, silent, switching
from support.proxies import http_proxy, socks5_proxy
from support.servers import each_transport, serving, url_of
from support.waiting import until

pytestmark = pytest.mark.timeout(40)

MAX_STEPS = 500
DESCRIPTORS = Path("/proc/self/fd")

needs_proc = pytest.mark.skipif(not DESCRIPTORS.exists(), reason="counts open files in /proc")


def open_sockets() -> int:
    count = 0
    for entry in DESCRIPTORS.iterdir():
        try:
            count += "socket:" in str(entry.readlink())
        except OSError:
            continue  # the descriptor that lists the others
    return count


async def settled(wanted: int) -> bool:
    """Whether only so many sockets are open, soon."""
    try:
        await until(lambda: open_sockets() <= wanted)
    except TimeoutError:
        return False
    return True


@asynccontextmanager
async def way(name: str) -> AsyncIterator[Callable[[], Any]]:
    """Servers for one way to connect; yields what makes a fresh ``connect``."""
    async with AsyncExitStack() as stack:
        options: dict[str, Any] = {"proxy": None}
        secure = name in ("tls", "proxied tls", "socks tls")
        tls = {"ssl": server_tls()} if secure else {}
        server = await stack.enter_async_context(serving("websockets", **tls))
        url = url_of(server, scheme="wss" if secure else "ws")
        if secure:
            options["ssl"] = trusting()
        if name in ("proxied", "proxied tls"):
            proxy = await stack.enter_async_context(http_proxy())
            options["proxy"] = f"http://127.0.0.1:{proxy.port}"
        if name in ("socks", "socks tls"):
            proxy = await stack.enter_async_context(socks5_proxy())
            options["proxy"] = f"socks5://127.0.0.1:{proxy.port}"
        if name == "redirected":
            old = await stack.enter_async_context(peer(saying(http("302 Found", f"Location: {url}"))))
            url = old.url
        if name == "keep-alive, Upgrade":
            odd = await stack.enter_async_context(peer(saying(switching(connection=name), hang_up=False)))
            url = odd.url
            options["close_timeout"] = 0.01
        yield lambda **more: penstock.connect(url, **options, **more)


async def cancelled_after(steps: int, opening: Any) -> bool:
    """Cancel a connect after so many turns of the loop; False once it is too late."""
    task = asyncio.ensure_future(_opened(opening))
    for _ in range(steps):
        await asyncio.sleep(0)
        if task.done():
            break
    task.cancel()
    try:
        conn = await task
    except asyncio.CancelledError:
        return True
    await conn.close()
    return False


async def _opened(opening: Any) -> Any:
    return await opening


@needs_proc
@pytest.mark.parametrize(
    "name",
    ["plain", "tls", "redirected", "keep-alive, Upgrade", "proxied", "proxied tls", "socks", "socks tls"],
)
@each_transport
async def test_no_socket_is_left_whenever_connect_is_cancelled(transport: Any, name: str) -> None:
    async with way(name) as opening:
        conn = await opening(transport=transport)  # loads and caches what the first use does
        await conn.close()
        await asyncio.sleep(0.01)
        before = open_sockets()
        steps = 0
        while await cancelled_after(steps, opening(transport=transport)):
            assert await settled(before), f"a socket is left after {steps} steps"
            steps += 1
            assert steps < MAX_STEPS
        gc.collect()  # the answer of a proxy that websockets does not wait for: a later test would be blamed for it
        assert steps > 3
        assert await settled(before)


@each_transport
async def test_cancelling_while_nobody_answers_closes_the_socket(transport: Any) -> None:
    async with peer(silent()) as server:
        task = asyncio.ensure_future(_opened(penstock.connect(server.url, transport=transport)))
        await server.wait_accepted()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.wait_gone()


@each_transport
async def test_cancelling_while_the_answer_arrives_closes_the_socket(transport: Any) -> None:
    reached = asyncio.Event()

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(switching()(head).encode()[:-2])
        await writer.drain()
        reached.set()
        await reader.read()

    async with peer(talk) as server:
        task = asyncio.ensure_future(_opened(penstock.connect(server.url, transport=transport)))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.wait_gone()


@each_transport
async def test_a_connect_that_lost_a_race_leaves_nothing_open(transport: Any) -> None:
    """As in happy eyeballs, or with a spare server: the first one wins, the others are cancelled."""
    async with serving() as quick, peer(silent()) as slow:
        openings = [penstock.connect(url, transport=transport) for url in (slow.url, url_of(quick))]
        tasks = [asyncio.ensure_future(_opened(opening)) for opening in openings]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        [winner] = done
        await winner.result().send("x")
        assert await winner.result().recv() == "x"
        await winner.result().close()
        await slow.wait_gone()


@each_transport
async def test_cancelling_async_with_closes_the_connection(transport: Any) -> None:
    inside = asyncio.Event()

    async def use(url: str) -> None:
        async with penstock.connect(url, transport=transport) as conn:
            inside.set()
            await conn.recv()

    async with serving() as server:
        task = asyncio.create_task(use(url_of(server)))
        await inside.wait()
        [ws] = server.connections
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ws.wait_closed()
        assert ws.close_code == 1011
