"""Peers that refuse, or that do not speak WebSocket: the exceptions are those of ``websockets``, and say what came."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets import InvalidHandshake, InvalidHeader, InvalidMessage, InvalidStatus, InvalidUpgrade, NegotiationError
from websockets.client import process_exception

import penstock
from support.peers import Peer, http, peer, saying, switching
from support.servers import each_transport

pytestmark = pytest.mark.timeout(20)


def causes(exc: BaseException | None) -> str:
    """What an exception and its causes say."""
    said = []
    while exc is not None:
        said.append(f"{type(exc).__name__}: {exc}")
        exc = exc.__cause__
    return "\n".join(said)


async def refused(talk: Any, transport: Any, **options: Any) -> Exception:
    """What a connect to this peer raises, in the end; its socket is closed then."""
    async with peer(talk) as server:
        with pytest.raises(InvalidHandshake) as caught:
            await penstock.connect(server.url, transport=transport, **{"open_timeout": 1.5, **options})
        await server.wait_gone()
    return caught.value


def blurting(data: bytes, *, hang_up: bool) -> Any:
    """Say ``data`` without being asked, as many protocols do."""

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        if not hang_up:
            while await reader.read(65_536):
                pass

    return talk


# Not reached


@each_transport
async def test_a_port_where_nobody_listens_is_an_oserror(transport: Any) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionRefusedError):
            await penstock.connect(f"ws://127.0.0.1:{port}/", transport=transport)


@each_transport
async def test_a_name_that_is_not_known_is_an_oserror(transport: Any) -> None:
    with pytest.raises(OSError, match=r"(?i)name|service|address") as caught:
        await penstock.connect("ws://no-such-host.invalid/", transport=transport)
    assert not isinstance(caught.value, TimeoutError)


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose backlog is full: connections to it neither succeed nor fail."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port
        for filler in fillers:
            filler.close()


@each_transport
async def test_a_port_that_swallows_everything_is_given_up_after_open_timeout(transport: Any) -> None:
    with black_hole() as port, pytest.raises(TimeoutError, match="open") as caught:
        await penstock.connect(f"ws://127.0.0.1:{port}/", transport=transport, open_timeout=0.2)
    assert str(port) in str(caught.value)


# Not WebSocket


async def given_up(talk: Any, transport: Any) -> Exception:
    """What a connect to a peer that sends without end raises; `websockets` waits for the end, up to open_timeout."""
    async with peer(talk) as server:
        with pytest.raises((InvalidHandshake, TimeoutError)) as caught:
            await penstock.connect(server.url, transport=transport, open_timeout=0.3)
        await server.wait_gone()
    assert transport == "websockets" or not isinstance(caught.value, TimeoutError)
    return caught.value


@each_transport
async def test_an_http_answer_of_200_is_an_invalid_status(transport: Any) -> None:
    exc = await refused(saying(http("200 OK", "Content-Type: text/html", body="<h1>Welcome</h1>")), transport)
    assert isinstance(exc, InvalidStatus)
    assert exc.response.status_code == 200
    assert exc.response.headers["Content-Type"] == "text/html"
    assert exc.response.body == b"<h1>Welcome</h1>"
    assert "200" in str(exc)


@pytest.mark.parametrize("hang_up", [True, False], ids=["and hangs up", "and waits"])
@pytest.mark.parametrize(
    "banner",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"220 mail.example.org ESMTP Postfix\r\n",
        b"\x15\x03\x01\x00\x02\x02\x50 is a TLS alert\r\n",
        b"-ERR unknown command\r\n",
    ],
    ids=["ssh", "smtp", "tls", "redis"],
)
@each_transport
async def test_another_protocol_is_an_invalid_message_and_not_transient(
    transport: Any, banner: bytes, hang_up: bool
) -> None:
    exc = await refused(blurting(banner, hang_up=hang_up), transport)
    assert isinstance(exc, InvalidMessage)
    assert "HTTP" in str(exc)
    assert process_exception(exc) is exc


@each_transport
async def test_garbage_with_an_empty_line_is_an_invalid_message_that_shows_it(transport: Any) -> None:
    exc = await refused(saying(b"SSH-2.0-OpenSSH_9.6\r\nmore: yes\r\n\r\n"), transport)
    assert isinstance(exc, InvalidMessage)
    assert "ssh-2.0-openssh_9.6" in causes(exc).lower()


@pytest.mark.parametrize("what", ["", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs"], ids=["nothing", "half"])
@each_transport
async def test_a_peer_that_hangs_up_is_an_invalid_message_and_transient(transport: Any, what: str) -> None:
    exc = await refused(saying(what), transport)
    assert isinstance(exc, InvalidMessage)
    assert isinstance(exc.__cause__, EOFError)
    assert process_exception(exc) is None


@each_transport
async def test_headers_without_end_are_refused_early(transport: Any) -> None:
    sent = 0

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
        while True:
            writer.write(b"".join(b"X-%d: y\r\n" % number for number in range(1000)))
            sent += 1
            await writer.drain()
            await asyncio.sleep(0)

    exc = await given_up(talk, transport)
    assert isinstance(exc, InvalidMessage | TimeoutError)
    assert sent > 0


@each_transport
async def test_a_header_line_without_end_is_refused_early(transport: Any) -> None:
    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            writer.write(b"y" * 65_536)
            await writer.drain()
            await asyncio.sleep(0)

    assert isinstance(await given_up(talk, transport), InvalidMessage | TimeoutError)


@each_transport
async def test_a_huge_body_is_not_taken_into_memory(transport: Any) -> None:
    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"y" * 65_536)
            await writer.drain()
            await asyncio.sleep(0)

    exc = await given_up(talk, transport)
    assert not isinstance(exc, InvalidStatus) or len(exc.response.body) < 2**21


# Refused in HTTP


@pytest.mark.parametrize("status", ["401 Unauthorized", "404 Not Found", "426 Upgrade Required", "503 Come Back"])
@each_transport
async def test_a_refusal_keeps_status_headers_and_body(transport: Any, status: str) -> None:
    exc = await refused(
        saying(http(status, "Retry-After: 7", "Set-Cookie: a=1", "Set-Cookie: b=2", body="no")), transport
    )
    assert isinstance(exc, InvalidStatus)
    assert exc.response.status_code == int(status[:3])
    assert exc.response.headers["Retry-After"] == "7"
    assert exc.response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    assert exc.response.body == b"no"
    assert status[:3] in str(exc)


@each_transport
async def test_the_reason_phrase_is_the_servers(transport: Any) -> None:
    exc = await refused(saying(http("503 Come Back")), transport)
    assert isinstance(exc, InvalidStatus)
    assert exc.response.reason_phrase == "Come Back"


@each_transport
async def test_a_status_that_no_register_knows_is_an_invalid_status(transport: Any) -> None:
    exc = await refused(saying(http("599 Out To Lunch")), transport)
    assert isinstance(exc, InvalidStatus)
    assert exc.response.status_code == 599


@each_transport
async def test_a_body_that_comes_later_is_whole(transport: Any) -> None:
    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 20\r\n\r\n")
        for _ in range(2):
            await writer.drain()
            await asyncio.sleep(0.02)
            writer.write(b"0123456789")

    exc = await refused(talk, transport)
    assert isinstance(exc, InvalidStatus)
    assert exc.response.body == b"0123456789" * 2


@each_transport
async def test_an_answer_byte_by_byte_is_understood(transport: Any) -> None:
    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        for byte in switching()(head).encode() + b"\x81\x02hi\x88\x02\x03\xe8":
            writer.write(bytes((byte,)))
            await asyncio.sleep(0)

    async with peer(talk) as server, penstock.connect(server.url, transport=transport) as conn:
        assert [message async for message in conn] == ["hi"]


# 101, but wrong


@pytest.mark.parametrize(
    ("answer", "kind", "names"),
    [
        (switching(accept="AAAAAAAAAAAAAAAAAAAAAAAAAAA="), InvalidHeader, "Sec-WebSocket-Accept"),
        (switching(upgrade=None), InvalidUpgrade, "Upgrade"),
        (switching(upgrade="h2c"), InvalidUpgrade, "Upgrade"),
        (switching(connection=None), InvalidUpgrade, "Connection"),
        (switching(connection="close"), InvalidUpgrade, "Connection"),
        (switching(connection="keep-alive, close"), InvalidUpgrade, "Connection"),
        (switching("Sec-WebSocket-Protocol: chat"), NegotiationError, "subprotocol"),
        (switching("Sec-WebSocket-Extensions: permessage-deflate"), NegotiationError, "extension"),
        (switching("Sec-WebSocket-Extensions: x-unheard-of"), NegotiationError, "extension"),
    ],
    ids=[
        "wrong accept",
        "no upgrade",
        "other upgrade",
        "no connection",
        "connection closes",
        "connection without upgrade",
        "subprotocol not asked for",
        "deflate not asked for",
        "extension not asked for",
    ],
)
@each_transport
async def test_a_wrong_answer_is_refused_and_names_the_header(
    transport: Any, answer: Any, kind: type[Exception], names: str
) -> None:
    exc = await refused(saying(answer), transport)
    assert isinstance(exc, kind)
    assert names in str(exc)
    assert process_exception(exc) is exc


@each_transport
async def test_an_answer_without_accept_is_refused(transport: Any) -> None:
    answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    exc = await refused(saying(answer), transport)
    assert isinstance(exc, InvalidHeader)
    assert exc.name == "Sec-WebSocket-Accept"


@each_transport
async def test_a_subprotocol_that_was_not_offered_is_refused(transport: Any) -> None:
    exc = await refused(saying(switching("Sec-WebSocket-Protocol: chess")), transport, subprotocols=["chat"])
    assert isinstance(exc, NegotiationError)
    assert "chess" in str(exc)


@each_transport
async def test_two_subprotocols_at_once_are_refused(transport: Any) -> None:
    exc = await refused(saying(switching("Sec-WebSocket-Protocol: a, b")), transport, subprotocols=["a", "b"])
    assert isinstance(exc, InvalidHeader)


@pytest.mark.parametrize("connection", ["keep-alive, Upgrade", "Upgrade, Keep-Alive", "upgrade", "UPGRADE"])
@each_transport
async def test_upgrade_may_be_one_of_several_connection_tokens(transport: Any, connection: str) -> None:
    answer = saying(switching(connection=connection), hang_up=False)
    async with peer(answer) as server:
        conn = await penstock.connect(server.url, transport=transport, close_timeout=0.02)
        assert conn.response is not None
        assert conn.response.headers["Connection"] == connection
        await conn.close()


@each_transport
async def test_the_upgrade_header_may_be_written_in_capitals(transport: Any) -> None:
    answer = saying(switching(upgrade="WebSocket"), hang_up=False)
    async with peer(answer) as server:
        conn = await penstock.connect(server.url, transport=transport, close_timeout=0.02)
        await conn.close()
        assert conn.close_code == 1006
