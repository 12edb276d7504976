"""What a server keeps of sessions, and for whom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import msgspec
import pytest
import websockets

import penstock
from penstock.connection.reliable import ReliableConnection
from penstock.errors import SessionLost
from penstock.server import sessions as module
from penstock.server.sessions import SessionConfig
from penstock.transport.base import ConnectionClosed, ConnectionClosedOK
from penstock.wire.envelope import ENDED, LOST, NEW, RESUMED, UNKNOWN, Ack, Bye, Data, Hello, Welcome, pack, read, write
from support.servers import each_transport, url_of
from support.sessions import QUICK, meeting, take, until

pytestmark = pytest.mark.timeout(30)

OFFER = {"Penstock": "v1"}


def hello(sid: bytes = b"", rx: int = 0, first: int = 1) -> bytes:
    return write(Hello(sid, rx, first, 2**20, 2**20, 0, 2**20))


def data(seq: int, *messages: str) -> bytes:
    return write(Data(seq, msgspec.Raw(pack(list(messages)))))


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


class Ending:
    """A handler that receives, and remembers how that ended."""

    def __init__(self) -> None:
        self.runs = 0
        self.received: list[Any] = []
        self.ends: list[ConnectionClosed] = []

    async def __call__(self, conn: Any) -> None:
        self.runs += 1
        try:
            while True:
                self.received.append(await conn.recv())
        except ConnectionClosed as exc:
            self.ends.append(exc)


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
    handler = Ending()
    async with serve(handler, transport=transport) as server:
        async with raw(server) as client:
            sid = (await client.greet()).sid
        async with raw(server) as client:
            welcome = await client.greet(sid, rx=0, first=7)
            assert welcome.status == 3
            assert welcome.sid != sid
            await until(lambda: handler.ends)
            assert isinstance(handler.ends[0], SessionLost)
            await client.ws.send(write(Ack(0, 0)))
            await until(lambda: len(server._sessions._known) == 1)
            assert handler.runs == 2


# Two sockets for one session


@each_transport
async def test_the_later_of_two_that_ask_for_a_session_has_it_whoever_is_recognised_first(transport: Any) -> None:
    slow = asyncio.Event()
    calls: list[Any] = []

    async def recognise(conn: Any) -> str:
        calls.append(conn)
        if len(calls) == 2:
            await slow.wait()
        return "ann"

    handler = Ending()
    async with serve(handler, transport=transport, principal=recognise) as server:
        async with raw(server) as client:
            sid = (await client.greet()).sid
            client.ws.transport.abort()
        async with raw(server) as early, raw(server) as late:
            await early.ws.send(hello(sid))
            await until(lambda: len(calls) == 2)
            assert (await late.greet(sid)).status == RESUMED
            slow.set()
            with pytest.raises(ConnectionClosed):
                await early.ws.recv()
            assert early.ws.close_code == 4909
            await late.ws.send(data(1, "still here"))
            await until(lambda: handler.received == ["still here"])
    assert handler.runs == 1


@each_transport
async def test_of_many_that_resume_a_session_at_once_one_has_it(transport: Any) -> None:
    handler = Ending()
    async with serve(handler, transport=transport) as server, contextlib.AsyncExitStack() as stack:
        async with raw(server) as client:
            sid = (await client.greet()).sid
        clients = [await stack.enter_async_context(raw(server)) for _ in range(20)]
        welcomes = await asyncio.gather(*(client.greet(sid) for client in clients))
        assert {(welcome.status, welcome.sid) for welcome in welcomes} == {(RESUMED, sid)}
        await until(lambda: sum(client.ws.close_code == 4909 for client in clients) == 19)
        assert handler.runs == 1
        assert not server._sessions._detached


# Sessions that were not asked for


@each_transport
@pytest.mark.parametrize("answer", [write(Bye(1000, "", 0)), b"\xc1", "text", None])
async def test_a_session_that_the_client_declines_has_no_handler(transport: Any, answer: Any) -> None:
    handler = Ending()
    async with serve(handler, transport=transport) as server:
        async with raw(server) as client:
            assert (await client.greet(b"x" * 32)).status == UNKNOWN
            if answer is None:
                client.ws.transport.abort()
            else:
                await client.ws.send(answer)
            with pytest.raises(ConnectionClosed):
                await client.next(Data)
            assert client.ws.close_code == {None: 1006, b"\xc1": 4900, "text": 4900}.get(answer, 1000)
        await until(lambda: not server._handlers)
        assert not server._sessions._known
    assert handler.runs == 0


@each_transport
async def test_a_client_that_declines_is_told_bye(transport: Any) -> None:
    async with serve(transport=transport) as server, raw(server) as client:
        await client.greet(b"x" * 32)
        await client.ws.send(write(Bye(1000, "", 0)))
        assert await client.next(Bye) == Bye(1000, "", 0)


@each_transport
@pytest.mark.parametrize("answer", [write(Bye(1000, "", 0)), data(1, "last words")])
async def test_a_client_that_answers_and_closes_in_one_breath_is_no_failure(
    transport: Any, answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Ending()
    async with serve(handler, transport=transport) as server:
        async with raw(server) as client:
            await client.greet(b"x" * 32)
            client.ws.protocol.send_binary(answer)
            client.ws.protocol.send_close(1000)
            client.ws.send_data()
            await client.ws.wait_closed()
        await until(lambda: not server._negotiating)
    assert "failed" not in caplog.text


@each_transport
async def test_with_what_a_client_answers_its_new_session_begins(transport: Any) -> None:
    handler = Ending()
    async with serve(handler, transport=transport) as server, raw(server) as client:
        await client.greet(b"x" * 32)
        await client.ws.send(data(1, "first"))
        await client.ws.send(data(2, "second"))
        await until(lambda: handler.received == ["first", "second"])
        assert handler.runs == 1


@each_transport
async def test_a_client_that_says_nothing_about_its_new_session_is_served_after_a_while(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWER_TIMEOUT", 0.05)

    async def greet(conn: Any) -> None:
        await conn.send("greetings")
        await conn.wait_closed()

    async with serve(greet, transport=transport) as server, raw(server) as client:
        await client.greet(b"x" * 32)
        assert b"greetings" in bytes((await client.next(Data)).messages)


@each_transport
async def test_a_server_closes_at_once_though_a_client_has_not_said_whether_it_declines(transport: Any) -> None:
    handler = Ending()
    async with serve(handler, transport=transport) as server, raw(server) as client:
        await client.greet(b"x" * 32)
        server.close()
        async with asyncio.timeout(1):
            await server.wait_closed()
        assert client.ws.close_code == 1001
    assert handler.runs == 0


@each_transport
@pytest.mark.parametrize("on_lost", ["raise", "resend"])
async def test_a_client_whose_session_is_forgotten_has_another_handler_only_if_it_wants_one(
    transport: Any, on_lost: Any
) -> None:
    runs: list[Any] = []

    async def greet(conn: Any) -> None:
        runs.append(conn)
        await conn.send(f"greetings {len(runs)}")
        await conn.wait_closed()

    async with meeting(transport, handler=greet, on_session_lost=on_lost) as both:
        assert await both.client.recv() == "greetings 1"
        await both.away()
        [kept] = both.sessions._known.values()
        kept.transport.give_up("a test")
        both.return_()
        if on_lost == "raise":
            with pytest.raises(SessionLost):
                await both.client.recv()
            await until(lambda: len(both.server._handlers) == 0)
            assert len(runs) == 1
        else:
            async with asyncio.timeout(1):
                assert await both.client.recv() == "greetings 2"


@each_transport
async def test_a_gap_closes_the_old_socket_too(transport: Any) -> None:
    handler = Ending()
    async with serve(handler, transport=transport) as server, raw(server) as old, raw(server) as new:
        sid = (await old.greet()).sid
        assert (await new.greet(sid, rx=0, first=7)).status == LOST
        await old.ws.wait_closed()
        assert old.ws.close_code == 4909
        await until(lambda: handler.ends)
        assert isinstance(handler.ends[0], SessionLost)


@each_transport
async def test_a_session_that_was_given_up_is_not_resumed_though_its_socket_is_not_closed_yet(transport: Any) -> None:
    handler = Ending()
    async with serve(handler, transport=transport) as server, raw(server) as old, raw(server) as new:
        sid = (await old.greet()).sid
        old.ws.transport.pause_reading()
        await until(lambda: server._sessions._known)
        [kept] = server._sessions._known.values()
        kept.transport.fail(1013, "a test")
        assert (await new.greet(sid)).status == LOST
        old.ws.transport.resume_reading()


@each_transport
async def test_a_session_that_was_resumed_does_not_expire(transport: Any) -> None:
    handler = Ending()
    config = SessionConfig(ttl=0.2)
    async with serve(handler, transport=transport, sessions=config, open_timeout=0.1) as server:
        async with raw(server) as client:
            sid = (await client.greet()).sid
        await until(lambda: server._sessions._detached)
        async with raw(server) as client:
            assert (await client.greet(sid)).status == RESUMED
            await asyncio.sleep(0.25)
            await client.ws.send(data(1, "still here"))
            await until(lambda: handler.received == ["still here"])


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
async def test_how_a_session_ended_is_told_to_nobody_else(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        await conn.close()

    auth = websockets.basic_auth(realm="here", credentials=[("ann", "a"), ("bob", "b")])
    async with serve(handler, transport=transport, process_request=auth) as server:
        async with raw(server, "ann:a@") as ann:
            sid = (await ann.greet()).sid
            await ann.next(Bye)
        await until(lambda: not server._sessions._known)
        for user, status in (("bob:b@", UNKNOWN), ("ann:a@", ENDED)):
            async with raw(server, user) as client:
                assert (await client.greet(sid)).status == status


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
    handler = Ending()
    config = SessionConfig(ttl=5, max_detached=2)
    async with serve(handler, transport=transport, sessions=config) as server:
        sids = []
        for number in range(3):
            async with raw(server) as client:
                sids.append((await client.greet()).sid)
                await until(lambda: server._sessions._known)
                client.ws.transport.abort()
            await until(lambda number=number: len(server._sessions._detached) == min(number + 1, 2))
        await until(lambda: handler.ends)
        assert "too many" in str(handler.ends[0])
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
    handler = Ending()
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
            assert {type(exc) for exc in handler.ends} == {SessionLost, ConnectionClosedOK}
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
