"""Requests that are no WebSocket handshake, or a strange one: answered in HTTP, and the server lives on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import websockets

import penstock
from support.peers import ask, request, until_gone
from support.resources import Resources
from support.servers import TRANSPORTS, echo, port_of, url_of
from support.waiting import until

pytestmark = [pytest.mark.timeout(20), pytest.mark.parametrize("transport", TRANSPORTS)]


def serve(transport: Any, **options: Any) -> Any:
    return penstock.serve(echo, "127.0.0.1", 0, transport=transport, **options)


async def alive(server: Any) -> bool:
    async with websockets.connect(url_of(server)) as client:
        await client.send("still here")
        return await client.recv() == "still here"


async def test_a_browsers_address_bar_gets_426(transport: Any) -> None:
    async with serve(transport) as server:
        status, headers, body = await ask(
            port_of(server), b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
        )
        assert status == 426
        assert headers["upgrade"] == "websocket"
        assert b"WebSocket" in body
        assert await alive(server)


@pytest.mark.parametrize(
    "connection", ["keep-alive, Upgrade", "Upgrade, keep-alive", "upgrade", "UPGRADE", "keep-alive,Upgrade"]
)
async def test_connection_headers_of_browsers_are_understood(transport: Any, connection: str) -> None:
    async with serve(transport) as server:
        status, headers, _ = await ask(port_of(server), request(Connection=connection))
    assert status == 101
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


async def test_the_answer_is_that_of_rfc_6455(transport: Any) -> None:
    async with serve(transport) as server:
        status, headers, _ = await ask(port_of(server), request())
    assert status == 101
    assert headers["upgrade"].lower() == "websocket"
    assert headers["connection"].lower() == "upgrade"
    assert headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert "sec-websocket-extensions" not in headers
    assert "sec-websocket-protocol" not in headers


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        (request(without=("Sec-WebSocket-Key",)), 400, b"Sec-WebSocket-Key"),
        (request(without=("Sec-WebSocket-Version",)), 400, b"Sec-WebSocket-Version"),
        (request(without=("Connection",)), 426, b"Connection"),
        (request(without=("Upgrade",)), 426, b"Upgrade"),
        (request(Connection="close"), 426, b"Connection"),
        (request(Upgrade="h2c"), 426, b"Upgrade"),
        (request(Sec_WebSocket_Key="short"), 400, b"Sec-WebSocket-Key"),
        (request(Sec_WebSocket_Key="not base64 at all!!!!!!"), 400, b"Sec-WebSocket-Key"),
        (request(Sec_WebSocket_Version="12"), 400, b"Sec-WebSocket-Version"),
    ],
    ids=[
        "no key",
        "no version",
        "no connection",
        "no upgrade",
        "connection closes",
        "another upgrade",
        "short key",
        "key that is not base64",
        "another version",
    ],
)
async def test_a_wrong_handshake_is_refused_and_told_why(transport: Any, data: bytes, status: int, says: bytes) -> None:
    async with serve(transport) as server:
        got, _, body = await ask(port_of(server), data)
        assert got == status
        assert says in body
        assert await alive(server)


@pytest.mark.parametrize("line", ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version: 13"])
async def test_a_header_that_may_come_once_may_not_come_twice(transport: Any, line: str) -> None:
    async with serve(transport) as server:
        status, _, _ = await ask(port_of(server), request("/", line))
    assert status == 400


async def test_a_header_may_be_spread_over_lines(transport: Any) -> None:
    async with serve(transport, subprotocols=["b"]) as server:
        data = request("/", "Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b")
        status, headers, _ = await ask(port_of(server), data)
    assert status == 101
    assert headers["sec-websocket-protocol"] == "b"


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "CONNECT", "get"])
async def test_another_method_opens_nothing(transport: Any, method: str) -> None:
    async with serve(transport) as server:
        assert await not_opened(server, request(method=method))
        assert await alive(server)


@pytest.mark.parametrize(
    "data",
    [
        request(version="HTTP/1.0"),
        request(version="HTTP/2.0"),
        b"NONSENSE\r\n\r\n",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        request("/", "Content-Length: 5") + b"hello",
        request("/", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: \xff\xfe\x00\r\n\r\n",
        request("/", "X: " + "y" * 9000),
        request("/", *(f"X-{number}: y" for number in range(200))),
    ],
    ids=[
        "1.0",
        "2.0",
        "nonsense",
        "empty lines",
        "tls",
        "no colon",
        "body",
        "chunked",
        "binary header",
        "long header",
        "many headers",
    ],
)
async def test_what_is_no_request_opens_nothing(transport: Any, data: bytes) -> None:
    async with serve(transport) as server:
        assert await not_opened(server, data)
        assert await alive(server)


async def not_opened(server: Any, data: bytes) -> bool:
    """Whether the server hangs up without 101, soon."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
    writer.write(data)
    try:
        async with asyncio.timeout(5):
            answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    finally:
        writer.transport.abort()
    return b" 101 " not in answer.split(b"\r\n")[0] and not server.connections


async def test_headers_without_end_are_hung_up_on(transport: Any) -> None:
    async with serve(transport) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"GET / HTTP/1.1\r\n")
        sent = 0
        answer = asyncio.create_task(until_gone(reader))
        try:
            async with asyncio.timeout(5):
                while sent < 2**24 and not answer.done():
                    line = b"X-%d: %b\r\n" % (sent, b"y" * 1000)
                    writer.write(line)
                    sent += len(line)
                    await writer.drain()
                    await asyncio.sleep(0)
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            await answer
        assert sent < 2**24
        assert await alive(server)


async def test_a_handshake_byte_by_byte_is_understood(transport: Any) -> None:
    async with serve(transport) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        for byte in request("/slow") + b"\x81\x82\x00\x00\x00\x00hi":
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            assert await reader.readexactly(4) == b"\x81\x02hi"
        writer.transport.abort()


async def test_messages_may_come_in_one_segment_with_the_request(transport: Any) -> None:
    async with serve(transport) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(request() + b"\x81\x82\x00\x00\x00\x00hi\x82\x81\x00\x00\x00\x00\x07")
        async with asyncio.timeout(5):
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(7) == b"\x81\x02hi\x82\x01\x07"
        writer.transport.abort()


async def test_a_slow_handshake_is_bounded_by_open_timeout(transport: Any) -> None:
    async with serve(transport, open_timeout=0.1) as server:
        loop = asyncio.get_running_loop()
        for sent in (b"", b"GET / HTTP/1.1\r\nHost:"):
            started = loop.time()
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(sent)
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            assert 0.09 < loop.time() - started < 2
            writer.transport.abort()
        assert await alive(server)


async def test_open_timeout_does_not_bound_an_open_connection(transport: Any) -> None:
    async with serve(transport, open_timeout=0.05) as server, websockets.connect(url_of(server)) as client:
        await asyncio.sleep(0.1)
        await client.send("x")
        assert await client.recv() == "x"


async def test_a_path_may_be_written_in_any_bytes_that_http_allows(transport: Any) -> None:
    paths: list[str] = []

    async def handler(conn: Any) -> None:
        paths.append(conn.request.path)

    async with penstock.serve(handler, "127.0.0.1", 0, transport=transport) as server:
        for path in ("/%C3%A9?x=%20", "/a//b/../c", "/;p=1", "*"):
            status, _, _ = await ask(port_of(server), request(path))
            assert status == 101
        await until(lambda: len(paths) == 4)
    assert paths == ["/%C3%A9?x=%20", "/a//b/../c", "/;p=1", "*"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n", 431),
        (b"GET / HTTP/1.1\nHost: x\n\n", None),
        (b"\r\n", None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n", None),
    ],
)
async def test_a_request_that_is_none_is_answered_or_hung_up_on_and_logs_no_traceback(
    transport: Any, request_: bytes, status: int | None
) -> None:
    failures: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with penstock.serve(echo, "127.0.0.1", 0, transport=transport) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(request_)
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 %d " % status) if status else not answer.startswith(b"HTTP/1.1 101")
    assert not failures


async def test_a_client_that_was_refused_cannot_fill_the_memory(transport: Any) -> None:
    def refuse(conn: Any, request: Any) -> Any:
        return conn.respond(401, "no")

    async with penstock.serve(
        echo, "127.0.0.1", 0, transport=transport, process_request=refuse, open_timeout=2
    ) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(request())
        async with asyncio.timeout(5):
            await reader.readuntil(b"\r\n\r\n")
        before = Resources.now().resident_bytes
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                for _ in range(400):
                    writer.write(bytes(100_000))
                    await writer.drain()
        grown = Resources.now().resident_bytes - before
        writer.transport.abort()
    assert grown < 20 * 1024 * 1024
