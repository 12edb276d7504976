"""How a client of ``PenstockASGI`` says what it speaks, whether it can set headers or not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import websockets
from msgspec import Raw
from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from penstock import PenstockASGI
from penstock.server.asgi_application import closing
from penstock.server.asgi_offer import Offer, offer_in
from penstock.server.sessions import SessionConfig
from penstock.transport.base import CloseCode
from penstock.wire.envelope import (
    ENDED,
    NEW,
    RESUMED,
    UNKNOWN,
    Ack,
    Bye,
    Content,
    Data,
    Frame,
    Hello,
    Welcome,
    pack,
    read,
    write,
)
from support.asgi import uvicorn_serving
from support.waiting import until

pytestmark = pytest.mark.timeout(30)

BROWSER = ["penstock.v1+chat", "chat"]


def wrapped(endpoint: Callable[[WebSocket], Awaitable[None]], **options: Any) -> PenstockASGI:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await endpoint(WebSocket(scope, receive, send))
            return
        for event in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{event}"
            await send({"type": f"lifespan.{event}.complete"})

    return PenstockASGI(app, **options)


def serving(endpoint: Callable[[WebSocket], Awaitable[None]], **options: Any) -> Any:
    return uvicorn_serving(wrapped(endpoint, **options))


def connect(port: int, offer: str | list[str]) -> Any:
    """A client that knows no more than frames; it offers by header or by subprotocols."""
    by_header = isinstance(offer, str)
    return websockets.connect(
        f"ws://127.0.0.1:{port}/",
        additional_headers={"Penstock": offer} if by_header else None,
        subprotocols=None if by_header else offer,  # type: ignore[arg-type]
    )


async def greet(client: Any, sid: bytes = b"", rx: int = 0, first: int = 1) -> Welcome:
    await client.send(write(Hello(sid, rx, first, 2**20, 2**20, 0, 2**20)))
    welcome = read(await client.recv())
    assert isinstance(welcome, Welcome)
    return welcome


def data(seq: int, *messages: Content) -> bytes:
    return write(Data(seq, Raw(pack(list(messages)))))


async def end_of(client: Any) -> int:
    """Receive to the end, and tell the code."""
    with contextlib.suppress(websockets.ConnectionClosedError):
        async for _ in client:
            pass
    assert client.close_code is not None
    return int(client.close_code)


async def next_frame(client: Any, kind: type[Frame]) -> Any:
    while not isinstance(frame := read(await client.recv()), kind):
        pass
    return frame


class Chat:
    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.received: list[str] = []
        self.ended: list[int] = []

    async def __call__(self, ws: WebSocket) -> None:
        self.scopes.append(ws.scope)
        await ws.accept("chat" if "chat" in ws.scope["subprotocols"] else None)
        try:
            while True:
                self.received.append(await ws.receive_text())
        except WebSocketDisconnect as exc:
            self.ended.append(exc.code)


# What is offered


@pytest.mark.parametrize(
    ("headers", "subprotocols", "offer"),
    [
        ([], [], None),
        ([(b"penstock", b"v1")], [], Offer(None, resumes=False)),
        ([(b"penstock", b"v1; node=")], [], Offer(None, resumes=True)),
        ([(b"penstock", b"v1;node=eu-1")], ["penstock.v1"], Offer(None, resumes=True)),
        ([(b"penstock", b"v2")], [], None),
        ([(b"penstock", b"v2"), (b"penstock", b"v1")], [], Offer(None, resumes=False)),
        ([], ["chat", "penstock.v10"], None),
        ([], ["penstock.v1"], Offer("penstock.v1", resumes=False)),
        ([], ["penstock.v1+chat", "chat"], Offer("penstock.v1+chat", resumes=False)),
    ],
)
def test_what_a_client_offers(headers: Any, subprotocols: list[str], offer: Offer | None) -> None:
    assert offer_in({"type": "websocket", "headers": headers, "subprotocols": subprotocols}) == offer


def test_a_server_need_not_tell_of_subprotocols() -> None:
    assert offer_in({"type": "websocket", "headers": []}) is None


# A client that cannot set headers


async def test_a_browser_offers_by_subprotocol_and_the_application_sees_its_own() -> None:
    chat = Chat()
    async with serving(chat) as port, connect(port, BROWSER) as client:
        assert client.subprotocol == "penstock.v1+chat"
        assert (await greet(client)).status == NEW
        await client.send(data(1, "hello", "there"))
        await client.send(write(Ack(0, 1)))
        await until(lambda: chat.received == ["hello", "there"])
        assert [scope["subprotocols"] for scope in chat.scopes] == [["chat"]]


async def test_a_browser_without_subprotocol_of_its_own_offers_the_envelope_alone() -> None:
    chat = Chat()
    async with serving(chat) as port, connect(port, ["penstock.v1"]) as client:
        assert client.subprotocol == "penstock.v1"
        assert (await greet(client)).status == NEW
        assert [scope["subprotocols"] for scope in chat.scopes] == [[]]


async def test_a_browser_that_comes_back_finds_its_application_running() -> None:
    chat = Chat()
    async with serving(chat) as port:
        async with connect(port, BROWSER) as client:
            sid = (await greet(client)).sid
            await client.send(data(1, "one"))
            await until(lambda: chat.received == ["one"])
            client.transport.abort()
        async with connect(port, BROWSER) as client:
            assert (await greet(client, sid, first=1)).status == RESUMED
            await client.send(data(2, "two"))
            await until(lambda: chat.received == ["one", "two"])
    assert len(chat.scopes) == 1


async def test_a_browser_is_refused_before_it_is_welcome() -> None:
    async def refuse(ws: WebSocket) -> None:
        await ws.close(4401, "who are you")

    async with serving(refuse) as port, connect(port, BROWSER) as client:
        await client.send(write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20)))
        assert (await end_of(client), client.close_reason) == (4401, "who are you")


async def test_a_refusal_by_http_response_is_a_close_where_the_handshake_was_answered() -> None:
    async def refuse(ws: WebSocket) -> None:
        await ws.send_denial_response(PlainTextResponse("no", status_code=401))

    async with serving(refuse) as port, connect(port, BROWSER) as client:
        await client.send(write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20)))
        assert await end_of(client) == 1008


async def test_an_application_that_chooses_another_subprotocol_is_told_that_its_client_is_gone() -> None:
    ended: list[int] = []

    async def other(ws: WebSocket) -> None:
        await ws.accept("other")
        ended.append((await ws.receive())["code"])

    offer = ["penstock.v1+chat", "penstock.v1+other", "chat", "other"]
    async with serving(other) as port, connect(port, offer) as client:
        await client.send(write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20)))
        assert await end_of(client) == 1002
    assert ended == [1006]


async def test_an_application_that_fails_before_it_accepts_a_browser_is_the_servers_business(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(ws: WebSocket) -> None:
        raise LookupError("too early")

    async with serving(broken) as port, connect(port, BROWSER) as client:
        await client.send(write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20)))
        with pytest.raises(websockets.ConnectionClosed):
            await client.recv()
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "uvicorn.error"


async def test_a_browser_that_speaks_plainly_after_all_is_served() -> None:
    chat = Chat()
    async with serving(chat) as port, connect(port, BROWSER) as client:
        await client.send("plain")
        await until(lambda: chat.received == ["plain"])


async def test_a_browser_that_leaves_before_hello_is_not_told_of() -> None:
    chat = Chat()
    async with serving(chat) as port:
        await (await connect(port, BROWSER)).close()
    assert chat.scopes == []


# A client that comes back


@pytest.mark.parametrize("offer", ["v1; node=", BROWSER])
async def test_a_session_that_is_not_known_begins_anew(offer: Any) -> None:
    chat = Chat()
    async with serving(chat, sessions=SessionConfig(node="eu-1")) as port, connect(port, offer) as client:
        welcome = await greet(client, b"x" * 32)
        assert (welcome.status, welcome.node) == (UNKNOWN, "eu-1")
        await client.send(data(1, "anew"))
        await until(lambda: chat.received == ["anew"])


async def test_an_application_that_refuses_an_unknown_session_closes_it() -> None:
    async def refuse(ws: WebSocket) -> None:
        await ws.send_denial_response(PlainTextResponse("no", status_code=401))

    async with serving(refuse) as port, connect(port, "v1; node=") as client:
        assert (await greet(client, b"x" * 32)).status == UNKNOWN
        assert (await next_frame(client, Bye)).code == 1008
        assert await end_of(client) == 1008


async def test_a_session_that_has_ended_is_known_for_some_time() -> None:
    async def brief(ws: WebSocket) -> None:
        await ws.accept()

    async with serving(brief) as port:
        async with connect(port, "v1") as client:
            sid = (await greet(client)).sid
            await next_frame(client, Bye)
            with pytest.raises(websockets.ConnectionClosed):
                await client.recv()
        async with connect(port, "v1; node=") as client:
            assert (await greet(client, sid)).status == ENDED


async def test_a_client_that_comes_back_without_saying_so_does_not_leave_a_second_application() -> None:
    chat = Chat()
    async with serving(chat) as port:
        async with connect(port, "v1") as client:
            sid = (await greet(client)).sid
            client.transport.abort()
        async with connect(port, "v1") as client:
            assert (await greet(client, sid)).status == RESUMED
            await until(lambda: chat.ended == [1006])
            await client.send(data(1, "to the first"))
            await until(lambda: chat.received == ["to the first"])
    assert len(chat.scopes) == 2


async def test_a_second_socket_takes_over() -> None:
    chat = Chat()
    async with serving(chat) as port, connect(port, "v1") as old:
        sid = (await greet(old)).sid
        async with connect(port, "v1; node=") as new:
            assert (await greet(new, sid)).status == RESUMED
            assert await end_of(old) == 4909
            await new.send(data(1, "from the new one"))
            await until(lambda: chat.received == ["from the new one"])


# Bad input


async def test_hello_that_comes_too_late_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.server.asgi.HELLO_TIMEOUT", 0.05)
    chat = Chat()
    async with serving(chat) as port, connect(port, "v1") as client:
        await asyncio.sleep(0.1)
        await client.send(write(Hello(b"", 0, 1, 2**20, 2**20, 0, 2**20)))
        assert await end_of(client) == 4900
    assert (chat.received, len(chat.ended)) == ([], 1)


async def test_hello_with_limits_that_make_no_sense_is_refused() -> None:
    chat = Chat()
    async with serving(chat) as port, connect(port, "v1") as client:
        await client.send(write(Hello(b"", 0, 1, 1, 1, 0, 1)))
        assert await end_of(client) == 4900
        await until(lambda: chat.ended == [1006])


@pytest.mark.parametrize(
    ("frame", "code"),
    [("text", 4900), (b"\xc1", 4900), (data(2, "x"), 4910), (b"\x93\x00\x01\x91\xa1\xff", 4907)],
)
async def test_a_frame_that_breaks_the_rules_ends_the_session(frame: str | bytes, code: int) -> None:
    chat = Chat()
    async with serving(chat) as port:
        async with connect(port, "v1") as client:
            sid = (await greet(client)).sid
            await client.send(frame)
            assert await end_of(client) == code
        await until(lambda: chat.ended == [1006])
        async with connect(port, "v1; node=") as client:
            assert (await greet(client, sid)).status in (ENDED, UNKNOWN)


def test_a_close_code_goes_to_the_server_as_a_plain_integer() -> None:
    """Some refuse any other type, though it be an integer as well."""
    assert type(closing(CloseCode.POLICY_VIOLATION)["code"]) is int
