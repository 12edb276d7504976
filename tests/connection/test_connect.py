"""What a client sends to open a connection, and what it then has; with servers of both libraries."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest
import websockets

import penstock
from penstock.transport.base import State
from support.peers import http, peer, saying, silent, switching
from support.servers import each_server, each_transport, serving, url_of

pytestmark = pytest.mark.timeout(20)


@each_server
@each_transport
async def test_messages_go_both_ways_and_closing_is_clean(transport: Any, kind: str) -> None:
    async with serving(kind) as server, penstock.connect(url_of(server), transport=transport) as conn:
        await conn.send("text")
        await conn.send(b"\x00binary\xff")
        assert [await conn.recv(), await conn.recv()] == ["text", b"\x00binary\xff"]
        assert conn.state is State.OPEN
    assert conn.state is State.CLOSED
    assert (conn.close_code, conn.close_reason) == (1000, "")


@each_transport
async def test_an_awaited_connection_stays_open_until_it_is_closed(transport: Any) -> None:
    async with serving() as server:
        conn = await penstock.connect(url_of(server), transport=transport)
        await conn.send("hello")
        assert await conn.recv() == "hello"
        await conn.close(4001, "enough")
    assert (conn.close_code, conn.close_reason) == (4001, "enough")


@each_transport
async def test_leaving_the_block_by_an_exception_closes_with_1011(transport: Any) -> None:
    codes: list[int | None] = []

    async def handler(ws: Any) -> None:
        await ws.wait_closed()
        codes.append(ws.close_code)

    async with serving(handler=handler) as server:
        with pytest.raises(LookupError):
            async with penstock.connect(url_of(server), transport=transport):
                raise LookupError
    assert codes == [1011]


@each_server
@each_transport
async def test_messages_of_eight_megabytes_go_both_ways(transport: Any, kind: str) -> None:
    text, data = "é" * 4 * 2**20, bytes(range(256)) * 2**15
    async with (
        serving(kind, max_size=None) as server,
        penstock.connect(url_of(server), transport=transport, max_size=None) as conn,
    ):
        await conn.send(text)
        await conn.send(data)
        assert await conn.recv() == text
        assert await conn.recv() == data


@each_server
@each_transport
async def test_a_message_above_max_size_closes_with_1009_and_is_not_delivered(transport: Any, kind: str) -> None:
    async with serving(kind) as server, penstock.connect(url_of(server), transport=transport, max_size=100) as conn:
        await conn.send("x" * 100)
        assert await conn.recv() == "x" * 100
        await conn.send("x" * 101)
        with pytest.raises(websockets.ConnectionClosedError) as caught:
            await conn.recv()
    assert caught.value.sent is not None
    assert caught.value.sent.code == 1009


@each_transport
async def test_one_connect_makes_many_connections_one_after_the_other(transport: Any) -> None:
    async with serving() as server:
        opener = penstock.connect(url_of(server), transport=transport)
        ids = set()
        for number in range(3):
            async with opener as conn:
                await conn.send(str(number))
                assert await conn.recv() == str(number)
                ids.add(conn.id)
    assert len(ids) == 3


@each_transport
async def test_one_connect_does_not_make_two_connections_at_the_same_time(transport: Any) -> None:
    async with serving() as server:
        opener = penstock.connect(url_of(server), transport=transport)
        async with opener as conn:
            with pytest.raises(RuntimeError, match="reentrant"):
                await opener.__aenter__()
            await conn.send("still here")
            assert await conn.recv() == "still here"


# The request


async def heads_of(url_options: dict[str, Any], *, path: str = "/", user: str = "") -> Any:
    """The peer that saw the request of a connect with these options."""
    async with peer(saying(http("403 Forbidden"))) as server:
        url = f"ws://{user}127.0.0.1:{server.port}{path}"
        with pytest.raises(websockets.InvalidStatus):
            await penstock.connect(url, **url_options)
    return server


@each_transport
async def test_the_request_is_that_of_rfc_6455(transport: Any) -> None:
    server = await heads_of({"transport": transport}, path="/chat?room=1&x=%20y")
    assert server.heads[0].startswith("GET /chat?room=1&x=%20y HTTP/1.1\r\n")
    assert server.headers("Host") == [f"127.0.0.1:{server.port}"]
    assert [value.lower() for value in server.headers("Upgrade")] == ["websocket"]
    assert [value.lower() for value in server.headers("Connection")] == ["upgrade"]
    assert server.headers("Sec-WebSocket-Version") == ["13"]
    [key] = server.headers("Sec-WebSocket-Key")
    assert re.fullmatch(r"[A-Za-z0-9+/]{22}==", key)


@each_transport
async def test_each_request_has_a_key_of_its_own(transport: Any) -> None:
    async with peer(saying(http("403 Forbidden"))) as server:
        for _ in range(3):
            with pytest.raises(websockets.InvalidStatus):
                await penstock.connect(server.url, transport=transport)
    assert len({server.headers("Sec-WebSocket-Key", number)[0] for number in range(3)}) == 3


@each_transport
async def test_nothing_is_asked_for_that_was_not_wanted(transport: Any) -> None:
    server = await heads_of({"transport": transport})
    for name in ("Sec-WebSocket-Extensions", "Sec-WebSocket-Protocol", "Origin", "Authorization", "Cookie"):
        assert server.headers(name) == []


@each_transport
async def test_the_user_agent_names_penstock_unless_told_otherwise(transport: Any) -> None:
    assert "penstock/" in (await heads_of({"transport": transport})).headers("User-Agent")[0]
    told = await heads_of({"transport": transport, "user_agent_header": "Mine/1"})
    assert told.headers("User-Agent") == ["Mine/1"]
    assert (await heads_of({"transport": transport, "user_agent_header": None})).headers("User-Agent") == []


@pytest.mark.parametrize(
    "given",
    [
        {"X-One": "1", "X-Two": "2"},
        [("X-One", "1"), ("X-Two", "2")],
        websockets.Headers({"X-One": "1", "X-Two": "2"}),
    ],
    ids=["dict", "list", "Headers"],
)
@each_transport
async def test_additional_headers_are_sent_however_they_are_given(transport: Any, given: Any) -> None:
    server = await heads_of({"transport": transport, "additional_headers": given})
    assert (server.headers("X-One"), server.headers("X-Two")) == (["1"], ["2"])


@each_transport
async def test_a_header_given_twice_is_sent_twice(transport: Any) -> None:
    server = await heads_of({"transport": transport, "additional_headers": [("X-One", "a"), ("X-One", "b")]})
    assert server.headers("X-One") == ["a", "b"]


@each_transport
async def test_an_additional_user_agent_goes_before_the_argument(transport: Any) -> None:
    server = await heads_of({"transport": transport, "additional_headers": {"User-Agent": "Theirs/2"}})
    assert server.headers("User-Agent") == ["Theirs/2"]


@each_transport
async def test_origin_is_sent(transport: Any) -> None:
    server = await heads_of({"transport": transport, "origin": "https://example.org"})
    assert server.headers("Origin") == ["https://example.org"]


@each_transport
async def test_credentials_in_the_uri_become_basic_authorization(transport: Any) -> None:
    server = await heads_of({"transport": transport}, user="hello:p%40ss@")
    assert server.headers("Authorization") == ["Basic aGVsbG86cEBzcw=="]
    assert server.headers("Host") == [f"127.0.0.1:{server.port}"]


@each_transport
async def test_permessage_deflate_is_offered_when_asked_for_by_name(transport: Any) -> None:
    server = await heads_of({"transport": transport, "compression": "deflate"})
    [offer] = server.headers("Sec-WebSocket-Extensions")
    assert offer.startswith("permessage-deflate")


# What was negotiated


@each_server
@each_transport
async def test_request_and_response_of_the_handshake_are_kept(transport: Any, kind: str) -> None:
    async with (
        serving(kind, subprotocols=["chat"]) as server,
        penstock.connect(
            url_of(server, "/path"), transport=transport, subprotocols=["chat"], additional_headers={"X-Test": "yes"}
        ) as conn,
    ):
        assert conn.request is not None
        assert conn.response is not None
        assert conn.request.path == "/path"
        assert conn.request.headers["X-Test"] == "yes"
        assert conn.response.status_code == 101
        assert conn.response.headers["Sec-WebSocket-Protocol"] == "chat"
        assert conn.response.headers["Server"].startswith("Python/")
        assert conn.subprotocol == "chat"


@each_transport
async def test_the_addresses_are_those_of_the_socket(transport: Any) -> None:
    seen: list[Any] = []

    async def handler(ws: Any) -> None:
        seen.append((ws.local_address, ws.remote_address))
        await ws.wait_closed()

    async with serving(handler=handler) as server, penstock.connect(url_of(server), transport=transport) as conn:
        assert conn.remote_address == server.sockets[0].getsockname()
        local = conn.local_address
        await (await conn.ping())
    [(_, remote)] = seen
    assert remote == local


@each_server
@each_transport
async def test_permessage_deflate_carries_messages_both_ways(transport: Any, kind: str) -> None:
    async with (
        serving(kind, compression="deflate") as server,
        penstock.connect(url_of(server), transport=transport, compression="deflate") as conn,
    ):
        assert conn.response is not None
        assert "permessage-deflate" in conn.response.headers["Sec-WebSocket-Extensions"]
        messages = ["x" * 1000, "", b"y" * 1000, "short", b"\x00" * 100_000]
        for message in messages:
            await conn.send(message)
        assert [await conn.recv() for _ in messages] == messages


@each_transport
async def test_a_server_that_would_compress_does_not_when_not_asked(transport: Any) -> None:
    async with (
        serving("websockets", compression="deflate") as server,
        penstock.connect(url_of(server), transport=transport) as conn,
    ):
        assert conn.response is not None
        assert "Sec-WebSocket-Extensions" not in conn.response.headers
        await conn.send("x" * 1000)
        assert await conn.recv() == "x" * 1000


@each_transport
async def test_the_subprotocol_is_the_one_that_the_server_chose(transport: Any) -> None:
    answer = saying(switching("Sec-WebSocket-Protocol: superchat"), hang_up=False)
    async with peer(answer) as server:
        conn = await penstock.connect(
            server.url, transport=transport, subprotocols=["chat", "superchat"], close_timeout=0.05
        )
        assert conn.subprotocol == "superchat"
        assert [part.strip() for part in server.headers("Sec-WebSocket-Protocol")[0].split(",")] == [
            "chat",
            "superchat",
        ]
        await conn.close()


@each_transport
async def test_messages_that_came_with_the_answer_are_received(transport: Any) -> None:
    async def talk(this: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        writer.write(switching()(head).encode() + b"\x81\x05hello\x82\x02\x01\x02\x88\x02\x03\xe8")

    async with peer(talk) as server, penstock.connect(server.url, transport=transport) as conn:
        assert [message async for message in conn] == ["hello", b"\x01\x02"]
    assert conn.close_code == 1000


# Time


@each_transport
async def test_a_server_that_never_answers_is_given_up_after_open_timeout(transport: Any) -> None:
    async with peer(silent()) as server:
        started = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError) as caught:
            await penstock.connect(server.url, transport=transport, open_timeout=0.1)
        assert 0.09 < asyncio.get_running_loop().time() - started < 2
        await server.wait_gone()
    said = str(caught.value)
    assert "opening handshake" in said
    assert f"ws://127.0.0.1:{server.port}/" in said
    assert "0.1" in said


@each_transport
async def test_a_timeout_does_not_tell_the_password_of_the_uri(transport: Any) -> None:
    async with peer(silent()) as server:
        with pytest.raises(TimeoutError) as caught:
            await penstock.connect(f"ws://me:secret@127.0.0.1:{server.port}/", transport=transport, open_timeout=0.05)
    assert "secret" not in str(caught.value)


@each_transport
async def test_an_outer_timeout_closes_the_socket_too(transport: Any) -> None:
    async with peer(silent()) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await penstock.connect(server.url, transport=transport, open_timeout=None)
        await server.wait_gone()


@each_transport
async def test_a_logger_of_ones_own_is_used(transport: Any, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("my.connections")
    async with serving() as server, penstock.connect(url_of(server), transport=transport, logger=logger) as conn:
        assert conn.logger is logger or getattr(conn.logger, "logger", None) is logger
