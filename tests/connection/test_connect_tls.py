"""wss: certificates made at run time, refused by default, trusted when told."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any

import pytest

import penstock
from support.certificates import server_tls, trusting
from support.peers import Peer, Talk, peer, silent, until_gone
from support.servers import each_server, each_transport, port_of, serving, url_of

pytestmark = pytest.mark.timeout(20)


def answering(data: bytes) -> Talk:
    """Say this, whatever is asked."""

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(data)
        await until_gone(reader)

    return talk


async def hello(conn: Any) -> None:
    await conn.send("hello")
    assert await conn.recv() == "hello"


@each_server
@each_transport
async def test_messages_go_both_ways_over_tls(transport: Any, kind: str) -> None:
    async with (
        serving(kind, ssl=server_tls(), max_size=None) as server,
        penstock.connect(
            url_of(server, scheme="wss"), transport=transport, ssl=trusting(), max_size=None, ping_interval=None
        ) as conn,
    ):
        await hello(conn)
        big = "x" * 2**22
        await conn.send(big)
        assert await conn.recv() == big
        assert conn.transport.get_extra_info("ssl_object") is not None
    assert conn.close_code == 1000


@each_transport
async def test_a_certificate_of_an_unknown_authority_is_refused_with_url_and_remedy(transport: Any) -> None:
    async with serving(ssl=server_tls()) as server:
        url = url_of(server, "/path", scheme="wss")
        with pytest.raises(penstock.CertificateRefused) as caught:
            await penstock.connect(url, transport=transport)
    exc = caught.value
    assert exc.url == url
    assert url in str(exc)
    assert "ssl=" in str(exc)
    assert isinstance(exc, OSError)
    assert isinstance(exc, ssl.SSLCertVerificationError)
    assert isinstance(exc, penstock.PerformanceError)
    assert isinstance(exc.__cause__, ssl.SSLCertVerificationError)


@each_transport
async def test_a_certificate_for_another_name_is_refused(transport: Any) -> None:
    async with serving(ssl=server_tls("example.org")) as server:
        with pytest.raises(penstock.CertificateRefused):
            await penstock.connect(url_of(server, scheme="wss"), transport=transport, ssl=trusting())


@each_transport
async def test_server_hostname_says_whom_the_certificate_has_to_name(transport: Any) -> None:
    async with (
        serving(ssl=server_tls("example.org")) as server,
        penstock.connect(
            url_of(server, scheme="wss"), transport=transport, ssl=trusting(), server_hostname="example.org"
        ) as conn,
    ):
        await hello(conn)


@each_transport
async def test_the_name_of_the_uri_is_checked_when_host_and_port_lead_elsewhere(transport: Any) -> None:
    async with (
        serving(ssl=server_tls("example.org")) as server,
        penstock.connect(
            "wss://example.org/", transport=transport, ssl=trusting(), host="127.0.0.1", port=port_of(server)
        ) as conn,
    ):
        await hello(conn)
        assert conn.request is not None
        assert conn.request.headers["Host"] == "example.org"


@each_transport
async def test_tls_goes_over_a_socket_that_was_given(transport: Any) -> None:
    async with serving(ssl=server_tls("example.org")) as server:
        sock = socket.create_connection(("127.0.0.1", port_of(server)))
        async with penstock.connect("wss://example.org/", transport=transport, ssl=trusting(), sock=sock) as conn:
            await hello(conn)


@each_transport
async def test_ssl_true_means_the_default_context(transport: Any) -> None:
    async with serving(ssl=server_tls()) as server:
        with pytest.raises(penstock.CertificateRefused):
            await penstock.connect(url_of(server, scheme="wss"), transport=transport, ssl=True)


@each_transport
async def test_credentials_in_a_uri_are_not_told_by_a_refused_certificate(transport: Any) -> None:
    async with serving(ssl=server_tls()) as server:
        with pytest.raises(penstock.CertificateRefused) as caught:
            await penstock.connect(url_of(server, scheme="wss", user="me:secret@"), transport=transport)
    assert "secret" not in str(caught.value)


@each_transport
async def test_tls_to_a_plain_server_is_an_ssl_error(transport: Any) -> None:
    async with serving() as server:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await penstock.connect(url_of(server, scheme="wss"), transport=transport, ssl=trusting())


@each_transport
async def test_a_server_that_leaves_the_tls_handshake_is_told_with_the_likely_reason(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as server:
        url = url_of(server, scheme="wss")
        with pytest.raises(ConnectionResetError, match=r"TLS handshake.*may not speak TLS.*ws://") as caught:
            await penstock.connect(url, transport=transport, ssl=trusting())
    assert caught.value.errno == errno.ECONNRESET
    assert caught.value.__notes__ == [f"while connecting to {url}"]
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@each_transport
async def test_a_server_that_answers_tls_in_plain_text_is_told_likewise(transport: Any) -> None:
    async with peer(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        with pytest.raises(ssl.SSLError, match=r"WRONG_VERSION|RECORD_LAYER|HTTP") as caught:
            await penstock.connect(f"wss://127.0.0.1:{server.port}/", transport=transport, ssl=trusting())
    assert "may not speak TLS (ws://)" in str(caught.value)
    assert caught.value.reason  # all that the library says stays


@each_transport
async def test_another_error_of_tls_is_left_as_it_is(transport: Any) -> None:
    async with peer(answering(bytes((21, 3, 3, 0, 2, 2, 40)))) as server:  # an alert: no cipher in common
        with pytest.raises(ssl.SSLError, match="HANDSHAKE_FAILURE") as caught:
            await penstock.connect(f"wss://127.0.0.1:{server.port}/", transport=transport, ssl=trusting())
    assert "may not speak" not in str(caught.value)


@pytest.mark.parametrize("kind", ["penstock-picows", "penstock-websockets"])
async def test_a_client_that_leaves_the_tls_handshake_is_not_logged_as_an_error(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(kind, ssl=server_tls()) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write_eof()
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.close()
        async with penstock.connect(url_of(server, scheme="wss"), ssl=trusting()) as conn:
            await hello(conn)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@each_transport
async def test_plain_to_a_tls_server_is_not_a_websocket(transport: Any) -> None:
    async with serving(ssl=server_tls()) as server:
        with pytest.raises((penstock.transport.base.InvalidHandshake, ConnectionError)):  # type: ignore[attr-defined]
            await penstock.connect(url_of(server), transport=transport, open_timeout=3)


@each_transport
async def test_a_tls_handshake_that_nobody_answers_is_bounded_by_open_timeout(transport: Any) -> None:
    async with peer(silent()) as server:
        with pytest.raises(TimeoutError, match=r"0\.1"):
            await penstock.connect(
                f"wss://127.0.0.1:{server.port}/", transport=transport, ssl=trusting(), open_timeout=0.1
            )
        await server.wait_gone()


@each_transport
async def test_handshake_arguments_of_create_connection_are_taken(transport: Any) -> None:
    async with (
        serving(ssl=server_tls()) as server,
        penstock.connect(
            url_of(server, scheme="wss"),
            transport=transport,
            ssl=trusting(),
            ssl_handshake_timeout=5,
            ssl_shutdown_timeout=1,
        ) as conn,
    ):
        await hello(conn)
