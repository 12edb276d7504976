"""What a peer, or a program that is careless, may do to a session; and what that costs."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets
from msgspec import Raw
from msgspec.structs import replace

import penstock
from penstock import BatchConfig
from penstock.connection import taking as taking_module
from penstock.connection.receipts import Receipts
from penstock.connection.resume import ClientSession
from penstock.errors import DeliveryUnknown, SessionLost
from penstock.transport.base import State
from penstock.transport.inbox import Part as Fragment
from penstock.wire import outgoing as outgoing_module
from penstock.wire.envelope import NEW, RESUMED, Ack, Bye, Data, Hello, Part, Welcome, pack, read, write
from support.ends import cancelled, steps
from support.servers import each_transport, url_of
from support.sessions import QUICK, meeting, soon, take, until

pytestmark = pytest.mark.timeout(30)

BIG = "x" * 100_000
WELCOME = Welcome(b"s" * 32, 0, 0, 1, 2**20, 2**20, 0, 5000, 2**20, "")


def promise(ws: Any, request: Any, response: Any) -> None:
    """Answer as a server that speaks the envelope."""
    response.headers["Penstock"] = "v1"


class Stuck:
    """A socket whose peer reads nothing, until it is told that it does."""

    def __init__(self, conn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._conn, self._patch = conn, monkeypatch
        inner = conn._transport._attached
        self.written: list[bytes] = []
        monkeypatch.setattr(type(inner), "blocked", True, raising=False)
        if "blocked" in vars(inner):
            monkeypatch.setattr(inner, "blocked", True)
        monkeypatch.setattr(inner, "write", self.written.append)

    def read(self) -> None:
        self._patch.undo()
        self._conn._transport.writable()


async def fill(conn: Any) -> list[str]:
    """Send until nothing more is accepted."""
    sent: list[str] = []
    try:
        while True:
            message = f"{len(sent):03d}{BIG}"
            async with asyncio.timeout(0.1):
                await conn.send(message)
            sent.append(message)
    except TimeoutError:
        return sent


@each_transport
async def test_parts_are_acknowledged_while_their_message_is_waited_for(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a message that is larger than the window comes by a window each 50 ms."""
    monkeypatch.setattr(taking_module, "ACK_DELAY", 60)
    async with (
        penstock.serve(lambda conn: conn.recv(), "127.0.0.1", 0, transport=transport, **QUICK) as server,
        websockets.connect(url_of(server), additional_headers={"Penstock": "v1"}, close_timeout=0.2) as client,
    ):
        await client.send(write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20)))
        await until(lambda: [conn for conn in server.connections if conn.reader.busy])
        for seq in range(1, 33):
            await client.send(write(Part(seq, 0, b"piece")))
        async with asyncio.timeout(5):
            while read(await client.recv()) != Ack(32, 0):
                pass
        client.transport.abort()


@each_transport
async def test_a_peer_that_does_not_read_makes_no_acknowledgements_gather(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(transport) as both:
        await both.client.send("once")
        assert await both.far.recv() == "once"
        stuck = Stuck(both.far, monkeypatch)
        for _ in range(1000):
            both.far._transport._receive(write(Data(1, Raw(pack(["once"])))))
        await asyncio.sleep(0.1)  # when acknowledgements come by themselves
        assert stuck.written == []
        stuck.read()
        await both.client.delivered()


@each_transport
async def test_what_an_acknowledgement_asks_for_is_asked_again_when_the_socket_takes_it(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(transport) as both:
        await both.far.send("down")
        assert await both.client.recv() == "down"
        receiving = asyncio.create_task(both.client.recv())
        await steps(3)
        await both.far.send("and out")
        await both.far.flush()
        stuck = Stuck(both.far, monkeypatch)
        receipt = asyncio.create_task(both.far.delivered())
        await steps(3)
        assert stuck.written == []
        stuck.read()
        assert await receiving == "and out"
        receiving = asyncio.create_task(both.client.recv())
        async with asyncio.timeout(0.04):  # sooner than acknowledgements come by themselves
            await receipt
        assert await cancelled(receiving)


@each_transport
async def test_a_frame_in_any_number_of_fragments_takes_no_more_memory_than_its_bytes(transport: Any) -> None:
    async with meeting(transport) as both:
        receive = both.far._transport._receive
        whole = write(Data(1, Raw(pack([BIG]))))
        tracemalloc.start()
        try:
            for _ in range(20_000):
                receive(Fragment(text=False, data=b"", fin=False))
            assert tracemalloc.get_traced_memory()[0] < 20_000
        finally:
            tracemalloc.stop()
        for index in range(len(whole)):
            receive(Fragment(text=False, data=whole[index : index + 1], fin=index + 1 == len(whole)))
        receive(Fragment(text=False, data=write(Data(2, Raw(pack(["next"])))), fin=True))
        assert await take(both.far, 2) == [BIG, "next"]


@each_transport
async def test_fragments_end_with_their_socket_and_have_a_limit(transport: Any) -> None:
    async with meeting(transport) as both:
        both.far._transport._receive(Fragment(text=False, data=b"\xc1", fin=False))
        await both.cut()
        await both.back()
        both.far._transport._receive(Fragment(text=False, data=write(Data(1, Raw(pack(["whole"])))), fin=True))
        assert await both.far.recv() == "whole"
        for _ in range(2):
            both.far._transport._receive(Fragment(text=False, data=bytes(2**19 + 1), fin=False))
        with pytest.raises(SessionLost):
            await both.far.recv()
        with pytest.raises(SessionLost, match="the peer closed with 4913"):
            await both.client.recv()
        assert both.client.close_code == 4913


@each_transport
async def test_asking_what_was_delivered_makes_no_room(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may ask after every message: still no more is kept than a replay may have."""
    monkeypatch.setattr(outgoing_module, "REPLAY_FRAMES", 10)
    async with meeting(transport, batch=BatchConfig(max_pending_messages=20), send_timeout=0.05) as both:
        await both.away()
        sent: list[str] = []
        receipts: list[asyncio.Task[None]] = []
        for number in range(30):
            await both.client.send(str(number))
            sent.append(str(number))
            receipts.append(asyncio.create_task(both.client.delivered()))
            await steps(2)
        with pytest.raises(TimeoutError):
            await both.client.send("one too many")
        assert both.client._transport.session.outgoing.tx == 10
        assert await cancelled(receipts.pop(20))
        both.return_()
        assert await take(both.far, 30) == sent
        receiving = asyncio.create_task(both.far.recv())
        await asyncio.gather(*receipts)
        assert await cancelled(receiving)


@each_transport
async def test_asking_what_was_delivered_ends_with_the_session(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing_module, "REPLAY_FRAMES", 1)
    async with meeting(transport) as both:
        await both.away()
        receipts = []
        for message in ("one", "two"):
            await both.client.send(message)
            receipts.append(asyncio.create_task(both.client.delivered()))
            await steps(2)
        both.client.abort()
        lost = await asyncio.gather(*receipts, return_exceptions=True)
        assert [type(exc) for exc in lost] == [SessionLost, SessionLost]
        assert list(lost[0].unacknowledged) == ["one", "two"]  # type: ignore[union-attr]


@each_transport
async def test_many_small_broadcasts_gather_for_a_client_that_is_away(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.away()
        for number in range(20_000):
            penstock.broadcast([both.far], str(number))
        both.return_()
        assert await take(both.client, 20_000) == [str(number) for number in range(20_000)]
        await both.away()
        for _ in range(70_000):
            penstock.broadcast([both.far], "")
        with pytest.raises(SessionLost, match="too far behind"):
            await both.far.recv()


async def test_what_many_wait_for_is_told_once() -> None:
    made: list[Exception] = []

    def make() -> Exception:
        made.append(ValueError(BIG))
        return made[-1]

    receipts = Receipts(asyncio.get_running_loop())
    receipts.fail(make)
    assert made == []
    waiting = [receipts.expect(1) for _ in range(1000)]
    waiting[0].cancel()
    receipts.fail(make)
    assert [receipt.exception() for receipt in waiting[1:]] == made * 999


@each_transport
@pytest.mark.parametrize("lead", [True, False], ids=["behind another", "first"])
async def test_text_of_a_class_of_its_own_is_text(transport: Any, lead: bool) -> None:
    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "something else"

    async with meeting(transport) as both:
        names = [Name("plain"), Name("größer"), Name("z" * 2**19)]
        if lead:
            await both.client.send("lead")
            assert await both.far.recv() == "lead"
            await both.client.send("lead")
        for name in names:
            await both.client.send(name)
        await both.client.send(names[1], text=False)
        received = await take(both.far, 4 + lead)
        assert received[lead:] == ["plain", "größer", "z" * 2**19, "größer".encode()]
        assert {type(message) for message in received} == {str, bytes}


@each_transport
async def test_a_ping_waits_for_the_socket_and_not_for_the_peers_application(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(transport, batch=BatchConfig(max_pending_bytes=200_000)) as both:
        sent = await fill(both.client)
        assert both.client.outbox.transport.blocked
        async with asyncio.timeout(2):
            await (await both.client.ping())
            await both.client.pong()
        stuck = Stuck(both.client, monkeypatch)
        ping = asyncio.create_task(both.client.ping())
        await steps(5)
        assert not ping.done()
        stuck.read()
        await (await ping)
        assert await take(both.far, len(sent)) == sent


@each_transport
async def test_fragments_that_nobody_takes_are_ended_by_send_timeout(transport: Any) -> None:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield BIG

    async with meeting(transport, send_timeout=0.1, server={"max_size": None}) as both:
        await both.client.send("not taken, and so nothing behind it")
        with pytest.raises(TimeoutError):
            await both.client.send(endless())
        assert both.client.state is not State.OPEN
        with pytest.raises(SessionLost):
            await both.client.send("more")


@each_transport
@pytest.mark.parametrize("answer", [b"\xc1", write(Ack(0, 0)), "text"], ids=["no frame", "no WELCOME", "text"])
async def test_a_bad_answer_to_a_client_that_comes_back_is_told_by_its_code(transport: Any, answer: Any) -> None:
    closed: list[int | None] = []

    async def evil(ws: Any) -> None:
        await ws.recv()
        if closed:
            await ws.send(answer)
            await ws.wait_closed()
        else:
            await ws.send(write(WELCOME))
            ws.transport.abort()
            await ws.wait_closed()
        closed.append(ws.close_code)

    async with websockets.serve(evil, "127.0.0.1", 0, process_response=promise) as server:
        conn = await penstock.connect(url_of(server), transport=transport, reconnect_delays=soon, **QUICK)
        with pytest.raises(SessionLost, match="refused to go on"):
            await conn.recv()
        await until(lambda: len(closed) == 2)
    assert closed == [1006, 4900]


@each_transport
async def test_a_socket_that_is_gone_right_behind_the_welcome_is_a_break_like_any_other(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    greet = ClientSession._greet

    async def greet_and_linger(self: ClientSession, inner: Any, session: Any) -> Welcome:
        welcome = await greet(self, inner, session)
        if welcome.status == NEW:
            await inner.wait_closed()  # as in a loop that has much to do
        return welcome

    async def hang_up(ws: Any) -> None:
        hello = read(await ws.recv())
        assert isinstance(hello, Hello)
        if hello.sid:
            await ws.send(write(replace(WELCOME, status=RESUMED)))
            await ws.send(write(Data(1, Raw(pack(["still here"])))))
            await ws.wait_closed()
        else:
            await ws.send(write(WELCOME))
            await ws.close()

    monkeypatch.setattr(ClientSession, "_greet", greet_and_linger)
    async with websockets.serve(hang_up, "127.0.0.1", 0, process_response=promise) as server:
        conn = await penstock.connect(url_of(server), transport=transport, reconnect_delays=soon, **QUICK)
        assert await conn.recv() == "still here"
        conn.abort()
        await conn.wait_closed()


@each_transport
async def test_a_socket_that_is_still_closing_when_another_takes_over_takes_nothing_with_it(transport: Any) -> None:
    async with meeting(transport) as both:
        both.relay.pause_those_that_are_open()
        old = both.far._transport._latest
        old.fail(1011, "keepalive ping timeout")
        both.client._transport._latest.abort()
        await both.back()
        assert both.far._transport._latest is not old
        await old.wait_closed()
        assert not both.far.is_detached
        await both.client.send("up")
        assert await both.far.recv() == "up"
        assert both.resumed == 1


@asynccontextmanager
async def speaking(server: Any) -> AsyncIterator[Any]:
    """A client that speaks frame by frame, and has been welcomed."""
    async with websockets.connect(url_of(server), additional_headers={"Penstock": "v1"}, close_timeout=0.2) as ws:
        await ws.send(write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20)))
        assert isinstance(read(await ws.recv()), Welcome)
        yield ws


@each_transport
async def test_nothing_is_written_to_a_peer_that_takes_no_more(transport: Any) -> None:
    unknown: list[Any] = []

    async def handler(conn: Any) -> None:
        await conn.send("written")
        await conn.send("gathered")
        conn._transport._receive(write(Bye(1000, "", 0)))
        with pytest.raises(DeliveryUnknown) as caught:
            await conn.delivered()
        unknown.extend(caught.value.unacknowledged)

    async with penstock.serve(handler, "127.0.0.1", 0, transport=transport, **QUICK) as server:
        async with speaking(server) as ws:
            frames = [read(await ws.recv())]
            while not isinstance(frames[-1], Bye):
                frames.append(read(await ws.recv()))
            ws.transport.abort()
        assert [frame.seq for frame in frames if isinstance(frame, Data)] == [1]
        assert unknown == ["written", "gathered"]


@each_transport
async def test_a_farewell_that_acknowledges_what_was_never_sent_is_no_orderly_end(transport: Any) -> None:
    ends: list[BaseException] = []

    async def handler(conn: Any) -> None:
        with pytest.raises(SessionLost) as caught:
            await conn.recv()
        ends.append(caught.value)

    async with (
        penstock.serve(handler, "127.0.0.1", 0, transport=transport, **QUICK) as server,
        speaking(server) as ws,
    ):
        await ws.send(write(Bye(1000, "", 1)))
        await ws.wait_closed()
        assert ws.close_code == 4900
        await until(lambda: ends)


@each_transport
async def test_a_lone_message_that_fills_the_window_holds_up_the_next(transport: Any) -> None:
    async def narrow(ws: Any) -> None:
        await ws.recv()
        await ws.send(write(replace(WELCOME, window=1)))
        await ws.wait_closed()

    async with websockets.serve(narrow, "127.0.0.1", 0, process_response=promise) as server:
        conn = await penstock.connect(url_of(server), transport=transport, **QUICK)
        await conn.send("one")
        assert conn.outbox.transport.blocked
        conn.abort()
        await conn.wait_closed()
