"""Ordinary WebSocket endpoints behind ``PenstockASGI``, on the servers that are in use."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

import penstock
from penstock import PenstockASGI
from penstock.errors import SessionLost
from penstock.server import asgi
from penstock.server.sessions import SessionConfig
from penstock.transport.base import ConnectionClosedOK
from penstock.wire.envelope import Hello, write
from support.asgi import each_implementation, uvicorn_serving
from support.waiting import until

pytestmark = [
    pytest.mark.timeout(30),
    pytest.mark.filterwarnings("ignore:remove second argument:DeprecationWarning"),  # uvicorn's oldest implementation
]

HELLO = write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20))


def quickly() -> Any:
    return itertools.repeat(0.01)


def connect(port: int, path: str = "/", **options: Any) -> Any:
    options = {"reliable": True, "reconnect_delays": quickly, **options}
    return penstock.connect(f"ws://127.0.0.1:{port}{path}", **options)


class Endpoint:
    """Echoes, and remembers what became of it."""

    def __init__(self) -> None:
        self.runs = 0
        self.received: list[Any] = []
        self.ended: list[int] = []
        self.scopes: list[Any] = []

    async def __call__(self, ws: WebSocket) -> None:
        self.runs += 1
        self.scopes.append(ws.scope)
        await ws.accept()
        try:
            while True:
                message = await ws.receive()
                if message["type"] == "websocket.disconnect":
                    self.ended.append(message["code"])
                    return
                self.received.append(message.get("text") or message.get("bytes"))
                await ws.send(
                    {"type": "websocket.send", **{key: message[key] for key in ("text", "bytes") if key in message}}
                )
        except WebSocketDisconnect as exc:
            self.ended.append(exc.code)


def starlette(*endpoints: Callable[[WebSocket], Any], **options: Any) -> Starlette:
    return Starlette(routes=[WebSocketRoute(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints], **options)


def wrapped(endpoint: Callable[[WebSocket], Any], **options: Any) -> PenstockASGI:
    async def run(ws: WebSocket) -> None:
        await endpoint(ws)

    return PenstockASGI(Starlette(routes=[WebSocketRoute("/", run)]), **options)


# A client of penstock


@each_implementation
async def test_text_and_bytes_come_back_as_they_were(ws: str) -> None:
    endpoint = Endpoint()
    async with uvicorn_serving(wrapped(endpoint), ws=ws) as port, connect(port) as conn:
        assert conn.is_reliable
        for message in ("text", b"bytes", "", b"", "ü"):
            await conn.send(message)
            assert await conn.recv() == message
        await conn.delivered()
    await until(lambda: endpoint.ended == [1000])


@each_implementation
async def test_a_broken_socket_is_not_seen_by_the_application(ws: str) -> None:
    endpoint, count = Endpoint(), 5000
    async with uvicorn_serving(wrapped(endpoint), ws=ws) as port, connect(port) as conn:

        async def send() -> None:
            for number in range(count):
                await conn.send(str(number))
                if number in (1000, 3000):
                    conn.transport.abort()
                if number % 100 == 0:
                    await asyncio.sleep(0)

        sending = asyncio.create_task(send())
        received = []
        while len(received) < count:
            received += await conn.recv_many()
            if len(received) % 7 == 0:
                await asyncio.sleep(0)
        await sending
        await conn.delivered()
    expected = [str(number) for number in range(count)]
    assert received == expected
    assert endpoint.received == expected
    assert endpoint.runs == 1
    await until(lambda: endpoint.ended == [1000])


@each_implementation
@pytest.mark.parametrize("transport", ["picows", "websockets"])
async def test_the_servers_own_compression_does_not_disturb(ws: str, transport: str) -> None:
    async with (
        uvicorn_serving(wrapped(Endpoint()), ws=ws) as port,
        connect(port, compression="deflate", transport=transport) as conn,
    ):
        assert "permessage-deflate" in conn.response.headers["Sec-WebSocket-Extensions"]
        messages = [f"reading {number} of a sensor" for number in range(1000)]
        await conn.send_many(messages)
        assert [await conn.recv() for _ in messages] == messages


async def test_large_messages_come_in_pieces_and_go_in_pieces() -> None:
    endpoint = Endpoint()
    async with uvicorn_serving(wrapped(endpoint)) as port, connect(port, max_size=2**24) as conn:
        message = "x" * (3 * 2**20)
        await conn.send(message)
        assert await conn.recv() == message


async def test_a_message_beyond_max_size_is_refused_where_it_is_sent() -> None:
    async with uvicorn_serving(wrapped(Endpoint(), max_size=5000)) as port, connect(port) as conn:
        with pytest.raises(penstock.SerializationError):
            await conn.send("x" * 5001)
        await conn.send("x" * 5000)
        assert len(await conn.recv()) == 5000


async def test_a_hundred_thousand_messages_one_way() -> None:
    received: list[str] = []

    async def sink(ws: WebSocket) -> None:
        await ws.accept()
        async for message in ws.iter_text():
            received.append(message)  # noqa: PERF401 - as it comes

    expected = [str(number) for number in range(100_000)]
    async with uvicorn_serving(wrapped(sink)) as port, connect(port) as conn:
        await conn.send_many(expected)
        await conn.delivered()
        assert received == expected


async def test_a_client_waits_while_the_application_does_not_receive() -> None:
    may_receive = asyncio.Event()
    received: list[bytes] = []

    async def slow(ws: WebSocket) -> None:
        await ws.accept()
        await may_receive.wait()
        async for message in ws.iter_bytes():
            received.append(message)  # noqa: PERF401 - as it comes

    async with uvicorn_serving(wrapped(slow)) as port, connect(port) as conn:
        sent = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                while sent < 12 * 1024:
                    await conn.send(sent.to_bytes(1024, "big"))
                    sent += 1
        assert sent < 12 * 1024
        may_receive.set()
        await conn.delivered()
        assert received == [number.to_bytes(1024, "big") for number in range(sent)]


@each_implementation
async def test_an_application_waits_while_its_client_does_not_receive(ws: str) -> None:
    sent = 0

    async def push(ws: WebSocket) -> None:
        nonlocal sent
        await ws.accept()
        for number in range(100_000):
            await ws.send_text(f"{number:0200}")
            sent += 1

    async with uvicorn_serving(wrapped(push), ws=ws) as port, connect(port) as conn:
        while sent == 0:
            await asyncio.sleep(0.01)
        seen = -1
        while seen != sent:
            seen = sent
            await asyncio.sleep(0.05)
        assert sent < 60_000
        numbers = [int(message) async for message in conn]
    assert numbers == list(range(100_000))


async def test_a_flood_leaves_others_their_turn() -> None:
    async def sink(ws: WebSocket) -> None:
        await ws.accept()
        async for _ in ws.iter_text():
            pass

    turns = 0
    async with uvicorn_serving(wrapped(sink)) as port, connect(port) as conn:

        async def watch() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        await conn.send_many(["x"] * 100_000)
        watching = asyncio.create_task(watch())
        await conn.delivered()
        watching.cancel()
    assert turns > 100


# The end of a session


@each_implementation
async def test_an_application_that_returns_closes_with_1000(ws: str) -> None:
    async def brief(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_text("all")

    async with uvicorn_serving(wrapped(brief), ws=ws) as port, connect(port) as conn:
        assert [message async for message in conn] == ["all"]
        assert conn.close_code == 1000


@each_implementation
async def test_an_application_that_closes_does_so_with_its_code(ws: str) -> None:
    async def strict(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_text("last words")
        await ws.close(4321, "because")
        assert (await ws.receive())["type"] == "websocket.disconnect"

    async with uvicorn_serving(wrapped(strict), ws=ws) as port, connect(port) as conn:
        assert await conn.recv() == "last words"
        with pytest.raises(websockets.ConnectionClosed):
            await conn.recv()
        assert (conn.close_code, conn.close_reason) == (4321, "because")


async def test_an_application_that_raises_closes_with_1011_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(ws: WebSocket) -> None:
        await ws.accept()
        raise LookupError("what it said")

    async with uvicorn_serving(wrapped(broken)) as port, connect(port) as conn:
        with pytest.raises(websockets.ConnectionClosedError):
            await conn.recv()
        assert conn.close_code == 1011
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "what it said"


async def test_what_is_sent_to_a_client_that_left_raises_what_starlette_expects() -> None:
    outcome: list[BaseException] = []

    async def late(ws: WebSocket) -> None:
        await ws.accept()
        await ws.receive()
        await asyncio.sleep(0.05)
        try:
            await ws.send_text("anybody?")
        except WebSocketDisconnect as exc:
            outcome.append(exc)

    async with uvicorn_serving(wrapped(late)) as port:
        async with connect(port) as conn:
            await conn.send("bye")
            await conn.delivered()
        await until(lambda: len(outcome) == 1)


async def test_a_session_whose_client_stays_away_ends() -> None:
    endpoint = Endpoint()
    app = wrapped(endpoint, sessions=SessionConfig(ttl=0.1))
    async with uvicorn_serving(app) as port:
        conn = await connect(port, resume=False)
        await conn.send("x")
        await conn.recv()
        conn.transport.abort()
        await asyncio.sleep(0.02)
        assert endpoint.ended == []
        await until(lambda: endpoint.ended == [1006])
        await conn.wait_closed()


async def test_a_server_that_has_started_again_has_forgotten_the_session() -> None:
    first, second = Endpoint(), Endpoint()
    async with uvicorn_serving(wrapped(first)) as port:
        conn = await connect(port)
        await conn.send("known")
        assert await conn.recv() == "known"
    assert first.ended == [1006]
    async with uvicorn_serving(wrapped(second), port=port):
        with pytest.raises(SessionLost):
            await conn.recv()
        await conn.wait_closed()
    assert second.runs == 0, "its client declines the session that it is given instead"


@each_implementation
async def test_sessions_end_in_order_if_they_are_closed_before_the_server_stops(ws: str) -> None:
    endpoint = Endpoint()
    app = wrapped(endpoint)
    async with uvicorn_serving(app, ws=ws) as port:
        conn = await connect(port)
        await conn.send("known")
        assert await conn.recv() == "known"
        await app.close()
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()
        assert conn.close_code == 1001
        await until(lambda: len(endpoint.ended) == 1)
        await app.close()


async def test_who_is_being_recognised_when_the_socket_breaks_is_not_waited_for() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def never(scope: Any) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    async with (
        uvicorn_serving(wrapped(Endpoint(), principal=never)) as port,
        websockets.connect(f"ws://127.0.0.1:{port}/", additional_headers={"Penstock": "v1; node="}) as client,
    ):
        await client.send(HELLO)
        await asked.wait()
        client.transport.abort()
        await asyncio.wait_for(left.wait(), 5)


@each_implementation
@pytest.mark.parametrize("offer", [{"additional_headers": {"Penstock": "v1"}}, {"subprotocols": ["penstock.v1"]}])
async def test_hello_that_comes_too_late_closes_though_the_application_does_not_receive(
    ws: str, offer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "HELLO_TIMEOUT", 0.05)
    raised: list[BaseException] = []

    async def push(ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                await ws.send_text("tick")
                await asyncio.sleep(0.001)
        except WebSocketDisconnect as exc:
            raised.append(exc)

    async with (
        uvicorn_serving(wrapped(push), ws=ws) as port,
        websockets.connect(f"ws://127.0.0.1:{port}/", **offer) as plain,
    ):
        assert await plain.recv() == "tick"
        await plain.send(HELLO)
        await plain.wait_closed()
        assert plain.close_code == 4900
        await until(lambda: raised)


async def test_what_was_not_acknowledged_may_be_sent_to_the_server_that_has_started_again() -> None:
    first, second = Endpoint(), Endpoint()
    async with uvicorn_serving(wrapped(first)) as port:
        conn = await connect(port, on_session_lost="resend")
        await conn.send("known")
        assert await conn.recv() == "known"
        await conn.delivered()
    await conn.send("while it was away")
    async with uvicorn_serving(wrapped(second), port=port):
        assert await conn.recv() == "while it was away"
        await conn.close()


@each_implementation
async def test_sessions_end_before_the_application_shuts_down(ws: str) -> None:
    events: list[str] = []

    async def endpoint(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await ws.receive_text()
        except WebSocketDisconnect:
            await asyncio.sleep(0.05)
        events.append("endpoint has ended")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        events.append("startup")
        yield
        events.append("shutdown")

    app = Starlette(routes=[WebSocketRoute("/", endpoint)], lifespan=lifespan)
    async with uvicorn_serving(PenstockASGI(app), ws=ws) as port:
        connections = [await connect(port, resume=resume) for resume in (True, False)]
    assert events == ["startup", "endpoint has ended", "endpoint has ended", "shutdown"]
    for conn in connections:
        conn.abort()
        await conn.wait_closed()


async def test_an_application_may_be_served_again_after_its_shutdown() -> None:
    app = wrapped(Endpoint())
    for _ in range(2):
        async with uvicorn_serving(app) as port, connect(port) as conn:
            conn.transport.abort()
            await conn.send("again")
            assert await conn.recv() == "again"


async def test_an_application_that_does_not_return_at_shutdown_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.server.asgi.SHUTDOWN_TIMEOUT", 0.05)
    ended: list[str] = []

    async def stubborn(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async with uvicorn_serving(wrapped(stubborn)) as port:
        conn = await connect(port, resume=False)
    assert ended == ["cancelled"]
    await conn.wait_closed()


# Who may resume


async def test_a_session_is_resumed_only_by_the_one_who_began_it() -> None:
    endpoint = Endpoint()
    asked: list[str] = []

    async def user(scope: Any) -> str:
        [name] = [value.decode() for key, value in scope["headers"] if key == b"x-user"]
        asked.append(name)
        return name

    async with uvicorn_serving(wrapped(endpoint, principal=user, sessions=SessionConfig(ttl=0.3))) as port:
        headers = websockets.Headers({"X-User": "ada"})
        conn = await connect(port, additional_headers=headers)
        conn.transport.abort()
        await conn.send("mine")
        assert await conn.recv() == "mine"
        del headers["X-User"]
        headers["X-User"] = "eve"
        conn.transport.abort()
        with pytest.raises(SessionLost):
            await conn.recv()
        assert asked == ["ada", "ada", "eve"]
        await until(lambda: endpoint.ended == [1006])
    assert endpoint.received == ["mine"]
    assert endpoint.runs == 1


async def test_a_principal_that_raises_is_logged_and_the_client_may_try_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    endpoint, answers = Endpoint(), iter(["ada", LookupError("database"), "ada"])

    def user(scope: Any) -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with uvicorn_serving(wrapped(endpoint, principal=user)) as port, connect(port) as conn:
        conn.transport.abort()
        await conn.send("still here")
        assert await conn.recv() == "still here"
    assert endpoint.runs == 1
    assert "database" in caplog.text


# All others pass through


@each_implementation
@pytest.mark.parametrize("offer", [{}, {"Penstock": "v1"}, {"Penstock": "v2"}])
async def test_a_plain_client_is_served_as_ever(ws: str, offer: dict[str, str]) -> None:
    endpoint = Endpoint()
    async with uvicorn_serving(wrapped(endpoint), ws=ws) as port:
        async with websockets.connect(f"ws://127.0.0.1:{port}/", additional_headers=offer) as client:
            for message in ("text", b"bytes", "again"):
                await client.send(message)
                assert await client.recv() == message
        await until(lambda: endpoint.ended == [1000])
    assert endpoint.received == ["text", b"bytes", "again"]


async def test_a_client_that_offers_and_is_silent_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.server.asgi.HELLO_TIMEOUT", 0.05)

    async def talker(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_text("welcome")
        await ws.send_text(await ws.receive_text())

    async with (
        uvicorn_serving(wrapped(talker)) as port,
        websockets.connect(f"ws://127.0.0.1:{port}/", additional_headers={"Penstock": "v1"}) as client,
    ):
        assert await client.recv() == "welcome"
        await client.send("thanks")
        assert await client.recv() == "thanks"


async def test_an_application_that_fails_before_it_accepts_is_the_servers_business(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(ws: WebSocket) -> None:
        raise LookupError("too early")

    async with uvicorn_serving(wrapped(broken)) as port:
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await connect(port)
        assert refusal.value.response.status_code == 500
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "uvicorn.error"


@each_implementation
async def test_an_application_that_refuses_does_so_in_the_handshake(ws: str) -> None:
    async def closing(ws: WebSocket) -> None:
        await ws.close(4403)

    async def answering(ws: WebSocket) -> None:
        await ws.send_denial_response(JSONResponse({"who": "are you"}, status_code=401))

    async with uvicorn_serving(PenstockASGI(starlette(closing, answering)), ws=ws) as port:
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await connect(port, "/closing")
        assert refusal.value.response.status_code == 403
        with pytest.raises(websockets.InvalidStatus) as refusal:
            await connect(port, "/answering")
        assert refusal.value.response.status_code == 401
        assert refusal.value.response.body == b'{"who":"are you"}'


async def test_headers_and_subprotocols_of_the_application_are_kept() -> None:
    async def chat(ws: WebSocket) -> None:
        await ws.accept(subprotocol="chat", headers=[(b"x-server", b"mine")])
        await ws.receive()

    async with uvicorn_serving(wrapped(chat)) as port, connect(port, subprotocols=["other", "chat"]) as conn:
        assert conn.subprotocol == "chat"
        assert conn.response.headers["X-Server"] == "mine"
        assert conn.is_reliable


async def test_http_requests_pass_through() -> None:
    async def page(request: Any) -> PlainTextResponse:
        return PlainTextResponse("a page")

    app = PenstockASGI(Starlette(routes=[Route("/", page)]))
    async with uvicorn_serving(app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert (await reader.read()).endswith(b"a page")
        writer.close()


# Where it stands


async def test_it_is_a_middleware_of_starlette() -> None:
    endpoint = Endpoint()

    async def run(ws: WebSocket) -> None:
        await endpoint(ws)

    app = Starlette(routes=[WebSocketRoute("/", run)])
    app.add_middleware(PenstockASGI, sessions=SessionConfig(ttl=5.0))  # type: ignore[arg-type]
    async with uvicorn_serving(app) as port:
        conn = await connect(port)
        conn.transport.abort()
        await conn.send("through")
        assert await conn.recv() == "through"
    assert (endpoint.runs, endpoint.ended) == (1, [1006])
    conn.abort()
    await conn.wait_closed()


async def test_it_wraps_fastapi() -> None:
    fastapi = pytest.importorskip("fastapi", reason="fastapi is not installed")
    app = fastapi.FastAPI()

    async def endpoint(websocket: fastapi.WebSocket, item: int) -> None:
        await websocket.accept()
        async for message in websocket.iter_json():
            await websocket.send_json({"item": item, **message})

    endpoint.__annotations__.update(websocket=fastapi.WebSocket, item=int)
    app.websocket("/items/{item}")(endpoint)
    async with uvicorn_serving(PenstockASGI(app)) as port, connect(port, "/items/7") as conn:
        await conn.send('{"price": 1}')
        conn.transport.abort()
        assert await conn.recv() == '{"item":7,"price":1}'


async def test_a_bad_size_is_refused() -> None:
    with pytest.raises(ValueError, match="max_message"):
        PenstockASGI(Starlette(), max_size=-1)


async def test_the_program_of_the_documentation_runs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to-asgi.md").read_text()
    program = page.partition("```python\n")[2].partition("```")[0]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", program.replace("8765", str(port)), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async for conn in connect(port, "/readings"):
            async with conn:
                await conn.send("1")
                assert await conn.recv() == "recorded 1"
                conn.transport.abort()
                await conn.send("2")
                assert await conn.recv() == "recorded 2"
            break
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()
