"""What a server asks of a client's request, and what its hooks may answer."""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from typing import Any

import pytest
import websockets
from websockets import InvalidMessage, InvalidStatus, NegotiationError
from websockets.asyncio.server import basic_auth
from websockets.http11 import Response

import penstock
from support.peers import ask
from support.servers import TRANSPORTS, each_transport, echo, port_of, url_of

pytestmark = pytest.mark.timeout(20)


def serve(transport: Any = "picows", handler: Any = echo, **options: Any) -> Any:
    return penstock.serve(handler, "127.0.0.1", 0, transport=transport, **options)


async def refusal(server: Any, **options: Any) -> Response:
    with pytest.raises(InvalidStatus) as caught:
        await websockets.connect(url_of(server), **options)
    return caught.value.response


async def hello(client: Any) -> None:
    await client.send("hello")
    assert await client.recv() == "hello"


# Origins


@pytest.mark.parametrize(
    ("origin", "welcome"),
    [("https://example.org", True), ("https://sub.example.com", True), (None, True), ("https://evil.test", False)],
)
@each_transport
async def test_origins_are_names_patterns_or_none(transport: Any, origin: Any, welcome: bool) -> None:
    origins = ["https://example.org", re.compile(r"https://.*\.example\.com"), None]
    async with serve(transport, origins=origins) as server:
        if welcome:
            async with websockets.connect(url_of(server), origin=origin) as client:
                await hello(client)
        else:
            response = await refusal(server, origin=origin)
            assert response.status_code == 403
            assert origin.encode() in response.body


@each_transport
async def test_a_client_without_origin_is_refused_where_one_is_asked_for(transport: Any) -> None:
    async with serve(transport, origins=["https://example.org"]) as server:
        assert (await refusal(server)).status_code == 403


# Subprotocols


@each_transport
async def test_the_servers_order_decides_about_subprotocols(transport: Any) -> None:
    seen: list[Any] = []

    async def handler(conn: Any) -> None:
        seen.append(conn.subprotocol)

    async with (
        serve(transport, handler, subprotocols=["superchat", "chat"]) as server,
        websockets.connect(url_of(server), subprotocols=["chat", "superchat"]) as client,
    ):
        assert client.subprotocol == "superchat"
        await client.wait_closed()
    assert seen == ["superchat"]


@each_transport
async def test_a_client_without_a_subprotocol_of_ours_is_refused(transport: Any) -> None:
    async with serve(transport, subprotocols=["chat"]) as server:
        assert (await refusal(server, subprotocols=["chess"])).status_code == 400
        assert (await refusal(server)).status_code == 400


@each_transport
async def test_select_subprotocol_decides_and_sees_the_connection(transport: Any) -> None:
    seen: list[Any] = []

    def select(conn: Any, offered: Any) -> Any:
        seen.append((conn, list(offered)))
        return offered[-1]

    def refuse(conn: Any, offered: Any) -> Any:
        raise NegotiationError("none of these")

    handled: list[Any] = []

    async def handler(conn: Any) -> None:
        handled.append(conn)
        await echo(conn)

    async with (
        serve(transport, handler, subprotocols=["a", "b"], select_subprotocol=select) as server,
        websockets.connect(url_of(server), subprotocols=["a", "b"]) as client,
    ):
        assert client.subprotocol == "b"
        await hello(client)
    assert seen == [(handled[0], ["a", "b"])]
    async with serve(transport, subprotocols=["a"], select_subprotocol=refuse) as server:
        response = await refusal(server, subprotocols=["a"])
    assert response.status_code == 400
    assert b"none of these" in response.body


# process_request


def teapot(conn: Any, _request: Any) -> Response:
    return conn.respond(418, "short and stout\n")  # type: ignore[no-any-return]


async def teapot_later(conn: Any, _request: Any) -> Response:
    await asyncio.sleep(0)
    return teapot(conn, _request)


def disguised(*arguments: Any) -> Any:
    return teapot_later(*arguments)


@each_transport
@pytest.mark.parametrize("hook", [teapot, teapot_later, functools.partial(teapot_later), disguised])
async def test_process_request_may_refuse(transport: Any, hook: Any) -> None:
    async with serve(transport, process_request=hook) as server:
        response = await refusal(server)
    assert response.status_code == 418
    assert response.body == b"short and stout\n"
    assert response.headers["Content-Type"].startswith("text/plain")
    assert response.headers["Connection"] == "close"


@each_transport
async def test_process_request_sees_path_and_headers_and_may_let_through(transport: Any) -> None:
    seen: list[Any] = []

    def look(conn: Any, request: Any) -> None:
        seen.append((type(conn).__name__, request.path, request.headers["X-Test"]))

    async with serve(transport, process_request=look) as server:
        url = url_of(server, "/path?q")
        async with websockets.connect(url, additional_headers={"X-Test": "yes"}) as client:
            await hello(client)
    assert seen == [("ServerConnection", "/path?q", "yes")]


@each_transport
async def test_process_request_may_leave_a_note_for_the_handler(transport: Any) -> None:
    def note(conn: Any, request: Any) -> None:
        conn.note = request.path

    async def handler(conn: Any) -> None:
        await conn.send(conn.note)

    async with (
        serve(transport, handler, process_request=note) as server,
        websockets.connect(url_of(server, "/who")) as client,
    ):
        assert await client.recv() == "/who"


@each_transport
async def test_process_request_may_answer_plain_http(transport: Any) -> None:
    def health(conn: Any, request: Any) -> Response | None:
        return conn.respond(200, "OK\n") if request.path == "/health" else None

    async with serve(transport, process_request=health) as server:
        plain = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        status, headers, body = await ask(port_of(server), plain)
        assert (status, body) == (200, b"OK\n")
        assert headers["content-length"] == "3"
        async with websockets.connect(url_of(server)) as client:
            await hello(client)


def broken(*_: Any) -> None:
    raise LookupError("what the hook said")


async def broken_later(*_: Any) -> None:
    raise LookupError("what the hook said")


@pytest.mark.parametrize("name", ["process_request", "process_response"])
@each_transport
@pytest.mark.parametrize("hook", [broken, broken_later])
async def test_a_hook_that_raises_is_500_and_logged_and_the_client_is_not_told_why(
    transport: Any, hook: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(transport, **{name: hook}) as server:
        response = await refusal(server)
    assert response.status_code == 500
    assert b"what the hook said" not in response.body
    said = [record for record in caplog.records if record.levelno >= logging.ERROR and record.exc_info]
    assert any("what the hook said" in str(record.exc_info[1]) for record in said if record.exc_info)


async def test_a_hook_that_returns_something_else_is_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(process_request=lambda *_: "no response") as server:
        assert (await refusal(server)).status_code == 500
    assert any(record.exc_info for record in caplog.records)


@each_transport
async def test_a_hook_that_takes_too_long_is_bounded_by_open_timeout(transport: Any) -> None:
    cancelled = asyncio.Event()

    async def ponder(*_: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serve(transport, process_request=ponder, open_timeout=0.2) as server:
        with pytest.raises(InvalidMessage):
            await websockets.connect(url_of(server), compression=None)
        async with asyncio.timeout(5):
            await cancelled.wait()


@each_transport
async def test_what_a_client_sends_while_a_hook_ponders_is_received(transport: Any) -> None:
    received: list[Any] = []
    go = asyncio.Event()

    async def ponder(*_: Any) -> None:
        await go.wait()

    async def handler(conn: Any) -> None:
        received.append(await conn.recv())

    async with serve(transport, handler, process_request=ponder, close_timeout=0.2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            b"\x81\x85\0\0\0\0ea"
        )
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"rly")
        go.set()
        async with asyncio.timeout(5):
            assert (await reader.readline()).startswith(b"HTTP/1.1 101")
            await reader.read()
        writer.close()
    assert received == ["early"]


# process_response


@each_transport
async def test_process_response_may_add_headers(transport: Any) -> None:
    def add(conn: Any, request: Any, response: Any) -> None:
        response.headers["X-One"] = "1"
        response.headers["Set-Cookie"] = "a=1"
        response.headers["Set-Cookie"] = "b=2"

    async with serve(transport, process_response=add) as server, websockets.connect(url_of(server)) as client:
        assert client.response is not None
        assert client.response.headers["X-One"] == "1"
        assert client.response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        await hello(client)


@each_transport
async def test_process_response_may_refuse_after_all(transport: Any) -> None:
    def refuse(conn: Any, request: Any, response: Any) -> Response:
        assert response.status_code == 101
        return conn.respond(429, "slow down")  # type: ignore[no-any-return]

    async with serve(transport, process_response=refuse) as server:
        response = await refusal(server)
    assert (response.status_code, response.body) == (429, b"slow down")


@each_transport
async def test_process_response_may_be_a_coroutine_function(transport: Any) -> None:
    async def add(conn: Any, request: Any, response: Any) -> None:
        await asyncio.sleep(0)
        response.headers["X-Later"] = "yes"

    async with serve(transport, process_response=add) as server, websockets.connect(url_of(server)) as client:
        assert client.response is not None
        assert client.response.headers["X-Later"] == "yes"


@each_transport
async def test_the_server_header_names_penstock_unless_told_otherwise(transport: Any) -> None:
    async def server_headers(**options: Any) -> list[str]:
        async with serve(transport, **options) as server, websockets.connect(url_of(server)) as client:
            assert client.response is not None
            return client.response.headers.get_all("Server")

    assert "penstock/" in (await server_headers())[0]
    assert await server_headers(server_header="Mine/1") == ["Mine/1"]
    assert await server_headers(server_header=None) == []


# basic_auth


@each_transport
async def test_basic_auth_of_websockets_works(transport: Any) -> None:
    names: list[str] = []

    async def handler(conn: Any) -> None:
        names.append(conn.username)
        await echo(conn)

    hook = basic_auth("a realm", credentials=[("hello", "iloveyou"), ("other", "secret")])
    async with serve(transport, handler, process_request=hook) as server:
        missing = await refusal(server)
        assert missing.status_code == 401
        assert 'realm="a realm"' in missing.headers["WWW-Authenticate"]
        wrong = await refusal(server, additional_headers={"Authorization": "Basic aGVsbG86d3Jvbmc="})
        assert (wrong.status_code, wrong.body) == (401, b"Invalid credentials\n")
        async with penstock.connect(url_of(server, user="hello:iloveyou@")) as client:
            await hello(client)
    assert names == ["hello"]


# Options that contradict each other


@pytest.mark.parametrize("transport", ["aiohttp", "", "PICOWS", None])
async def test_a_transport_that_does_not_exist_is_refused(transport: Any) -> None:
    with pytest.raises(ValueError, match=r"picows.*websockets"):
        penstock.serve(echo, transport=transport)


@pytest.mark.parametrize("name", ["open_timeout", "ping_interval", "ping_timeout", "close_timeout"])
async def test_a_timeout_below_zero_is_refused_and_named(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        penstock.serve(echo, **{name: -1})


@pytest.mark.parametrize("options", [{"create_connection": object}, {"network": {}}, {"subprotocols": "chat"}])
async def test_arguments_that_cannot_be_are_type_errors(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        penstock.serve(echo, **options)


@pytest.mark.parametrize("compression", ["gzip", True])
async def test_a_compression_that_does_not_exist_is_refused(compression: Any) -> None:
    with pytest.raises(ValueError, match="compression"):
        penstock.serve(echo, compression=compression)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_argument_that_nobody_knows_is_a_type_error(transport: Any) -> None:
    with pytest.raises(TypeError, match="nonsense"):
        await penstock.serve(echo, "127.0.0.1", 0, transport=transport, nonsense=1)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_deflate_is_granted_only_when_asked_for_by_name(transport: Any) -> None:
    for compression, granted in ((None, False), ("deflate", True)):
        async with serve(transport, compression=compression) as server, websockets.connect(url_of(server)) as client:
            assert client.response is not None
            assert ("Sec-WebSocket-Extensions" in client.response.headers) is granted
            await hello(client)
