"""Proxies: HTTP CONNECT and SOCKS5, named or from the environment."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import pytest
from websockets import InvalidStatus, ProxyError

import penstock
from support.certificates import server_tls, trusting
from support.peers import http, peer, saying, silent
from support.proxies import http_proxy, socks5_proxy
from support.servers import each_transport, port_of, serving, url_of

pytestmark = pytest.mark.timeout(20)


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "ws_proxy", "wss_proxy", "socks_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def hello(conn: Any) -> None:
    await conn.send("hello")
    assert await conn.recv() == "hello"


# HTTP CONNECT


@each_transport
async def test_an_http_proxy_carries_the_connection(transport: Any) -> None:
    async with serving() as server, http_proxy() as proxy:
        target = f"127.0.0.1:{port_of(server)}"
        async with penstock.connect(
            url_of(server), transport=transport, proxy=f"http://127.0.0.1:{proxy.port}"
        ) as conn:
            await hello(conn)
            assert conn.remote_address == ("127.0.0.1", proxy.port)
        assert proxy.heads[0].startswith(f"CONNECT {target} HTTP/1.1\r\n")
        assert proxy.headers("Host") == [target]
        assert proxy.headers("Proxy-Authorization") == []


@each_transport
async def test_an_http_proxy_carries_tls(transport: Any) -> None:
    async with (
        serving(ssl=server_tls()) as server,
        http_proxy() as proxy,
        penstock.connect(
            url_of(server, scheme="wss"),
            transport=transport,
            proxy=f"http://127.0.0.1:{proxy.port}",
            ssl=trusting(),
        ) as conn,
    ):
        await hello(conn)
        big = "x" * 500_000
        await conn.send(big)
        assert await conn.recv() == big


@pytest.mark.parametrize("scheme", ["ws", "wss"])
@each_transport
async def test_a_proxy_may_speak_tls_itself(transport: Any, scheme: str) -> None:
    tls = {"ssl": server_tls()} if scheme == "wss" else {}
    async with serving(**tls) as server, http_proxy(tls=server_tls()) as proxy:
        async with penstock.connect(
            url_of(server, scheme=scheme),
            transport=transport,
            proxy=f"https://127.0.0.1:{proxy.port}",
            proxy_ssl=trusting(),
            **({"ssl": trusting()} if tls else {}),
        ) as conn:
            await hello(conn)
        assert proxy.accepted == 1


@each_transport
async def test_the_certificate_of_a_proxy_is_checked(transport: Any) -> None:
    async with serving() as server, http_proxy(tls=server_tls()) as proxy:
        with pytest.raises(ssl.SSLCertVerificationError):
            await penstock.connect(url_of(server), transport=transport, proxy=f"https://127.0.0.1:{proxy.port}")


@each_transport
async def test_a_certificate_is_checked_behind_a_proxy_too(transport: Any) -> None:
    async with serving(ssl=server_tls()) as server, http_proxy() as proxy:
        with pytest.raises(penstock.CertificateRefused):
            await penstock.connect(
                url_of(server, scheme="wss"), transport=transport, proxy=f"http://127.0.0.1:{proxy.port}"
            )
        await proxy.wait_gone()


@each_transport
async def test_an_http_proxy_gets_its_user_and_password(transport: Any) -> None:
    async with serving() as server, http_proxy(user=("me", "p@ss:word")) as proxy:
        url = f"http://me:p%40ss%3Aword@127.0.0.1:{proxy.port}"
        async with penstock.connect(url_of(server), transport=transport, proxy=url) as conn:
            await hello(conn)


@each_transport
async def test_credentials_for_the_server_are_not_told_to_the_proxy(transport: Any) -> None:
    async with serving() as server, http_proxy() as proxy:
        async with penstock.connect(
            url_of(server, user="me:secret@"),
            transport=transport,
            proxy=f"http://127.0.0.1:{proxy.port}",
            additional_headers={"Cookie": "a=1"},
        ) as conn:
            assert conn.request is not None
            assert "Authorization" in conn.request.headers
        assert "Authorization" not in proxy.heads[0]
        assert "Cookie" not in proxy.heads[0]


@each_transport
async def test_an_http_proxy_that_refuses_is_a_proxy_error_with_the_status(transport: Any) -> None:
    async with serving() as server, http_proxy(user=("me", "right")) as proxy:
        url = f"http://me:wrong@127.0.0.1:{proxy.port}"
        with pytest.raises(ProxyError, match="407"):
            await penstock.connect(url_of(server), transport=transport, proxy=url)
        await proxy.wait_gone()


@each_transport
async def test_a_proxy_that_speaks_nonsense_is_a_proxy_error(transport: Any) -> None:
    async with peer(saying("NONSENSE\r\n\r\n")) as proxy:
        with pytest.raises(ProxyError):
            await penstock.connect("ws://example.invalid/", transport=transport, proxy=f"http://127.0.0.1:{proxy.port}")
        await proxy.wait_gone()


@each_transport
async def test_a_proxy_that_hangs_up_is_a_proxy_error(transport: Any) -> None:
    async with peer(saying("")) as proxy:
        with pytest.raises(ProxyError):
            await penstock.connect("ws://example.invalid/", transport=transport, proxy=f"http://127.0.0.1:{proxy.port}")


@each_transport
async def test_a_proxy_that_says_nothing_is_bounded_by_open_timeout(transport: Any) -> None:
    async with peer(silent()) as proxy:
        with pytest.raises(TimeoutError, match=r"0\.1"):
            await penstock.connect(
                "ws://example.invalid/",
                transport=transport,
                proxy=f"http://127.0.0.1:{proxy.port}",
                open_timeout=0.1,
            )
        await proxy.wait_gone()


@each_transport
async def test_a_proxy_that_is_not_there_is_an_oserror(transport: Any) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match=str(port)):
            await penstock.connect("ws://example.invalid/", transport=transport, proxy=f"http://127.0.0.1:{port}")


@each_transport
async def test_a_server_that_refuses_behind_a_proxy_is_an_invalid_status(transport: Any) -> None:
    async with peer(saying(http("403 Forbidden"))) as server, http_proxy() as proxy:
        with pytest.raises(InvalidStatus, match="403"):
            await penstock.connect(server.url, transport=transport, proxy=f"http://127.0.0.1:{proxy.port}")
        await proxy.wait_gone()


@each_transport
async def test_a_name_is_left_to_the_http_proxy(transport: Any) -> None:
    async with peer(saying(http("502 Bad Gateway"))) as proxy:
        with pytest.raises(ProxyError):
            await penstock.connect(
                "ws://only.the.proxy.knows.invalid/x", transport=transport, proxy=f"http://127.0.0.1:{proxy.port}"
            )
    assert proxy.heads[0].startswith("CONNECT only.the.proxy.knows.invalid:80 ")


# SOCKS5


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@each_transport
async def test_a_socks_proxy_carries_the_connection(transport: Any, scheme: str) -> None:
    async with serving() as server, socks5_proxy() as proxy:
        async with penstock.connect(
            url_of(server), transport=transport, proxy=f"{scheme}://127.0.0.1:{proxy.port}"
        ) as conn:
            await hello(conn)
        assert proxy.heads == [f"127.0.0.1:{port_of(server)}"]


@each_transport
async def test_a_socks_proxy_carries_tls(transport: Any) -> None:
    async with (
        serving(ssl=server_tls()) as server,
        socks5_proxy() as proxy,
        penstock.connect(
            url_of(server, scheme="wss"),
            transport=transport,
            proxy=f"socks5://127.0.0.1:{proxy.port}",
            ssl=trusting(),
        ) as conn,
    ):
        await hello(conn)


@each_transport
async def test_a_socks_proxy_gets_its_user_and_password(transport: Any) -> None:
    async with serving() as server, socks5_proxy(user=("me", "secret")) as proxy:
        url = f"socks5://me:secret@127.0.0.1:{proxy.port}"
        async with penstock.connect(url_of(server), transport=transport, proxy=url) as conn:
            await hello(conn)


@each_transport
async def test_a_socks_proxy_that_refuses_is_a_proxy_error(transport: Any) -> None:
    async with socks5_proxy(refuse=True) as proxy:
        with pytest.raises(ProxyError):
            await penstock.connect("ws://127.0.0.1:9/", transport=transport, proxy=f"socks5://127.0.0.1:{proxy.port}")
        await proxy.wait_gone()


@each_transport
async def test_a_wrong_password_for_a_socks_proxy_is_a_proxy_error(transport: Any) -> None:
    async with socks5_proxy(user=("me", "right")) as proxy:
        with pytest.raises(ProxyError):
            await penstock.connect(
                "ws://127.0.0.1:9/", transport=transport, proxy=f"socks5://me:wrong@127.0.0.1:{proxy.port}"
            )
        await proxy.wait_gone()


@each_transport
async def test_a_name_is_left_to_the_socks_proxy_that_resolves(transport: Any) -> None:
    async with socks5_proxy(refuse=True) as proxy:
        with pytest.raises(ProxyError):
            await penstock.connect(
                "ws://only.the.proxy.knows.invalid:9/",
                transport=transport,
                proxy=f"socks5h://127.0.0.1:{proxy.port}",
            )
    assert proxy.heads == ["only.the.proxy.knows.invalid:9"]


# Which proxy


@each_transport
async def test_the_environment_names_a_proxy(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server, http_proxy() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        async with penstock.connect(url_of(server), transport=transport) as conn:
            await hello(conn)
        assert proxy.accepted == 1


@each_transport
async def test_no_proxy_means_none(transport: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as server, http_proxy() as proxy:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.port}")
        async with penstock.connect(url_of(server), transport=transport, proxy=None) as conn:
            await hello(conn)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with penstock.connect(url_of(server), transport=transport) as conn:
            await hello(conn)
        assert proxy.accepted == 0


@each_transport
async def test_a_socket_that_was_given_goes_round_the_proxy(transport: Any) -> None:
    async with serving() as server, http_proxy() as proxy:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        async with penstock.connect(
            url_of(server), transport=transport, sock=sock, proxy=f"http://127.0.0.1:{proxy.port}"
        ) as conn:
            await hello(conn)
        assert proxy.accepted == 0


@each_transport
async def test_a_redirect_goes_through_the_proxy_too(transport: Any) -> None:
    async with serving() as server, http_proxy() as proxy:
        async with (
            peer(saying(http("302 Found", f"Location: {url_of(server)}"))) as old,
            penstock.connect(old.url, transport=transport, proxy=f"http://127.0.0.1:{proxy.port}") as conn,
        ):
            await hello(conn)
        assert proxy.accepted == 2


@each_transport
async def test_local_addr_is_where_the_connection_to_the_proxy_comes_from(transport: Any) -> None:
    async with (
        serving() as server,
        http_proxy() as proxy,
        penstock.connect(
            url_of(server),
            transport=transport,
            proxy=f"http://127.0.0.1:{proxy.port}",
            local_addr=("127.0.0.2", 0),
        ) as conn,
    ):
        await hello(conn)
        assert conn.local_address[0] == "127.0.0.2"


@each_transport
async def test_tls_to_the_proxy_is_refused_for_a_plain_one(transport: Any) -> None:
    async with http_proxy() as proxy:
        with pytest.raises(ValueError, match=r"http://|https://"):
            await penstock.connect(
                "ws://127.0.0.1:9/",
                transport=transport,
                proxy=f"http://127.0.0.1:{proxy.port}",
                proxy_ssl=trusting(),
            )
