"""What a break must not change, when it comes at an awkward moment."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets

import penstock
from penstock.connection import session as session_module
from penstock.connection import taking as taking_module
from penstock.errors import SessionLost
from penstock.server.sessions import SessionConfig
from penstock.transport.base import ConnectionClosedOK
from penstock.wire.envelope import ENDED, NEW, RESUMED, UNKNOWN, Bye, Data, Hello, Welcome, read, write
from support.ends import steps
from support.servers import each_transport, url_of
from support.sessions import QUICK, meeting, numbers, soon, until

pytestmark = pytest.mark.timeout(30)


def promise(ws: Any, request: Any, response: Any) -> None:
    """Answer as a server that speaks the envelope."""
    response.headers["Penstock"] = "v1"


@each_transport
async def test_a_farewell_that_was_lost_is_said_again(transport: Any) -> None:
    async with meeting(transport) as both:
        both.relay.pause_those_that_are_open()
        await both.client.send("last")
        closing = asyncio.create_task(both.client.close(1000, "why"))
        await steps(10)
        both.client._transport._latest.abort()
        assert await both.far.recv() == "last"
        with pytest.raises(ConnectionClosedOK):
            await both.far.recv()
        await closing
        assert (both.far.close_code, both.far.close_reason) == (1000, "why")


@each_transport
async def test_a_peer_that_asks_is_told_as_soon_as_the_message_is_taken(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_module, "ACK_DELAY", 60)
    async with meeting(transport) as both:
        await both.client.send("one")
        receipt = asyncio.create_task(both.client.delivered())
        await until(lambda: both.far._transport.session.incoming.want == 1)
        assert await both.far.recv() == "one"
        async with asyncio.timeout(5):
            await receipt


@each_transport
async def test_messages_that_are_discarded_are_taken(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking_module, "ACK_DELAY", 60)
    async with meeting(transport, close_timeout=5) as both:
        await both.client.send_many(numbers(10))
        closing = asyncio.create_task(both.client.close())
        await until(lambda: both.far.unread == 10 and both.far.state.name == "CLOSING")
        assert both.far.discard_unread() == 10
        async with asyncio.timeout(4):
            await closing
        await both.client.delivered()


@each_transport
async def test_half_a_message_is_not_sent_again_on_a_new_session(transport: Any) -> None:
    going_on = asyncio.Event()

    async def halves() -> AsyncIterator[str]:
        yield "one half"
        await going_on.wait()
        yield "the other"

    forgetful = {"sessions": SessionConfig(ttl=5, max_detached=0)}
    async with meeting(transport, server=forgetful, on_session_lost="resend") as both:
        sending = asyncio.create_task(both.client.send(halves()))
        await steps(5)
        both.relay.cut()
        with pytest.raises(SessionLost):
            await both.client.recv()
        going_on.set()
        with pytest.raises(SessionLost):
            await sending


@each_transport
async def test_a_socket_that_does_not_end_does_not_keep_its_session(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "GRACE", 0.05)
    async with meeting(transport, server={"close_timeout": None}) as both:
        both.relay.pause_those_that_are_open()
        both.far._transport._latest.fail(1011, "keepalive ping timeout")
        async with asyncio.timeout(2):
            await both.far._transport._latest.wait_closed()
        both.client._transport._latest.abort()
        await both.back()


@each_transport
async def test_a_flush_whose_socket_breaks_waits_for_the_next(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    written = asyncio.Event()
    async with meeting(transport) as both:
        monkeypatch.setattr(both.client._transport._attached, "drained", written.wait)
        await both.client.send("x")
        flushing = asyncio.create_task(both.client.flush())
        await steps(3)
        await both.away()
        written.set()
        await steps(5)
        assert not flushing.done()
        both.return_()
        await flushing
        assert await both.far.recv() == "x"


@each_transport
async def test_what_a_peer_asks_for_is_not_forgotten_when_it_is_told_of_less(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_module, "ACK_DELAY", 60)
    async with meeting(transport) as both:
        for message in ("one", "two"):
            await both.client.send(message)
            await both.client.flush()
        receipt = asyncio.create_task(both.client.delivered())
        await until(lambda: both.far._transport.session.incoming.want == 2)
        assert await both.far.recv() == "one"
        both.far._transport._taking.tell()
        assert await both.far.recv() == "two"
        async with asyncio.timeout(5):
            await receipt


@each_transport
async def test_delays_between_attempts_are_cut_to_the_time_that_the_server_waits(transport: Any) -> None:
    one_minute = lambda: itertools.repeat(60.0)  # noqa: E731
    server = {"sessions": SessionConfig(ttl=2), "open_timeout": 0.5}
    async with meeting(transport, server=server, reconnect_delays=one_minute) as both:
        await both.away()
        accepted = both.relay.accepted
        await until(lambda: both.relay.accepted > accepted)
        both.return_()
        await both.client.send("in time")
        assert await both.far.recv() == "in time"


@each_transport
@pytest.mark.parametrize("on_session_lost", ["raise", "resend"])
@pytest.mark.parametrize(("sid", "rx"), [(b"t" * 32, 0), (b"s" * 32, 1)], ids=["of another session", "of a later time"])
async def test_a_session_that_is_resumed_and_is_not_this_one_is_declined(
    transport: Any, on_session_lost: Any, sid: bytes, rx: int
) -> None:
    declined: list[Any] = []

    async def confused(ws: Any) -> None:
        hello = read(await ws.recv())
        assert isinstance(hello, Hello)
        status = RESUMED if hello.sid else NEW
        await ws.send(write(Welcome(sid if hello.sid else b"s" * 32, status, rx, 1, 2**20, 2**20, 0, 5000, 2**20, "")))
        if hello.sid:
            declined.append(read(await ws.recv()))
            await ws.wait_closed()
        else:
            ws.transport.abort()
            await ws.wait_closed()

    async with websockets.serve(confused, "127.0.0.1", 0, process_response=promise) as server:
        conn = await penstock.connect(
            url_of(server), transport=transport, reconnect_delays=soon, on_session_lost=on_session_lost, **QUICK
        )
        with pytest.raises(SessionLost):
            await conn.recv()
    assert [type(frame) for frame in declined] == [Bye]


@each_transport
@pytest.mark.parametrize("status", [RESUMED, UNKNOWN, ENDED])
async def test_a_new_session_that_is_answered_as_an_old_one_is_refused(transport: Any, status: int) -> None:
    closed: list[int | None] = []

    async def confused(ws: Any) -> None:
        await ws.recv()
        await ws.send(write(Welcome(b"s" * 32, status, 0, 1, 2**20, 2**20, 0, 5000, 2**20, "")))
        await ws.wait_closed()
        closed.append(ws.close_code)

    async with websockets.serve(confused, "127.0.0.1", 0, process_response=promise) as server:
        with pytest.raises(websockets.InvalidHandshake, match="a new session was asked for"):
            await penstock.connect(url_of(server), transport=transport, **QUICK)
        await until(lambda: closed)
    assert closed == [4900]


@each_transport
async def test_a_farewell_acknowledges_is_answered_at_once_and_waits_for_no_socket(transport: Any) -> None:
    ended = asyncio.Event()

    async def handler(conn: Any) -> None:
        await conn.send("taken")
        await conn.delivered()
        await conn.wait_closed()
        ended.set()

    options = {**QUICK, "close_timeout": 0.2}
    async with (
        asyncio.timeout(5),
        penstock.serve(handler, "127.0.0.1", 0, transport=transport, **options) as server,
        websockets.connect(url_of(server), additional_headers={"Penstock": "v1"}, close_timeout=0.2) as ws,
    ):
        await ws.send(write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20)))
        while not isinstance(read(await ws.recv()), Data):
            pass
        await ws.send(write(Bye(1000, "", 1)))
        while not isinstance(read(await ws.recv()), Bye):
            pass
        await ended.wait()  # though this end closes nothing
        ws.transport.abort()
