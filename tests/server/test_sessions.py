"""What a server keeps of sessions, and for whom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
import websockets

import penstock
from penstock.connection.reliable import ReliableConnection
from penstock.errors import SessionLost
from penstock.server import sessions as module
from penstock.server.sessions import SessionConfig
from penstock.transport.base import ConnectionClosed, ConnectionClosedOK
from penstock.wire.envelope import ENDED, NEW, RESUMED, UNKNOWN, Ack, Bye, Data, Hello, Welcome, read, write
from support.servers import each_transport, url_of
from support.sessions import QUICK, meeting, take, until

pytestmark = pytest.mark.timeout(30)

OFFER = {"Penstock": "v1"}


def hello(sid: bytes = b"", rx: int = 0, first: int = 1) -> bytes:
    return write(Hello(sid, rx, first, 2**20, 2**20, 0, 2**20))


class Raw:
    """A client that speaks the envelope frame by frame."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws

    async def greet(self, sid: bytes = b"", rx: int = 0, first: int = 1) -> Welcome:
        await self.ws.send(hello(sid, rx, first))
        welcome = read(await self.ws.recv())
        assert isinstance(welcome, Welcome)
        return welcome

    async def next(self, kind: type) -> Any:
        while not isinstance(frame := read(await self.ws.recv()), kind):
            pass
        return frame


@contextlib.asynccontextmanager
async def raw(server: Any, user: str = "") -> Any:
    async with websockets.connect(
        url_of(server, user=user), additional_headers=OFFER, close_timeout=0.2, ping_interval=None
    ) as ws:
        yield Raw(ws)


def serve(handler: Any = None, **options: Any) -> Any:
    async def wait(conn: Any) -> None:
        await conn.wait_closed()

    return penstock.serve(handler or wait, "127.0.0.1", 0, **{**QUICK, "sessions": SessionConfig(ttl=5), **options})


async def test_out_of_bounds_is_refused_with_its_name() -> None:
    for bad in ({"ttl": 0}, {"ttl": -1}, {"max_detached": -1}, {"max_detached_bytes": 1.5}, {"node": "a;b"}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            SessionConfig(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ping_interval"):
        penstock.serve(print, "127.0.0.1", 0, sessions=SessionConfig(ttl=49))  # type: ignore[arg-type]
    penstock.serve(print, "127.0.0.1", 0, sessions=SessionConfig(ttl=50))  # type: ignore[arg-type]


# Who may resume


@each_transport
async def test_a_session_is_resumed_only_by_who_began_it(transport: Any) -> None:
    auth = websockets.basic_auth(realm="here", credentials=[("ann", "a"), ("bob", "b")])
    async with serve(transport=transport, process_request=auth) as server:
        async with raw(server, "ann:a@") as ann:
            welcome = await ann.greet()
            assert welcome.status == NEW
            assert len(welcome.sid) == 32
            async with raw(server, "bob:b@") as bob:
                other = await bob.greet(welcome.sid)
                assert other.status == UNKNOWN
                assert other.sid != welcome.sid
            await ann.ws.send(write(Ack(0, 0)))  # undisturbed
            assert len(server.connections) >= 1
        async with raw(server, "ann:a@") as ann:
            assert (await ann.greet(welcome.sid)).status == RESUMED


@each_transport
async def test_a_secret_that_is_nearly_right_is_wrong(transport: Any) -> None:
    async with serve(transport=transport) as server, raw(server) as client:
        sid = (await client.greet()).sid
        for wrong in (sid[:-1], sid + b"\0", bytes([sid[0] ^ 1]) + sid[1:], b"x" * 32):
            async with raw(server) as other:
                assert (await other.greet(wrong)).status == UNKNOWN


@each_transport
async def test_the_secret_is_in_no_log(transport: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with meeting(transport) as both:
        [kept] = both.sessions._known.values()
        await both.client.send("x")
        await both.cut()
        await both.back()
        assert await both.far.recv() == "x"
        sid = kept.sid
    for form in (sid.hex(), sid.hex(" "), repr(sid)[2:-1], sid.hex().upper()):
        for start in range(0, len(form) - 44, 11):
            assert form[start : start + 44] not in caplog.text, "a third of it would be enough"


@each_transport
async def test_a_session_that_was_taken_over_closes_the_old_socket_with_4909(transport: Any) -> None:
    async with serve(transport=transport) as server, raw(server) as old:
        sid = (await old.greet()).sid
        async with raw(server) as new:
            assert (await new.greet(sid)).status == RESUMED
            await old.ws.wait_closed()
            assert old.ws.close_code == 4909
            [conn] = server.connections
            await conn.send("to the new one")
            assert b"to the new one" in bytes((await new.next(Data)).messages)


async def test_a_client_whose_session_was_taken_over_does_not_come_back() -> None:
    async with meeting() as both:
        [kept] = both.sessions._known.values()
        async with raw(both.server) as thief:
            assert (await thief.greet(kept.sid)).status == RESUMED
            with pytest.raises(SessionLost) as lost:
                await both.client.recv()
            assert lost.value.rcvd is not None
            assert lost.value.rcvd.code == 4909
            assert both.relay.accepted == 1


@each_transport
async def test_a_gap_ends_the_old_session_at_once_and_begins_another(transport: Any) -> None:
    ends: list[Any] = []

    async def handler(conn: Any) -> None:
        try:
            await conn.recv()
        except ConnectionClosed as exc:
            ends.append(exc)

    async with serve(handler, transport=transport) as server:
        async with raw(server) as client:
            sid = (await client.greet()).sid
        async with raw(server) as client:
            welcome = await client.greet(sid, rx=0, first=7)
            assert welcome.status == 3
            assert welcome.sid != sid
            await until(lambda: ends)
            assert isinstance(ends[0], SessionLost)
            assert len(server._sessions._known) == 1


# Sessions that have ended


@each_transport
async def test_a_session_that_was_closed_in_order_is_told_so_and_has_no_new_handler(transport: Any) -> None:
    runs: list[Any] = []

    async def handler(conn: Any) -> None:
        runs.append(conn)

    async with serve(handler, transport=transport) as server:
        async with raw(server) as client:
            sid = (await client.greet()).sid
            assert (await client.next(Bye)).code == 1000
        await until(lambda: not server._sessions._known)
        async with raw(server) as client:
            assert (await client.greet(sid)).status == ENDED
            with pytest.raises(ConnectionClosedOK):
                await client.ws.recv()
    assert len(runs) == 1


@each_transport
async def test_a_client_that_missed_the_orderly_end_learns_of_it(transport: Any) -> None:
    async with meeting(transport, server={"close_timeout": 0.1}) as both:
        await both.away()
        both.over.set()
        await until(lambda: not both.sessions._known)
        both.return_()
        with pytest.raises(ConnectionClosedOK):
            await both.client.recv()
        assert both.client.close_code == 1000


@each_transport
async def test_a_session_that_a_protocol_error_destroyed_is_not_said_to_have_ended_in_order(transport: Any) -> None:
    async with serve(transport=transport) as server:
        async with raw(server) as client:
            sid = (await client.greet()).sid
            await client.ws.send(b"\xc1 nonsense")
            with pytest.raises(ConnectionClosed):
                await client.next(Bye)
            assert client.ws.close_code == 4900
        async with raw(server) as client:
            assert (await client.greet(sid)).status == UNKNOWN


async def test_what_is_remembered_of_ended_sessions_is_bounded_in_number_and_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_ENDED", 10)
    async with serve(sessions=SessionConfig(ttl=0.3), open_timeout=0.2) as server:
        for _ in range(25):
            async with penstock.connect(url_of(server)) as conn:
                assert conn.is_reliable
        await until(lambda: not server._sessions._known)
        assert len(server._sessions._ended) <= 10
        await asyncio.sleep(0.35)
        async with penstock.connect(url_of(server)):
            pass
        await until(lambda: not server._sessions._known)
        assert len(server._sessions._ended) == 1


@each_transport
async def test_bye_that_nobody_could_close_with_is_refused(transport: Any) -> None:
    for code, reason in ((1005, ""), (0, ""), (5000, ""), (1000, "x" * 124)):
        async with serve(transport=transport) as server, raw(server) as client:
            await client.greet()
            await client.ws.send(write(Bye(code, reason, 0)))
            with pytest.raises(ConnectionClosed):
                await client.next(Bye)
            assert client.ws.close_code == 4900
            await until(lambda server=server: not server._sessions._known)


# Bounds


@each_transport
async def test_of_too_many_detached_sessions_the_first_is_lost(transport: Any) -> None:
    ends: list[Any] = []

    async def handler(conn: Any) -> None:
        try:
            await conn.recv()
        except ConnectionClosed as exc:
            ends.append(exc)

    config = SessionConfig(ttl=5, max_detached=2)
    async with serve(handler, transport=transport, sessions=config) as server:
        sids = []
        for number in range(3):
            async with raw(server) as client:
                sids.append((await client.greet()).sid)
                await until(lambda: server._sessions._known)
                client.ws.transport.abort()
            await until(lambda number=number: len(server._sessions._detached) == min(number + 1, 2))
        await until(lambda: ends)
        assert "too many" in str(ends[0])
        for sid, status in zip(reversed(sids), (RESUMED, RESUMED, UNKNOWN), strict=True):
            async with raw(server) as client:
                assert (await client.greet(sid)).status == status


async def test_of_detached_sessions_that_keep_too_much_the_first_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_INTERVAL", 0.05)
    lost: list[Any] = []

    async def handler(conn: Any) -> None:
        try:
            while True:
                await conn.send("x" * 1000)
                await asyncio.sleep(0.001)
        except SessionLost as exc:
            lost.append((conn, str(exc)))

    async with serve(handler, sessions=SessionConfig(ttl=5, max_detached_bytes=50_000)) as server:
        order = []
        for _ in range(2):
            async with raw(server) as client:
                await client.greet()
                await until(lambda: len(server.connections) > len(order))  # noqa: B023
                order += [conn for conn in server.connections if conn not in order]
                client.ws.transport.abort()
        await until(lambda: lost)
        assert lost[0][0] is order[0]
        assert "too many" in lost[0][1]


@each_transport
async def test_a_session_expires_at_the_server(transport: Any) -> None:
    async with meeting(transport, server={"sessions": SessionConfig(ttl=0.2), "open_timeout": 0.1}) as both:
        loop = asyncio.get_running_loop()
        await both.away()
        began = loop.time()
        with pytest.raises(SessionLost, match="did not come back in time"):
            await both.far.recv()
        assert 0.1 < loop.time() - began < 1
        with pytest.raises(SessionLost, match=r"within 0\.2 s"):
            await both.client.recv()
        assert not both.sessions._known


# The server's end


@each_transport
async def test_closing_ends_attached_and_detached_sessions_promptly(transport: Any) -> None:
    ends: list[Any] = []

    async def handler(conn: Any) -> None:
        try:
            await conn.recv()
        except ConnectionClosed as exc:
            ends.append(exc)

    async with serve(handler, transport=transport) as server:
        async with raw(server) as gone, penstock.connect(url_of(server), transport=transport, **QUICK) as here:
            await gone.greet()
            await until(lambda: len(server.connections) == 2)
            gone.ws.transport.abort()
            await until(lambda: server._sessions._detached)
            began = asyncio.get_running_loop().time()
            server.close()
            await server.wait_closed()
            assert asyncio.get_running_loop().time() - began < 1
            assert {type(exc) for exc in ends} == {SessionLost, ConnectionClosedOK}
            with pytest.raises(ConnectionClosedOK):
                await here.recv()
            assert here.close_code == 1001
        assert not server._sessions._known
        assert server._sessions._sweep is None


@each_transport
async def test_a_handler_may_return_while_there_is_no_socket(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        await conn.recv()
        await until(lambda: conn.is_detached)
        await conn.send_many(["last", "words"])

    async with meeting(transport, handler=handler) as both:
        await both.client.send("go")
        await until(lambda: both.sessions._known)
        await asyncio.sleep(0.02)
        await both.away()
        await asyncio.sleep(0.1)
        both.return_()
        assert [message async for message in both.client] == ["last", "words"]
        assert both.client.close_code == 1000


# Broadcasts


@each_transport
async def test_a_broadcast_reaches_sessions_with_and_without_a_socket(transport: Any) -> None:
    async with meeting(transport) as both:
        penstock.broadcast(both.server.connections, "attached")
        assert await both.client.recv() == "attached"
        await both.away()
        penstock.broadcast(both.server.connections, b"detached")
        both.return_()
        assert await both.client.recv() == b"detached"


@each_transport
async def test_a_session_too_far_behind_for_a_broadcast_ends_and_the_others_do_not(transport: Any) -> None:
    async with meeting(transport) as both, penstock.connect(both.relay.url, transport=transport, **QUICK) as other:
        await until(lambda: len(both.handled) == 2)
        behind, well = both.handled
        received = asyncio.create_task(take(other, 400))
        for number in range(400):
            penstock.broadcast(both.server.connections, f"{number}".ljust(20_000))
            await asyncio.sleep(0.001)
        with pytest.raises(SessionLost, match="too far behind"):
            await behind.recv()
        assert [int(message) for message in await received] == list(range(400))
        assert isinstance(well, ReliableConnection)
        assert well.state.name == "OPEN"
        while both.client.unread:
            await both.client.recv()
        await both.client.wait_closed()
        assert both.client.close_code == 1013
