"""Many connections share a callback, and not each other's fate."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from penstock.transport.base import ConnectionClosedError
from support.ends import ends, within


async def test_a_connection_that_cannot_be_written_to_does_not_stall_its_neighbour(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "websockets.protocol")
    async with ends() as broken, ends() as sound:

        def fail(data: Any) -> None:
            raise RuntimeError("cannot write")

        await broken.client.send("first")
        await sound.client.send("first")
        await broken.client.send("never written")
        await sound.client.send("second")
        broken.client_end.write = fail
        await sound.client.send("third")
        assert [await within(sound.server.recv()) for _ in range(3)] == ["first", "second", "third"]
        await sound.client.send("fourth")
        await sound.client.send("fifth")
        assert [await within(sound.server.recv()) for _ in range(2)] == ["fourth", "fifth"]
        with pytest.raises(ConnectionClosedError):
            await within(broken.client.send("after that"))
