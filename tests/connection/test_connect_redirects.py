"""Redirects: followed where that is safe, with credentials for their own origin only."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from websockets import InvalidStatus, InvalidURI, SecurityError

import penstock
from support.certificates import server_tls, trusting
from support.peers import Peer, http, peer, saying
from support.servers import each_transport, port_of, serving, url_of
from support.waiting import until

pytestmark = pytest.mark.timeout(20)

SECRETS = {"Authorization": "Bearer abc", "Cookie": "a=1", "Proxy-Authorization": "Basic x", "X-Kept": "yes"}


def to(location: str, status: str = "302 Found") -> Any:
    return saying(http(status, f"Location: {location}"))


async def hello(conn: Any) -> str:
    await conn.send("hello")
    return str(await conn.recv())


@pytest.mark.parametrize(
    "status", ["300 Choices", "301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent"]
)
@each_transport
async def test_every_redirecting_status_is_followed(transport: Any, status: str) -> None:
    async with serving() as server, peer(to(url_of(server, "/new"), status)) as old:
        async with penstock.connect(old.url, transport=transport) as conn:
            assert await hello(conn) == "hello"
            assert conn.request is not None
            assert conn.request.path == "/new"
        await old.wait_gone()


@each_transport
async def test_a_relative_location_leads_to_the_same_origin_with_credentials(transport: Any) -> None:
    async with peer(saying(http("302 Found", "Location: ../b?x=1"), http("403 Forbidden"))) as server:
        with pytest.raises(InvalidStatus):
            await penstock.connect(f"{server.url}a/c", transport=transport, additional_headers=SECRETS)
    assert server.heads[1].startswith("GET /b?x=1 HTTP/1.1")
    for name, value in SECRETS.items():
        assert server.headers(name) == [value]


@each_transport
async def test_another_origin_gets_no_credentials(transport: Any) -> None:
    async with peer(saying(http("403 Forbidden"))) as other, peer(to(other.url)) as server:
        with pytest.raises(InvalidStatus):
            await penstock.connect(server.url, transport=transport, additional_headers=SECRETS)
    for name, value in SECRETS.items():
        assert server.headers(name) == [value]
        assert other.headers(name) == ([value] if name == "X-Kept" else [])


@each_transport
async def test_another_origin_does_not_get_the_credentials_of_the_uri(transport: Any) -> None:
    async with peer(saying(http("403 Forbidden"))) as other, peer(to(other.url)) as server:
        with pytest.raises(InvalidStatus):
            await penstock.connect(f"ws://me:secret@127.0.0.1:{server.port}/", transport=transport)
    assert len(server.headers("Authorization")) == 1
    assert other.headers("Authorization") == []


@each_transport
async def test_credentials_do_not_come_back_with_the_first_origin(transport: Any) -> None:
    """What a foreign origin sends us back with may be chosen by it."""
    other = Peer(saying(""))  # its answer needs the first server's port
    async with (
        peer(saying(lambda head: http("302 Found", f"Location: {other.url}"), http("403 Forbidden"))) as server,
        peer(to(f"{server.url}back")) as real,
    ):
        other.port = real.port
        with pytest.raises(InvalidStatus):
            await penstock.connect(server.url, transport=transport, additional_headers=SECRETS)
    assert server.heads[1].startswith("GET /back ")
    assert server.headers("Authorization", 1) == []


@each_transport
async def test_a_redirect_to_tls_is_followed(transport: Any) -> None:
    """The context cannot be given along with a plain URI, so the server's certificate has to be trusted by default."""
    async with serving(ssl=server_tls()) as server, peer(to(url_of(server, scheme="wss"))) as old:
        with pytest.raises(penstock.CertificateRefused, match=str(port_of(server))):
            await penstock.connect(old.url, transport=transport)


@each_transport
async def test_a_redirect_away_from_tls_is_refused(transport: Any) -> None:
    async with serving() as plain, peer(to(url_of(plain)), tls=server_tls()) as server:
        url = f"wss://127.0.0.1:{server.port}/"
        with pytest.raises(SecurityError, match="non-secure"):
            await penstock.connect(url, transport=transport, ssl=trusting())
        assert plain.connections == set()


@each_transport
async def test_a_circle_of_redirects_ends(transport: Any) -> None:
    async with peer(to("/again")) as server:
        with pytest.raises(SecurityError, match="10 redirects"):
            await penstock.connect(server.url, transport=transport)
        assert server.accepted == 10
        await server.wait_gone()


@each_transport
async def test_a_redirect_without_location_is_an_invalid_status(transport: Any) -> None:
    async with peer(saying(http("302 Found"))) as server:
        with pytest.raises(InvalidStatus, match="302"):
            await penstock.connect(server.url, transport=transport)


@each_transport
async def test_a_redirect_to_what_is_no_websocket_is_an_invalid_uri(transport: Any) -> None:
    async with peer(to("https://example.org/")) as server:
        with pytest.raises(InvalidURI, match=r"example\.org"):
            await penstock.connect(server.url, transport=transport)


@each_transport
async def test_a_redirect_is_not_followed_with_a_given_socket(transport: Any) -> None:
    async with peer(to("/elsewhere")) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        with pytest.raises(ValueError, match="socket"):
            await penstock.connect(server.url, transport=transport, sock=sock)
        await server.wait_gone()
    await until(lambda: sock.fileno() == -1)


@each_transport
async def test_another_origin_is_not_followed_with_a_given_host_or_port(transport: Any) -> None:
    async with peer(to("ws://example.org/")) as server:
        with pytest.raises(ValueError, match="host or port"):
            await penstock.connect("ws://example.com/", transport=transport, host="127.0.0.1", port=server.port)


@each_transport
async def test_the_same_origin_is_followed_with_a_given_host_and_port(transport: Any) -> None:
    async with peer(saying(http("302 Found", "Location: /b"), http("403 Forbidden"))) as server:
        with pytest.raises(InvalidStatus):
            await penstock.connect("ws://example.com/a", transport=transport, host="127.0.0.1", port=server.port)
    assert server.heads[1].startswith("GET /b ")
    assert server.headers("Host") == ["example.com"]


@each_transport
async def test_reconnecting_after_a_redirect_works_every_time(transport: Any) -> None:
    async with serving() as server, peer(to(url_of(server))) as old:
        rounds = 0
        async for conn in penstock.connect(old.url, transport=transport):
            assert await hello(conn) == "hello"
            rounds += 1
            if rounds == 3:
                break
        assert rounds == 3
