"""How long ago the peer was heard."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

import penstock
from support.servers import echo, url_of

RUNNERS = {"asyncio": asyncio.run, "uvloop": uvloop.run}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
@pytest.mark.parametrize("transport", ["picows", "websockets"])
@pytest.mark.parametrize("loop", RUNNERS)
def test_the_kernel_knows_how_long_the_peer_has_been_silent_until_the_socket_is_closed(
    loop: str, transport: Any
) -> None:
    async def listen() -> None:
        async with penstock.serve(echo, "127.0.0.1", 0, reliable=False) as server:
            conn = await penstock.connect(url_of(server), transport=transport)
            await conn.send("hello")
            await conn.recv()
            await asyncio.sleep(0.1)
            silence = conn.silence()
            assert silence is not None
            assert 0.09 <= silence < 2
            await conn.send("hello")
            await conn.recv()
            again = conn.silence()
            assert again is not None
            assert again < silence
            await conn.close()
            assert conn.silence() is None

    run: Callable[[Coroutine[Any, Any, None]], None] = RUNNERS[loop]
    run(listen())
