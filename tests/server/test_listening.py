"""Where a server listens: ports, hosts, sockets, TLS, Unix sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from contextvars import ContextVar
from inspect import signature
from pathlib import Path
from typing import Any

import aiofastnet
import pytest
import websockets

import penstock
from support.certificates import server_tls, trusting
from support.servers import TRANSPORTS, each_transport, echo, port_of, url_of

pytestmark = pytest.mark.timeout(20)

CREATE_SERVER = [
    asyncio.BaseEventLoop.create_server,
    asyncio.AbstractEventLoop.create_unix_server,
    aiofastnet.create_server,
    aiofastnet.create_unix_server,
]


async def hello(client: Any) -> None:
    await client.send("hello")
    assert await client.recv() == "hello"


@each_transport
async def test_several_hosts_are_several_sockets(transport: Any) -> None:
    async with penstock.serve(echo, ["127.0.0.1", "127.0.0.2"], 0, transport=transport) as server:
        addresses = [sock.getsockname() for sock in server.sockets]
        assert sorted(host for host, _ in addresses) == ["127.0.0.1", "127.0.0.2"]
        for host, port in addresses:
            async with websockets.connect(f"ws://{host}:{port}/") as client:
                await hello(client)


@each_transport
async def test_no_host_is_all_interfaces(transport: Any) -> None:
    async with penstock.serve(echo, None, 0, transport=transport) as server:
        port = next(s.getsockname()[1] for s in server.sockets if s.family == socket.AF_INET)
        async with websockets.connect(f"ws://127.0.0.2:{port}/") as client:
            await hello(client)


@each_transport
async def test_a_socket_that_was_given_is_listened_on(transport: Any) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    async with penstock.serve(echo, transport=transport, sock=sock) as server:
        assert port_of(server) == port
        async with websockets.connect(url_of(server)) as client:
            await hello(client)


@each_transport
async def test_two_servers_may_share_a_port(transport: Any) -> None:
    async with (
        penstock.serve(echo, "127.0.0.1", 0, transport=transport, reuse_port=True) as one,
        penstock.serve(echo, "127.0.0.1", port_of(one), transport=transport, reuse_port=True) as two,
    ):
        assert port_of(one) == port_of(two)


@each_transport
async def test_a_port_in_use_is_an_oserror(transport: Any) -> None:
    async with penstock.serve(echo, "127.0.0.1", 0, transport=transport) as server:
        with pytest.raises(OSError, match=str(port_of(server))):
            await penstock.serve(echo, "127.0.0.1", port_of(server), transport=transport)


@each_transport
async def test_tls_is_served(transport: Any) -> None:
    async with (
        penstock.serve(echo, "127.0.0.1", 0, transport=transport, ssl=server_tls()) as server,
        websockets.connect(url_of(server, scheme="wss"), ssl=trusting()) as client,
    ):
        await hello(client)


@each_transport
async def test_a_client_that_distrusts_the_server_does_not_disturb(transport: Any) -> None:
    async with penstock.serve(echo, "127.0.0.1", 0, transport=transport, ssl=server_tls()) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await websockets.connect(url_of(server, scheme="wss"))
        async with websockets.connect(url_of(server, scheme="wss"), ssl=trusting()) as client:
            await hello(client)


@each_transport
async def test_a_tls_handshake_that_does_not_come_is_bounded_by_open_timeout(transport: Any) -> None:
    async with penstock.serve(echo, "127.0.0.1", 0, transport=transport, ssl=server_tls(), open_timeout=0.1) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        async with asyncio.timeout(3):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.transport.abort()


@each_transport
async def test_unix_sockets_are_served(transport: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with penstock.unix_serve(echo, path, transport=transport) as server:
        assert server.sockets[0].getsockname() == path
        async with websockets.unix_connect(path) as client:
            await hello(client)
        assert server.is_serving()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_handler_has_a_context_of_its_own(transport: Any) -> None:
    var: ContextVar[str] = ContextVar("var", default="unset")
    seen: list[str] = []

    async def handler(conn: Any) -> None:
        seen.append(var.get())
        var.set(conn.request.path)
        await conn.recv()
        seen.append(var.get())

    async with penstock.serve(handler, "127.0.0.1", 0, transport=transport) as server:
        one, two = [await websockets.connect(url_of(server, path)) for path in ("/1", "/2")]
        for client in (one, two):
            await client.send("go on")
            await client.wait_closed()
    assert seen == ["unset", "unset", "/1", "/2"]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_plain_behaviour_can_be_asked_for(transport: Any) -> None:
    async with (
        penstock.serve(echo, "127.0.0.1", 0, transport=transport, optimize=False) as server,
        penstock.connect(url_of(server), optimize=False) as client,
    ):
        for number in range(100):
            await client.send(str(number))
        assert [await client.recv() for _ in range(100)] == [str(number) for number in range(100)]


@pytest.mark.parametrize("handler", [None, "handler", 8765])
def test_a_handler_that_cannot_be_called_is_refused_at_once(handler: Any) -> None:
    with pytest.raises(TypeError, match=rf"^handler={handler!r}: must be a coroutine function"):
        penstock.serve(handler, "127.0.0.1", 0)


@pytest.mark.parametrize("port", ["eight", -1, 65_536, b"", [], 1j])
def test_a_port_that_is_none_is_refused_at_once(port: Any) -> None:
    with pytest.raises(ValueError, match=r"must be a whole number up to 65535") as caught:
        penstock.serve(echo, "127.0.0.1", port)
    assert str(caught.value).startswith(f"port={port!r}: ")


@each_transport
async def test_a_port_may_be_digits(transport: Any) -> None:
    async with penstock.serve(echo, "127.0.0.1", "0", transport=transport) as server:  # type: ignore[arg-type]
        assert port_of(server) > 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("optmize", "optimize"),
        ("extra_headers", "process_response"),
        ("reuse_prot", "reuse_port"),
        ("origin", "origins"),
    ],
)
async def test_an_argument_that_does_not_exist_is_refused_at_once_and_the_nearest_named(name: str, meant: str) -> None:
    wanted = rf"^serve\(\) got an unexpected keyword argument '{name}'\. Did you mean '{meant}'\?$"
    with pytest.raises(TypeError, match=wanted):
        penstock.serve(echo, "127.0.0.1", 0, **{name: None})


@pytest.mark.parametrize("call", CREATE_SERVER, ids=["tcp", "unix", "fast tcp", "fast unix"])
async def test_all_arguments_of_create_server_are_known(call: Any) -> None:
    given = set(signature(call).parameters) - {"self", "loop", "protocol_factory"}
    assert penstock.serve(echo, **dict.fromkeys(given)) is not None
