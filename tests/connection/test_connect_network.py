"""The way to the server: sockets, addresses, families, Unix sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path
from typing import Any

import pytest
import websockets

import penstock
from support.certificates import server_tls, trusting
from support.peers import http, peer, saying, silent
from support.servers import each_server, each_transport, echo, port_of, serving, url_of
from support.waiting import until

pytestmark = pytest.mark.timeout(20)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


async def hello(conn: Any) -> None:
    await conn.send("hello")
    assert await conn.recv() == "hello"


@pytest.mark.parametrize("blocking", [True, False], ids=["blocking", "non-blocking"])
@each_transport
async def test_a_socket_that_was_given_is_used_and_closed(transport: Any, blocking: bool) -> None:
    async with serving() as server:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        sock.setblocking(blocking)
        address = sock.getsockname()
        async with penstock.connect("ws://somewhere.invalid/", transport=transport, sock=sock) as conn:
            await hello(conn)
            assert conn.local_address == address
            assert conn.request is not None
            assert conn.request.headers["Host"] == "somewhere.invalid"
    await until(lambda: sock.fileno() == -1)


@each_transport
async def test_a_socket_that_was_given_is_closed_when_the_peer_refuses(transport: Any) -> None:
    async with peer(saying(http("403 Forbidden"))) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        with pytest.raises(websockets.InvalidStatus):
            await penstock.connect(server.url, transport=transport, sock=sock)
        await server.wait_gone()
    await until(lambda: sock.fileno() == -1)


@each_transport
async def test_a_socket_that_was_given_is_closed_by_the_timeout(transport: Any) -> None:
    async with peer(silent()) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        with pytest.raises(TimeoutError):
            await penstock.connect(server.url, transport=transport, sock=sock, open_timeout=0.05)
        await server.wait_gone()
    await until(lambda: sock.fileno() == -1)


@each_transport
async def test_host_and_port_lead_elsewhere_than_the_uri(transport: Any) -> None:
    async with (
        serving() as server,
        penstock.connect(
            "ws://example.invalid:99/x", transport=transport, host="127.0.0.1", port=port_of(server)
        ) as conn,
    ):
        await hello(conn)
        assert conn.request is not None
        assert conn.request.headers["Host"] == "example.invalid:99"


@each_transport
async def test_a_host_alone_keeps_the_port_of_the_uri(transport: Any) -> None:
    async with serving() as server:
        uri = f"ws://example.invalid:{port_of(server)}/"
        async with penstock.connect(uri, transport=transport, host="127.0.0.1") as conn:
            await hello(conn)


@each_transport
async def test_a_port_alone_keeps_the_host_of_the_uri(transport: Any) -> None:
    async with (
        serving() as server,
        penstock.connect("ws://127.0.0.1:1/", transport=transport, port=port_of(server)) as conn,
    ):
        await hello(conn)


@each_transport
async def test_local_addr_is_where_the_connection_comes_from(transport: Any) -> None:
    async with (
        serving() as server,
        penstock.connect(url_of(server), transport=transport, local_addr=("127.0.0.2", 0)) as conn,
    ):
        await hello(conn)
        assert conn.local_address[0] == "127.0.0.2"


@each_transport
async def test_a_local_address_that_is_not_ours_is_an_oserror(transport: Any) -> None:
    async with serving() as server:
        with pytest.raises(OSError, match=r"(?i)assign"):
            await penstock.connect(url_of(server), transport=transport, local_addr=("192.0.2.1", 0))


@each_transport
async def test_a_name_leads_to_whichever_address_accepts(transport: Any) -> None:
    async with serving() as server, penstock.connect(url_of(server, host="localhost"), transport=transport) as conn:
        await hello(conn)


@each_transport
async def test_family_chooses_the_kind_of_address(transport: Any) -> None:
    async with (
        serving() as server,
        penstock.connect(url_of(server, host="localhost"), transport=transport, family=socket.AF_INET) as conn,
    ):
        await hello(conn)
        assert conn.transport.get_extra_info("socket").family == socket.AF_INET


@needs_ipv6
@each_server
@each_transport
async def test_ipv6_addresses_work(transport: Any, kind: str) -> None:
    async with (
        serving(kind, host="::1") as server,
        penstock.connect(url_of(server, host="[::1]"), transport=transport) as conn,
    ):
        await hello(conn)
        assert conn.remote_address[0] == "::1"
        assert conn.request is not None
        assert conn.request.headers["Host"] == f"[::1]:{port_of(server)}"


@pytest.mark.parametrize(
    "option", [{"happy_eyeballs_delay": 0.1}, {"interleave": 1}, {"flags": 0}], ids=["eyeballs", "interleave", "flags"]
)
@each_transport
async def test_unusual_arguments_of_create_connection_are_taken(transport: Any, option: Any) -> None:
    async with serving() as server, penstock.connect(url_of(server), transport=transport, **option) as conn:
        await hello(conn)


@each_transport
async def test_an_argument_that_nobody_knows_is_a_type_error(transport: Any) -> None:
    async with serving() as server:
        with pytest.raises(TypeError, match="nonsense"):
            await penstock.connect(url_of(server), transport=transport, nonsense=1)


@each_transport
async def test_a_timeout_of_the_system_is_told_as_it_is(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that gives up by itself is simulated: on loopback none does."""

    async def sock_connect(*_: Any) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "the system gave up")

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    with pytest.raises(TimeoutError) as caught:
        await penstock.connect("ws://127.0.0.1:9/", transport=transport)
    assert "the system gave up" in f"{caught.value} {caught.value.__cause__}"
    assert "open_timeout" not in str(caught.value)


@each_transport
async def test_what_every_address_answered_is_told(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "127.0.0.2")]

    async def sock_connect(sock: socket.socket, address: tuple[str, int]) -> None:
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"no to {address[0]}")

    port = 9
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    with pytest.raises(OSError, match=r"no to 127\.0\.0\.1.*no to 127\.0\.0\.2"):
        await penstock.connect(f"ws://two.example:{port}/", transport=transport)


@each_transport
async def test_the_next_address_is_tried_when_one_refuses(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server:

        async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port_of(server)))
                for address in ("127.0.0.9", "127.0.0.1")
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        async with penstock.connect(f"ws://two.example:{port_of(server)}/", transport=transport) as conn:
            await hello(conn)


# Unix sockets


@pytest.mark.parametrize("penstock_serves", [True, False], ids=["penstock", "websockets"])
async def test_unix_sockets_work(tmp_path: Path, penstock_serves: bool) -> None:
    serve: Any = penstock.unix_serve if penstock_serves else websockets.unix_serve
    path = str(tmp_path / "socket")
    async with serve(echo, path), penstock.unix_connect(path) as conn:
        await hello(conn)
        assert conn.request is not None
        assert conn.request.headers["Host"] == "localhost"


async def test_unix_sockets_carry_tls(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with (
        penstock.unix_serve(echo, path, ssl=server_tls()),
        penstock.unix_connect(path, ssl=trusting()) as conn,
    ):
        await hello(conn)
        assert conn.transport.get_extra_info("ssl_object") is not None


async def test_unix_sockets_take_a_uri(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    async with penstock.unix_serve(echo, path), penstock.unix_connect(path, "ws://example.org/x?y=1") as conn:
        assert conn.request is not None
        assert conn.request.path == "/x?y=1"
        assert conn.request.headers["Host"] == "example.org"


async def test_a_unix_socket_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await penstock.unix_connect(str(tmp_path / "nothing"))


async def test_reconnecting_works_over_unix_sockets(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    rounds = 0
    async with penstock.unix_serve(echo, path):
        async with asyncio.timeout(5):
            async for conn in penstock.unix_connect(path):
                await hello(conn)
                rounds += 1
                if rounds == 2:
                    break
    assert rounds == 2


@each_transport
async def test_a_server_that_is_not_there_is_an_os_error_with_a_note_that_names_it(transport: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConnectionRefusedError) as caught:
        await penstock.connect(f"ws://me:s3cret@127.0.0.1:{port}/x?token=s3cret", transport=transport)
    assert caught.value.errno == errno.ECONNREFUSED
    assert caught.value.__notes__ == [f"while connecting to ws://127.0.0.1:{port}/x?token=***"]


@each_transport
async def test_a_unix_socket_that_is_not_there_is_named(transport: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "none.sock")
    with pytest.raises(FileNotFoundError) as caught:
        await penstock.connect("ws://localhost/", transport=transport, unix=True, path=path)
    assert caught.value.__notes__ == [f"while connecting to ws://localhost/ at {path}"]
