"""A socket of an ASGI server that does what servers rarely do."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from penstock.connection.session import WHOLE
from penstock.server.asgi_transport import HIGH, AsgiTransport
from penstock.transport.base import ConnectionClosedError, ConnectionClosedOK, State
from support.waiting import until

pytestmark = pytest.mark.timeout(10)


class Owner:
    def __init__(self) -> None:
        self.told: list[str] = []

    def writable(self) -> None:
        self.told.append("writable")

    def control(self) -> None: ...

    def closing(self) -> None:
        self.told.append("closing")

    def closed(self) -> None:
        self.told.append("closed")


class Server:
    """Gives what a test puts in, and keeps what it is sent."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.sent: list[Any] = []
        self.may_send = asyncio.Event()
        self.may_send.set()

    async def receive(self) -> Any:
        message = await self.incoming.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, message: Any) -> None:
        await self.may_send.wait()
        self.sent.append(message)

    def disconnect(self, **how: Any) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", **how})


@pytest.fixture
async def server() -> Server:
    return Server()


@pytest.fixture
async def transport() -> AsgiTransport:
    transport = AsgiTransport({"type": "websocket", "client": ("1.2.3.4", 5), "server": ("::1", 80)})
    transport.owner = Owner()
    return transport


def begin(transport: AsgiTransport, server: Server) -> asyncio.Task[None]:
    return asyncio.create_task(transport.carry(server.receive, server.send))


def written(transport: AsgiTransport, *payloads: bytes) -> None:
    transport.write(transport.frames.many(WHOLE, payloads))


async def test_messages_go_in_order_and_the_close_behind_them(transport: AsgiTransport, server: Server) -> None:
    carrying = begin(transport, server)
    written(transport, b"one", b"two")
    transport.fail(4900, "é" * 100)
    written(transport, b"too late")
    await until(lambda: len(server.sent) == 3)
    assert [message.get("bytes") for message in server.sent] == [b"one", b"two", None]
    assert server.sent[-1] == {"type": "websocket.close", "code": 4900, "reason": "é" * 61}
    server.disconnect(code=4900)
    await carrying
    assert transport.owner.told == ["closing", "closed"]  # type: ignore[attr-defined]
    assert isinstance(transport.close_exc, ConnectionClosedError)


async def test_writing_pauses_above_the_limit_and_goes_on(transport: AsgiTransport, server: Server) -> None:
    server.may_send.clear()
    carrying = begin(transport, server)
    written(transport, bytes(HIGH))
    assert not transport.blocked
    written(transport, b"x")
    assert transport.blocked
    draining = asyncio.create_task(transport.drained())
    await asyncio.sleep(0.01)
    assert not draining.done()
    server.may_send.set()
    await draining
    assert not transport.blocked
    assert transport.owner.told == ["writable"]  # type: ignore[attr-defined]
    server.disconnect(code=1000)
    await carrying
    assert isinstance(transport.close_exc, ConnectionClosedOK)


async def test_what_cannot_be_written_any_more_keeps_nobody_waiting(transport: AsgiTransport, server: Server) -> None:
    server.may_send.clear()
    carrying = begin(transport, server)
    written(transport, b"x")
    draining = asyncio.create_task(transport.drained())
    await asyncio.sleep(0)
    server.disconnect()
    await draining
    await carrying
    assert (transport.close_code, transport.state) == (1005, State.CLOSED)


async def test_a_server_that_raises_when_it_is_sent_to_is_left(transport: AsgiTransport, server: Server) -> None:
    transport.close_timeout = 0.05

    async def send(message: Any) -> None:
        raise OSError("the client is gone")

    written(transport, b"x")
    await transport.carry(server.receive, send)
    assert transport.close_code == 1006
    assert isinstance(transport.close_exc.__cause__, OSError)


async def test_a_server_that_raises_when_it_is_received_from_is_left(
    transport: AsgiTransport, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.incoming.put_nowait(LookupError("not mine"))
    await transport.carry(server.receive, server.send)
    assert transport.close_code == 1006
    assert "not mine" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_a_server_that_does_not_tell_of_the_end_is_left(transport: AsgiTransport, server: Server) -> None:
    transport.close_timeout = 0.05
    carrying = begin(transport, server)
    await transport.close(1000)
    await carrying
    assert transport.close_code == 1006


async def test_a_server_that_cancels_has_dropped_the_socket(transport: AsgiTransport, server: Server) -> None:
    carrying = begin(transport, server)
    await asyncio.sleep(0)
    carrying.cancel()
    await asyncio.wait([carrying])
    assert carrying.cancelled()
    assert transport.owner.told == ["closing", "closed"]  # type: ignore[attr-defined]


async def test_what_arrives_is_received_as_bytes_or_text(transport: AsgiTransport, server: Server) -> None:
    for content in (
        {"text": "a"},
        {"bytes": b"b", "text": None},
        {"bytes": bytearray(b"c")},
        {"bytes": None, "text": ""},
    ):
        server.incoming.put_nowait({"type": "websocket.receive", **content})
    server.disconnect(code=1001, reason="bye")
    await transport.carry(server.receive, server.send)
    assert await transport.recv_many() == ["a", b"b", b"c", ""]
    with pytest.raises(ConnectionClosedOK):
        await transport.recv()
    assert (transport.close_received, transport.close_reason) == (1001, "bye")


async def test_what_asgi_does_not_have_is_said(transport: AsgiTransport) -> None:
    with pytest.raises(NotImplementedError):
        await transport.ping()
    with pytest.raises(NotImplementedError):
        await transport.pong()
    with pytest.raises(NotImplementedError):
        transport.reject(403, "no")
