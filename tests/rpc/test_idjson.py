"""Clients of protocols whose JSON carries an id: browsers, home automation, media servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec import Raw

from penstock import (
    CallLost,
    CallTimeout,
    ConnectionDenied,
    ConnectionPool,
    ConnectionPoolConfig,
    Gap,
    MessageCache,
    RpcError,
    SerializationError,
)
from penstock.rpc import connect, over
from penstock.transport.base import ConnectionClosed
from support.ends import start, within
from support.servers import port_of, serving
from support.waiting import until

pytestmark = pytest.mark.timeout(30)

Answer = Callable[[Any, Any], Awaitable[None]]
LOGIN = {"type": "auth", "access_token": "right"}


class Server:
    """Keeps what it is asked, and answers as the test says."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.url = ""
        self.asked: list[Any] = []
        self.conns: list[Any] = []

    async def handle(self, conn: Any) -> None:
        self.conns.append(conn)
        try:
            async for text in conn:
                message = json.loads(text)
                self.asked.append(message)
                await self.answer(conn, message)
        except ConnectionClosed:
            pass

    async def say(self, conn: Any, **message: Any) -> None:
        await conn.send(json.dumps(message))

    def hang_up(self) -> None:
        for conn in self.conns:
            conn.transport.abort()
        self.conns.clear()


@asynccontextmanager
async def up(answer: Answer, greet: Callable[[Any], Awaitable[None]] | None = None) -> AsyncIterator[Server]:
    server = Server(answer)

    async def handler(conn: Any) -> None:
        if greet is not None:
            await greet(conn)
        await server.handle(conn)

    async with serving("websockets", handler) as open_server:
        server.url = f"ws://127.0.0.1:{port_of(open_server)}/"
        yield server


async def browse(conn: Any, message: Any) -> None:
    """A browser: replies out of order to what is slow, events without id."""
    sent = {name: message[name] for name in ("id", "sessionId") if name in message}
    match message["method"]:
        case "fail":
            await conn.send(json.dumps({**sent, "error": {"code": -32000, "message": "no"}}))
        case "never":
            return
        case "enable":
            await conn.send(json.dumps({"method": "event", "params": {"n": 1}}))
            await conn.send(json.dumps({**sent, "result": {}}))
        case _:
            await conn.send(json.dumps({**sent, "result": message.get("params")}))


async def test_a_browser_answers_and_its_events_go_to_the_callback() -> None:
    told: list[Any] = []
    async with up(browse) as server, connect(server.url, "idjson", dialect="devtools", on_message=told.append) as rpc:
        assert await rpc.call({"method": "enable"}) == {"result": {}}
        assert told == [{"method": "event", "params": {"n": 1}}]
        results = await asyncio.gather(*(rpc.call({"method": "x", "params": n}) for n in range(100)))
        assert results == [{"result": n} for n in range(100)]
        assert await rpc.call({"method": "x", "sessionId": "s"}) == {"result": None, "sessionId": "s"}
        assert await rpc.call(Raw(b'{"id":1.50,"method":"x","params":1}')) == {"id": 1.5, "result": 1}
        with pytest.raises(RpcError, match="no") as caught:
            await rpc.call({"method": "fail"})
        assert caught.value.code == -32000
        assert [one["id"] for one in server.asked] == list(range(1, 105))
        stats = rpc.stats()
        assert (stats.answered, stats.errors, stats.notifications) == (104, 1, 1)


async def test_a_callback_that_fails_is_logged_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def bad(message: Any) -> None:
        raise ZeroDivisionError

    async with up(browse) as server, connect(server.url, "idjson", dialect="devtools", on_message=bad) as rpc:
        assert await rpc.call({"method": "enable"}) == {"result": {}}
        assert await rpc.call({"method": "x"}) == {"result": None}
    assert "ZeroDivisionError" in caplog.text


async def test_replies_are_kept_without_regard_to_the_callers_ids() -> None:
    async with up(browse) as server, connect(server.url, "idjson", dialect="devtools", cache=MessageCache()) as rpc:
        assert await rpc.call({"method": "x", "params": 1, "id": 7}, ttl=60) == {"id": 7, "result": 1}
        assert await rpc.call({"id": 8, "method": "x", "params": 1}, ttl=60) == {"id": 8, "result": 1}
        assert await rpc.call({"method": "x", "params": 1, "sessionId": "s"}, ttl=60)
        assert len(server.asked) == 2
        for _ in range(2):
            with pytest.raises(RpcError):
                await rpc.call({"method": "fail"}, ttl=60)
        assert len(server.asked) == 4


async def test_a_call_is_lost_with_its_connection_and_sent_again_if_it_may_be() -> None:
    async with up(browse) as server, connect(server.url, "idjson", dialect="devtools") as rpc:
        lost, again = start(rpc.call({"method": "never"})), start(rpc.call({"method": "never"}, idempotent=True))
        await until(lambda: len(server.asked) == 2)

        async def answer(conn: Any, message: Any) -> None:
            await server.say(conn, id=message["id"], result="done")

        server.answer = answer
        server.hang_up()
        with pytest.raises(CallLost):
            await within(lost)
        assert await within(again) == {"result": "done"}
        with pytest.raises(SerializationError):
            await rpc.call({"method": object()})


# Home automation


class Hub:
    """As Home Assistant: a login first, ids that must increase, several messages in one array."""

    def __init__(self) -> None:
        self.ids: dict[Any, int] = {}
        self.subs: dict[int, Any] = {}
        self.tokens: list[str] = []
        self.coalesces = False

    async def greet(self, conn: Any) -> None:
        await conn.send('{"type":"auth_required"}')

    async def answer(self, conn: Any, message: Any) -> None:
        if message["type"] == "auth":
            self.tokens.append(message["access_token"])
            is_right = message["access_token"] == "right"
            await conn.send(json.dumps({"type": "auth_ok" if is_right else "auth_invalid"}))
            if not is_right:
                await conn.close()
            return
        id = message["id"]  # noqa: A001
        assert id > self.ids.get(conn, 0), "ids have to increase"
        self.ids[conn] = id
        result: dict[str, Any] = {"id": id, "type": "result", "success": True, "result": message.get("what")}
        match message["type"]:
            case "supported_features":
                self.coalesces = True
            case "subscribe_events":
                self.subs[id] = conn
                result = {**result, "result": None}
                early = {"id": id, "type": "event", "event": "early"}
                await conn.send(json.dumps([early, result] if self.coalesces else early))
                return
            case "unsubscribe_events":
                del self.subs[message["subscription"]]
            case "fail":
                result = {**result, "success": False, "error": {"code": "not_found", "message": "no"}}
        await conn.send(json.dumps([result] if self.coalesces else result))

    async def emit(self, id: int, event: Any) -> None:  # noqa: A002
        await self.subs[id].send(json.dumps([{"id": id, "type": "event", "event": event}]))


@asynccontextmanager
async def hub() -> AsyncIterator[tuple[Hub, Server]]:
    own = Hub()
    async with up(own.answer, own.greet) as server:
        yield own, server


async def test_a_hub_lets_in_who_has_a_token_and_answers_in_arrays() -> None:
    async with hub() as (own, server), connect(server.url, "idjson", dialect="home-assistant", login=LOGIN) as rpc:
        results = await asyncio.gather(*(rpc.call({"type": "get", "what": n}) for n in range(50)))
        assert [one["result"] for one in results] == list(range(50))
        assert own.coalesces
        with pytest.raises(RpcError, match="no") as caught:
            await rpc.call({"type": "fail"})
        assert caught.value.data == {"code": "not_found", "message": "no"}
        assert own.tokens == ["right"]


async def test_a_hub_s_events_come_from_the_first_and_end_at_the_hub() -> None:
    async with hub() as (own, server), connect(server.url, "idjson", dialect="home-assistant", login=LOGIN) as rpc:
        async with rpc.subscribe({"type": "subscribe_events"}) as events:
            assert await within(anext(events)) == {"type": "event", "event": "early"}
            (id,) = own.subs  # noqa: A001
            await own.emit(id, 1)
            assert await within(anext(events)) == {"type": "event", "event": 1}
        await until(lambda: not own.subs)
        assert (await rpc.call({"type": "get", "what": 5}))["result"] == 5
        assert rpc.stats().subscriptions == 0


async def test_a_hub_s_tombstones_do_not_pile_up() -> None:
    async with hub() as (_, server), connect(server.url, "idjson", dialect="home-assistant", login=LOGIN) as rpc:
        for _ in range(5):
            async with rpc.subscribe({"type": "subscribe_events"}):
                pass
        await rpc.call({"type": "get"})
        (link,) = rpc._links._links
        assert not link.rpc._sent
        assert not link.rpc._forgotten


async def test_after_a_reconnect_the_client_logs_in_again_and_subscribes_with_a_gap() -> None:
    async with (
        hub() as (own, server),
        connect(server.url, "idjson", dialect="home-assistant", login=LOGIN) as rpc,
        rpc.subscribe({"type": "subscribe_events"}) as events,
    ):
        assert (await within(anext(events)))["event"] == "early"
        server.hang_up()
        assert await within(anext(events)) == Gap("reconnected")
        assert own.tokens == ["right", "right"]


async def test_a_hub_that_refuses_the_token_is_told_of_at_once() -> None:
    async with hub() as (own, server):
        wrong = {"type": "auth", "access_token": "wrong"}
        with pytest.raises(ConnectionDenied, match="login"):
            await connect(server.url, "idjson", dialect="home-assistant", login=wrong)
        assert own.tokens == ["wrong"]


# Media servers


async def test_a_janus_server_takes_a_call_first_and_answers_it_later() -> None:
    told: list[Any] = []

    async def answer(conn: Any, message: Any) -> None:
        transaction = message["transaction"]
        if message["janus"] == "keepalive":
            await conn.send(json.dumps({"janus": "ack", "transaction": transaction}))
            return
        await conn.send(json.dumps({"janus": "ack", "transaction": transaction}))
        await conn.send(json.dumps({"janus": "webrtcup", "sender": 1}))
        await conn.send(json.dumps({"janus": "event", "transaction": transaction, "plugindata": message["body"]}))

    async with up(answer) as server, connect(server.url, "idjson", dialect="janus", on_message=told.append) as rpc:
        reply = await rpc.call({"janus": "message", "body": 5, "transaction": "own"})
        assert reply == {"janus": "event", "transaction": "own", "plugindata": 5}
        assert told == [{"janus": "webrtcup", "sender": 1}]
        assert await rpc.call({"janus": "keepalive"}) == {"janus": "ack"}
        assert [one["transaction"] for one in server.asked] == ["1", "2"]


async def test_over_a_pool_connections_go_to_nobody_else() -> None:
    async with up(browse) as server, ConnectionPool(ConnectionPoolConfig(min_connections=0)) as pool:
        async with over(pool, server.url, "idjson", dialect="devtools") as rpc:
            with pytest.raises(CallTimeout):
                await rpc.call({"method": "never"}, timeout=0.05)
            assert await rpc.call({"method": "x", "params": 1}) == {"result": 1}
        await until(lambda: pool.stats().size == 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dialect": "soap"}, "dialect="),
        ({"dialect": "home-assistant"}, "login="),
        ({"dialect": "janus", "login": LOGIN}, "login="),
    ],
)
def test_a_wrong_argument_is_told_of_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        connect("ws://localhost", "idjson", **options)
