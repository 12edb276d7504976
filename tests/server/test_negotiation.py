"""Whether two ends speak the envelope: never to the harm of those that do not."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
import websockets

import penstock
from penstock.errors import EnvelopeRefused
from penstock.server import negotiation
from penstock.transport.base import ConcurrencyError, ConnectionClosed, ConnectionClosedError, InvalidHandshake
from penstock.wire.envelope import Hello, Welcome, read, write
from support.peers import http, peer, saying, switching
from support.relay import relaying
from support.servers import SERVERS, each_transport, echo, port_of, serving, url_of
from support.sessions import QUICK, until

pytestmark = pytest.mark.timeout(20)

HELLO = write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20))
OFFER = {"Penstock": "v1"}


def without_header(answer: bytes) -> bytes:
    return re.sub(rb"(?im)^penstock: [^\r\n]*\r\n", b"", answer)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is short."""
    monkeypatch.setattr(negotiation, "HELLO_TIMEOUT", 0.1)


def penstock_serving(handler: Any = echo, **options: Any) -> Any:
    return penstock.serve(handler, "127.0.0.1", 0, **options)


@each_transport
@pytest.mark.parametrize("kind", SERVERS)
async def test_any_client_talks_to_any_server(transport: Any, kind: str) -> None:
    async with serving(kind) as server:
        async with penstock.connect(url_of(server), transport=transport) as conn:
            assert conn.is_reliable is (kind != "websockets")
            await conn.send("text")
            await conn.send(b"binary")
            assert [await conn.recv(), await conn.recv()] == ["text", b"binary"]
        async with websockets.connect(url_of(server)) as plain:
            await plain.send("text")
            assert await plain.recv() == "text"


@each_transport
async def test_a_server_that_does_not_know_the_envelope_is_spoken_to_plainly_or_refused(transport: Any) -> None:
    async with serving("websockets") as server:
        with pytest.raises(EnvelopeRefused):
            await penstock.connect(url_of(server), transport=transport, reliable=True)
        conn = await penstock.connect(url_of(server), transport=transport)
        assert not conn.is_reliable
        assert not conn.is_detached
        with pytest.raises(EnvelopeRefused):
            await conn.delivered()
        await conn.close()


@each_transport
@pytest.mark.parametrize(("options", "offered"), [({}, True), ({"reliable": False}, False), ({"max_size": 100}, False)])
async def test_what_is_offered(transport: Any, options: dict[str, Any], offered: bool) -> None:
    async with peer(saying(switching())) as server:
        conn = await penstock.connect(server.url, transport=transport, close_timeout=0.05, **options)
        assert bool(server.headers("Penstock")) is offered
        await conn.close()
    with pytest.raises(ValueError, match="max_size=100"):
        penstock.connect(server.url, reliable=True, max_size=100)


@each_transport
async def test_a_server_that_does_not_want_it_does_not_answer(transport: Any) -> None:
    async with (
        penstock_serving(reliable=False, transport=transport) as server,
        penstock.connect(url_of(server)) as conn,
    ):
        assert not conn.is_reliable
        assert "Penstock" not in conn.response.headers


@each_transport
async def test_the_offer_survives_redirects(transport: Any) -> None:
    async with (
        penstock_serving(transport=transport) as server,
        peer(saying(http("302 Found", f"Location: {url_of(server)}"))) as first,
        penstock.connect(first.url, transport=transport) as conn,
    ):
        assert conn.is_reliable
        await conn.send("x")
        assert await conn.recv() == "x"


# An answer that did not arrive


@each_transport
async def test_a_relay_that_drops_the_answer_loses_no_message(transport: Any) -> None:
    async with (
        penstock_serving(transport=transport) as server,
        relaying(port_of(server), without_header) as relay,
        penstock.connect(relay.url, transport=transport) as conn,
    ):
        assert not conn.is_reliable
        for message in ("one", b"two", "", b""):
            await conn.send(message)
            assert await conn.recv() == message


@each_transport
async def test_a_client_that_says_nothing_is_spoken_to_plainly_after_a_while(transport: Any, hasty: None) -> None:
    async def handler(conn: Any) -> None:
        assert not conn.is_reliable
        await conn.send("greetings")
        await echo(conn)

    async with (
        penstock_serving(handler, transport=transport) as server,
        relaying(port_of(server), without_header) as relay,
        penstock.connect(relay.url) as conn,
    ):
        assert await conn.recv() == "greetings"
        await conn.send("hello")
        assert await conn.recv() == "hello"


async def _recv(conn: Any) -> None:
    await conn.recv()


async def _recv_many(conn: Any) -> None:
    await conn.recv_many()


async def _iterate(conn: Any) -> None:
    async for _ in conn:
        raise AssertionError


async def _stream(conn: Any) -> None:
    async for _ in conn.recv_streaming():
        raise AssertionError


async def _only_send(conn: Any) -> None:
    while True:
        await conn.send("tick")
        await asyncio.sleep(0.001)


@each_transport
@pytest.mark.parametrize("receive", [_recv, _recv_many, _iterate, _stream, _only_send])
async def test_hello_that_comes_after_silence_is_refused(
    transport: Any, hasty: None, receive: Callable[[Any], Any]
) -> None:
    seen: list[Any] = []

    async def handler(conn: Any) -> None:
        with pytest.raises(ConnectionClosedError) as closed:
            await receive(conn)
        seen.append(closed.value.sent)

    async with penstock_serving(handler, transport=transport) as server:
        async with websockets.connect(url_of(server), additional_headers=OFFER) as plain:
            await asyncio.sleep(0.2)
            await plain.send(HELLO)
            assert [message async for message in _until_closed(plain) if message != "tick"] == []
            assert plain.close_code == 4900
        await until(lambda: seen)
    assert seen[0].code == 4900


async def _until_closed(conn: Any) -> Any:
    with contextlib.suppress(ConnectionClosedError):
        async for message in conn:
            yield message


async def _as_list(pieces: Any) -> list[Any]:
    return [piece async for piece in pieces]


@each_transport
async def test_what_comes_after_silence_and_is_no_hello_is_received_in_every_way(transport: Any, hasty: None) -> None:
    ways: list[Callable[[Any], Any]] = [
        lambda conn: conn.recv(),
        lambda conn: conn.recv(decode=False),
        lambda conn: conn.recv_many(),
        lambda conn: anext(conn.__aiter__()),
        lambda conn: _as_list(conn.recv_streaming()),
    ]
    seen: list[Any] = []

    async def handler(conn: Any) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await way(conn)  # cancelling takes nothing
        await conn.send("ready")
        seen.append(await way(conn))
        await conn.send("and then?")
        seen.append(await conn.recv())

    for way in ways:  # noqa: B007 - the handler takes it
        async with (
            penstock_serving(handler, transport=transport) as server,
            websockets.connect(url_of(server), additional_headers=OFFER) as plain,
        ):
            assert await plain.recv() == "ready"
            await plain.send("first")
            assert await plain.recv() == "and then?"
            await plain.send(HELLO)
            await plain.wait_closed()
    assert seen[::2] == ["first", b"first", ["first"], "first", ["first"]]
    assert set(seen[1::2]) == {HELLO}, "the application's own, then"


@each_transport
async def test_two_cannot_receive_at_once_after_silence(transport: Any, hasty: None) -> None:
    seen: list[Any] = []

    async def handler(conn: Any) -> None:
        first = asyncio.create_task(conn.recv())
        await asyncio.sleep(0)
        with pytest.raises(ConcurrencyError):
            await conn.recv()
        await conn.send("ready")
        seen.append(await first)

    async with (
        penstock_serving(handler, transport=transport) as server,
        websockets.connect(url_of(server), additional_headers=OFFER) as plain,
    ):
        assert await plain.recv() == "ready"
        await plain.send("first")
        await plain.wait_closed()
    assert seen == ["first"]


@each_transport
async def test_what_comes_first_may_be_anything_at_all(transport: Any) -> None:
    for message in ("text", b"", b"\x90", b"\xff" * 100, write(Welcome(b"", 0, 0, 1, 4096, 1, 0, 0, 0, ""))):
        async with (
            penstock_serving(transport=transport) as server,
            websockets.connect(url_of(server), additional_headers=OFFER) as plain,
        ):
            await plain.send(message)
            assert await plain.recv() == message
            await plain.send(HELLO)  # the application's own, then
            assert await plain.recv() == HELLO


@each_transport
async def test_hello_that_makes_no_sense_is_refused(transport: Any) -> None:
    async with (
        penstock_serving(transport=transport) as server,
        websockets.connect(url_of(server), additional_headers=OFFER) as plain,
    ):
        await plain.send(write(Hello(b"", 0, 1, 1, 0, 0, 0)))
        with pytest.raises(ConnectionClosed):
            await plain.recv()
        assert plain.close_code == 4900


@each_transport
async def test_a_server_that_promises_the_envelope_and_says_something_else_is_no_server(transport: Any) -> None:
    async def liar(ws: Any) -> None:
        await ws.recv()
        await ws.send("hello, who is there?")
        await ws.wait_closed()

    def promise(ws: Any, request: Any, response: Any) -> None:
        response.headers["Penstock"] = "v1"

    async with websockets.serve(liar, "127.0.0.1", 0, process_response=promise) as server:
        with pytest.raises(InvalidHandshake, match="envelope"):
            await penstock.connect(url_of(server), transport=transport)


@each_transport
async def test_a_server_whose_loop_was_held_up_still_sees_hello(transport: Any, hasty: None) -> None:
    async with (
        penstock_serving(transport=transport) as server,
        websockets.connect(url_of(server), additional_headers=OFFER) as plain,
    ):
        await plain.send(HELLO)
        time.sleep(0.3)  # noqa: ASYNC251 - the fault
        assert isinstance(read(await plain.recv()), Welcome)


# Together with what else is negotiated


@each_transport
async def test_permessage_deflate_and_the_envelope_go_together(transport: Any) -> None:
    messages = [f"message {number}" * 20 for number in range(500)]
    async with (
        penstock_serving(transport=transport, compression="deflate") as server,
        penstock.connect(url_of(server), transport=transport, compression="deflate") as conn,
    ):
        assert "permessage-deflate" in conn.response.headers["Sec-WebSocket-Extensions"]
        assert conn.is_reliable
        await conn.send_many(messages)
        assert [await conn.recv() for _ in messages] == messages


@each_transport
async def test_envelope_frames_that_arrive_compressed_are_inflated(transport: Any) -> None:
    """As from a server or a browser that compresses whatever it sends."""

    async def handler(conn: Any) -> None:
        await conn.send(await conn.recv() + "!")

    async with (
        penstock_serving(handler, transport=transport, compression="deflate") as server,
        websockets.connect(url_of(server), additional_headers=OFFER, compression="deflate") as plain,
    ):
        await plain.send(HELLO)
        assert isinstance(read(await plain.recv()), Welcome)
        await plain.send(b"\x93\x00\x01\x91\xd9\xc8" + b"x" * 200)
        frames = [await plain.recv(), await plain.recv()]
        assert any(frame[:3] == b"\x93\x00\x01" and b"x!" in frame for frame in frames)


@each_transport
async def test_a_browser_offers_it_by_a_subprotocol_and_the_application_sees_its_own(transport: Any) -> None:
    seen: list[Any] = []

    async def handler(conn: Any) -> None:
        seen.append((conn.subprotocol, conn.is_reliable))
        await conn.wait_closed()

    async with penstock_serving(handler, transport=transport, subprotocols=["chat", "v2"]) as server:
        for offered, chosen, seen_there, reliable in [
            (["penstock.v1+v2", "v2"], "penstock.v1+v2", "v2", True),
            (["v2", "chat"], "chat", "chat", False),
        ]:
            async with websockets.connect(url_of(server), subprotocols=offered) as plain:  # type: ignore[arg-type]
                assert plain.subprotocol == chosen
                if reliable:
                    await plain.send(HELLO)
                    assert isinstance(read(await plain.recv()), Welcome)
                await until(lambda: seen)
            assert seen.pop() == (seen_there, reliable)


@each_transport
async def test_the_envelope_alone_may_be_the_subprotocol(transport: Any) -> None:
    alone: Any = ["penstock.v1"]
    async with (
        penstock_serving(transport=transport) as server,
        websockets.connect(url_of(server), subprotocols=alone) as plain,
    ):
        assert plain.subprotocol == "penstock.v1"
        await plain.send(HELLO)
        assert isinstance(read(await plain.recv()), Welcome)
    async with (
        penstock_serving(transport=transport, reliable=False) as server,
        websockets.connect(url_of(server), subprotocols=alone) as plain,
    ):
        assert plain.subprotocol is None


@each_transport
async def test_a_client_of_penstock_with_a_subprotocol_sees_it_over_a_session(transport: Any) -> None:
    seen: list[Any] = []

    async def handler(conn: Any) -> None:
        seen.append(conn.subprotocol)

    async with (
        penstock_serving(handler, transport=transport, subprotocols=["chat"]) as server,
        penstock.connect(url_of(server), transport=transport, subprotocols=["chat"]) as conn,
    ):
        assert conn.is_reliable
        assert conn.subprotocol == "chat"
        await until(lambda: seen)
    assert seen == ["chat"]


@each_transport
async def test_hooks_and_basic_auth_work_with_sessions(transport: Any) -> None:
    calls: list[Any] = []

    def on_response(conn: Any, request: Any, response: Any) -> None:
        calls.append((conn.request is request, response.status_code))
        response.headers["X-Mine"] = "yes"

    async def handler(conn: Any) -> None:
        await conn.send(conn.username)

    auth = websockets.basic_auth(realm="here", credentials=("ann", "secret"))
    async with penstock_serving(
        handler, transport=transport, process_request=auth, process_response=on_response
    ) as server:
        async with penstock.connect(url_of(server, user="ann:secret@"), transport=transport) as conn:
            assert conn.is_reliable
            assert conn.response.headers["X-Mine"] == "yes"
            assert await conn.recv() == "ann"
        with pytest.raises(websockets.InvalidStatus, match="401"):
            await penstock.connect(url_of(server, user="ann:wrong@"), transport=transport)
    assert [status for _, status in calls if status == 101] == [101]


# Connections of which nobody knows yet


@each_transport
async def test_a_broadcast_does_not_disturb_who_is_still_negotiating(transport: Any) -> None:
    async with (
        penstock_serving(transport=transport) as server,
        websockets.connect(url_of(server), additional_headers=OFFER) as plain,
    ):
        await asyncio.sleep(0.05)
        assert server.connections == set()
        penstock.broadcast(server.connections, "to all")
        await plain.send(HELLO)
        assert isinstance(read(await plain.recv()), Welcome)
        await until(lambda: len(server.connections) == 1)


@each_transport
async def test_a_server_that_closes_does_not_wait_for_who_is_still_negotiating(transport: Any) -> None:
    server = await penstock_serving(transport=transport)
    async with websockets.connect(url_of(server), additional_headers=OFFER) as plain:
        await asyncio.sleep(0.02)
        server.close()
        async with asyncio.timeout(1):
            await server.wait_closed()
        assert plain.close_code == 1001


@each_transport
async def test_a_client_that_says_hello_and_is_gone_leaves_nothing(transport: Any) -> None:
    async def slow(conn: Any) -> str:
        await asyncio.sleep(0.1)
        return "somebody"

    ran: list[Any] = []

    async def handler(conn: Any) -> None:
        ran.append(conn)

    async with penstock_serving(handler, transport=transport, principal=slow, **QUICK) as server:
        plain = await websockets.connect(url_of(server), additional_headers=OFFER)
        await plain.send(HELLO)
        await asyncio.sleep(0.02)
        plain.transport.abort()
        await plain.wait_closed()
        await asyncio.sleep(0.2)
        assert ran == []
        assert server.connections == set()


@each_transport
async def test_a_handler_that_returns_at_once_is_heard(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        await conn.send("bye")

    async with penstock_serving(handler, transport=transport) as server:
        for _ in range(20):
            conn = await penstock.connect(url_of(server), transport=transport)
            assert [message async for message in conn] == ["bye"]
            with pytest.raises(ConnectionClosed):
                await conn.send("late")
            assert conn.close_code == 1000
