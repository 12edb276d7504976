"""Who may look, asked over plain HTTP."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from typing import Any

import pytest
import websockets

import penstock
from dashboard.boards import asked, boarded, feed_of, port_in, viewing
from penstock import Dashboard, PerformanceMiddleware

TOKEN = "a-token-of-sufficient-length"
UPGRADE = {
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def handshake(port: int, **headers: str) -> int:
    """The status of the answer to an opening handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in (UPGRADE | headers).items()]
    writer.write("\r\n".join(["GET /feed HTTP/1.1", "Connection: Upgrade", *lines, "", ""]).encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    await writer.wait_closed()
    return status


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST", "127.0.0.1", "127.3.2.1", "[::1]", "board.example"])
async def test_names_of_the_dashboard_are_answered(name: str) -> None:
    async with boarded(names=["board.example"]) as (_, board):
        port = port_in(board)
        assert (await asked(port, Host=f"{name}:{port}"))[0] == 200
        assert (await asked(port, Host=f"{name}:9"))[0] == 200  # a port that is forwarded
        assert await handshake(port, Host=f"{name}:{port}", Origin=f"http://{name.lower()}:{port}") == 101


@pytest.mark.parametrize(
    "name", ["evil.example", "localhost.evil.example", "192.168.1.2", "0.0.0.0", "user@localhost", "localhost/", ""]
)
async def test_other_names_are_refused_before_anything_is_accepted(name: str) -> None:
    async with boarded() as (_, board):
        port = port_in(board)
        status, headers, body = await asked(port, Host=f"{name}:{port}")
        assert status in (400, 421)
        assert b"<html" not in body
        assert status == 400 or headers["content-security-policy"]
        assert await handshake(port, Host=f"{name}:{port}", Origin=f"http://{name}:{port}") in (400, 403)


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://localhost", "http://127.0.0.1:{port}", "ftp://localhost:{port}"]
)
@pytest.mark.parametrize("offer", [{}, {"Sec_WebSocket_Protocol": "penstock.v1"}])
async def test_pages_of_other_sites_are_refused_before_a_websocket_is_accepted(origin: str, offer: Any) -> None:
    async with boarded() as (_, board):
        port = port_in(board)
        asking = {"Host": f"localhost:{port}", **offer}
        assert await handshake(port, **asking, Origin=origin.format(port=port)) == 403
        assert await handshake(port, **asking, Origin=f"http://localhost:{port}") == 101
        assert await handshake(port, **asking, Origin=f"https://localhost:{port}") == 101  # behind a proxy with TLS
        assert await handshake(port, **asking) == 101  # no browser


async def test_on_all_addresses_any_address_is_a_name_and_no_other_name_is() -> None:
    async with boarded(host="0.0.0.0", token=TOKEN) as (_, board):
        port = port_in(board)
        assert (await asked(port, Host="192.168.1.2:80"))[0] == 200
        assert (await asked(port, Host="evil.example"))[0] == 421


# Tokens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "board.example", ""])
async def test_a_host_that_others_reach_needs_a_token(host: str) -> None:
    async with PerformanceMiddleware() as pipe:
        with pytest.raises(ValueError, match="a token is needed"):
            Dashboard(pipe, host)
        Dashboard(pipe, host, token=TOKEN)


async def test_a_short_token_is_none() -> None:
    async with PerformanceMiddleware() as pipe:
        with pytest.raises(ValueError, match="at least 16"):
            Dashboard(pipe, token="x" * 15)


WRONG = [
    "{}",
    '{"token": null}',
    '{"token": "wrong"}',
    '{"token": 1}',
    '{"token": "\\ud800"}',
    "[" * 60_000,
    '{"other": ' + "[" * 60_000,
    "no JSON",
    b"x",
]


@pytest.mark.parametrize("said", WRONG)
@pytest.mark.parametrize("reliable", [True, False])
async def test_nothing_is_told_to_one_that_does_not_know_the_token(said: Any, reliable: bool) -> None:
    async with boarded(token=TOKEN) as (_, board), penstock.connect(feed_of(board), reliable=reliable) as conn:
        await conn.send(said)
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await conn.recv()
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1008, "unknown token")


async def test_who_knows_the_token_is_told_and_the_url_has_it() -> None:
    async with boarded(token=TOKEN + "/&") as (_, board):
        assert board.url.endswith(f"#token={TOKEN}%2F%26")
        async with viewing(board, TOKEN + "/&") as viewer:
            assert "state" in await viewer.told()


async def test_who_says_nothing_is_told_nothing_and_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.dashboard.feed.HELLO_TIMEOUT", 0.05)
    async with boarded() as (_, board), penstock.connect(feed_of(board)) as conn:
        with pytest.raises(websockets.ConnectionClosed) as caught:
            await conn.recv()
        assert caught.value.rcvd.code == 1008


# What is served


async def test_answers_say_that_nothing_foreign_may_be_loaded() -> None:
    async with boarded() as (_, board):
        port = port_in(board)
        for path in ("/", "/board.js", "/nothing"):
            _, headers, _ = await asked(port, path, Host=f"localhost:{port}")
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'"
            assert policy["connect-src"] == f"'self' ws://localhost:{port} wss://localhost:{port}"
            assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"
            assert "server" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_can_be_changed(method: str) -> None:
    async with boarded() as (_, board):
        assert (await asked(port_in(board), method=method, Host="localhost", Content_Length="0"))[0] == 405


async def test_files_have_their_kind_and_are_sent_again_only_if_they_changed() -> None:
    async with boarded() as (_, board):
        port = port_in(board)
        for one in (files("penstock.dashboard") / "static").iterdir():
            path = "/" if one.name == "index.html" else f"/{one.name}"
            status, headers, body = await asked(port, path, Host="localhost")
            assert (status, body) == (200, one.read_bytes())
            assert headers["content-type"]
            assert (await asked(port, path, Host="localhost", If_None_Match=headers["etag"]))[0] == 304
        assert (await asked(port, "/../dashboard.py", Host="localhost"))[0] == 404


async def test_a_port_that_is_taken_is_an_error_and_a_dashboard_may_be_opened_again() -> None:
    async with boarded() as (pipe, board):
        with pytest.raises(OSError, match="in use"):
            async with Dashboard(pipe, port=port_in(board)):
                pass
        with pytest.raises(RuntimeError, match="is open"):
            await board.__aenter__()
    other = Dashboard(pipe)
    with pytest.raises(RuntimeError, match="not open"):
        _ = other.url
    for _ in range(2):
        async with other:
            assert (await asked(port_in(other), Host="localhost"))[0] == 200


async def test_the_configuration_that_is_told_has_no_secret() -> None:
    sections = {"cache": penstock.CacheConfig(shared="redis://me:secret@127.0.0.1:1/0")}
    async with boarded(sections=sections) as (_, board), viewing(board) as viewer:
        assert "secret" not in json.dumps(await viewer.told())
