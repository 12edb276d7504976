"""Sessions that come and go leave nothing behind."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import penstock
from support.resources import Resources
from support.servers import each_transport, echo, url_of
from support.sessions import meeting, until

MIB = 1024 * 1024

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc, on Linux"),
]


@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.load)])
@each_transport
async def test_sessions_that_were_closed_leave_only_that_they_have_been(transport: Any, count: int) -> None:
    async with penstock.serve(echo, "127.0.0.1", 0, transport=transport) as server:

        async def converse() -> None:
            async with penstock.connect(url_of(server), transport=transport, reliable=True) as conn:
                await conn.send("x" * 1000)
                assert await conn.recv() == "x" * 1000

        async def rounds() -> Resources:
            for _ in range(count // 10):
                await asyncio.gather(*(converse() for _ in range(10)))
            await until(lambda: not server._sessions._known)  # type: ignore[union-attr]
            await asyncio.sleep(0.05)
            return Resources.now()

        before = await rounds()
        after = await rounds()
        assert server._sessions is not None
        assert len(server._sessions._ended) <= 2 * count
        assert server.connections == set()
    assert after.tasks == before.tasks
    assert after.descriptors == before.descriptors
    assert after.timers <= before.timers + 10
    assert after.resident_bytes - before.resident_bytes < 4 * MIB


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.load)])
@each_transport
async def test_a_session_that_is_resumed_again_and_again_does_not_grow(transport: Any, count: int) -> None:
    async with meeting(transport, seconds=250) as both:

        async def rounds() -> Resources:
            for number in range(count):
                await both.client.send(str(number))
                both.relay.cut()
                assert await both.far.recv() == str(number)
            await both.client.delivered()
            await both.back()
            await asyncio.sleep(0.3)
            return Resources.now()

        before = await rounds()
        after = await rounds()
        assert after.tasks <= before.tasks + 2
        assert after.descriptors <= before.descriptors + 4
        assert after.resident_bytes - before.resident_bytes < 4 * MIB
        assert len(both.handled) == 1
