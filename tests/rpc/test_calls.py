"""Calls over one connection, and what becomes of them. The numbers are of the cases that the design lists."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from penstock import CallLost, CallTimeout, RpcClosed, RpcError, SerializationError, TooManyCalls
from penstock.rpc import connect
from support.ends import cancelled, start, within
from support.rpcserver import KINDS, RpcServer, rpc_server
from support.waiting import until

pytestmark = pytest.mark.timeout(30)
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
async def test_a_call_has_its_result(kind: str) -> None:
    async with rpc_server(kind) as server, connect(server.url) as rpc:
        assert await rpc.call("echo", [1, {"a": "ü"}]) == [1, {"a": "ü"}]
        assert await rpc.call("echo") is None
        assert await rpc.call("null", []) is None


@each_kind
async def test_a_thousand_calls_at_once_each_have_their_own(kind: str) -> None:
    async with rpc_server(kind) as server, connect(server.url) as rpc:
        results = await asyncio.gather(*(rpc.call("echo", [n]) for n in range(1000)))
        assert results == [[n] for n in range(1000)]
        assert len(server.conns) == 1


async def test_it_can_be_awaited_and_closed_by_hand() -> None:
    async with rpc_server() as server:
        rpc = await connect(server.url)
        assert await rpc.call("echo", [1]) == [1]
        await rpc.close()
        await rpc.close()
        with pytest.raises(RpcClosed):
            await rpc.call("echo", [1])


async def test_an_error_is_the_server_s_own() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        with pytest.raises(RpcError) as caught:
            await rpc.call("fail", [7])
        assert (caught.value.code, caught.value.message, caught.value.data) == (-32000, "no", [7])
        assert await rpc.call("echo", [1]) == [1]


async def test_what_is_no_json_is_refused_and_harms_no_other_call() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        other = start(rpc.call("slow", [0.05]))
        with pytest.raises(SerializationError):
            await rpc.call("echo", [object()])
        assert await other == [0.05]


async def test_case_4_a_fast_call_does_not_wait_for_a_slow_one() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        slow = start(rpc.call("slow", [0.5]))
        assert await within(rpc.call("echo", [1]), 0.4) == [1]
        assert await slow == [0.5]


async def test_case_20_a_late_reply_reaches_nobody_else() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        with pytest.raises(CallTimeout) as caught:
            await rpc.call("slow", [0.1], timeout=0.02)
        assert (caught.value.method, caught.value.timeout) == ("slow", 0.02)
        assert isinstance(caught.value, TimeoutError)
        results = await asyncio.gather(*(rpc.call("slow", [0.15, n]) for n in range(5)))
        assert results == [[0.15, n] for n in range(5)]


async def test_case_20_nor_does_the_reply_to_a_cancelled_call_across_a_reconnect() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        task = start(rpc.call("slow", [0.1]))
        await until(lambda: server.times("slow") == 1)
        assert await cancelled(task)
        server.hang_up()
        assert await rpc.call("echo", ["own"], idempotent=True) == ["own"]
        await asyncio.sleep(0.15)
        assert await rpc.call("echo", ["other"]) == ["other"]


async def test_a_call_that_is_cancelled_before_there_is_a_connection_is_never_sent() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        await rpc.call("echo")
        server.hang_up()
        await asyncio.sleep(0.05)
        task = start(rpc.call("never"))
        await asyncio.sleep(0)
        assert await cancelled(task)
        assert await rpc.call("echo", [1]) == [1]
        assert server.times("never") == 0


async def test_more_calls_than_may_wait_are_refused_at_once() -> None:
    async with rpc_server() as server, connect(server.url, max_calls=2) as rpc:
        waiting = [start(rpc.call("slow", [0.1])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyCalls) as caught:
            await rpc.call("echo")
        assert (caught.value.pending, caught.value.limit) == (2, 2)
        await asyncio.gather(*waiting)
        assert await rpc.call("echo", [1]) == [1]
        assert server.times("echo") == 1


async def test_case_8_a_call_that_may_have_been_done_is_not_sent_again() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        task = start(rpc.call("never"))
        await until(lambda: server.times("never") == 1)
        server.hang_up()
        with pytest.raises(CallLost) as caught:
            await task
        assert (caught.value.method, caught.value.written) == ("never", True)
        assert await rpc.call("echo", [1]) == [1]
        assert server.times("never") == 1


@pytest.mark.parametrize("by_argument", [True, False])
async def test_an_idempotent_call_is_sent_again(by_argument: bool) -> None:
    async with rpc_server() as server:
        seen: list[Any] = []

        async def second_time(conn: Any, message: Any) -> None:
            seen.append(conn)
            if len(seen) == 1:
                conn.transport.abort()
            else:
                await server.reply(conn, message, "done")

        server.own["read"] = second_time
        async with connect(server.url, idempotent=() if by_argument else ["read"]) as rpc:
            assert await rpc.call("read", [1], idempotent=True if by_argument else None) == "done"
        assert seen[0] is not seen[1]


async def test_a_call_that_ends_every_connection_is_not_sent_for_ever() -> None:
    async with rpc_server() as server:

        async def poison(conn: Any, message: Any) -> None:
            conn.transport.abort()

        server.own["poison"] = poison
        async with connect(server.url) as rpc:
            with pytest.raises(CallLost):
                await rpc.call("poison", idempotent=True)
            assert server.times("poison") == 3


async def test_a_call_waits_for_a_server_that_comes_back() -> None:
    server = RpcServer()
    async with server.up():
        rpc = await connect(server.url)
        assert await rpc.call("echo", [1]) == [1]
    with pytest.raises(CallTimeout):
        await rpc.call("echo", [2], timeout=0.05)
    task = start(rpc.call("echo", [3]))
    await asyncio.sleep(0.05)
    async with server.up(port=server.port):
        assert await within(task) == [3]
        await rpc.close()
    assert [one["params"] for one in server.asked] == [[1], [3]]


async def test_the_deadline_is_kept_over_retries() -> None:
    async with rpc_server() as server:

        async def poison(conn: Any, message: Any) -> None:
            await asyncio.sleep(0.08)
            conn.transport.abort()

        server.own["poison"] = poison
        async with connect(server.url, reconnect_delays=lambda: iter([0.0] * 9)) as rpc:
            began = time.monotonic()
            with pytest.raises(CallTimeout):
                await rpc.call("poison", idempotent=True, timeout=0.2)
            assert time.monotonic() - began < 1


async def test_a_server_that_is_not_there_is_told_of_at_once() -> None:
    async with rpc_server() as server:
        url = server.url
    with pytest.raises(OSError, match="Connect"):
        await connect(url)


async def test_closing_ends_what_is_pending() -> None:
    async with rpc_server() as server:
        async with connect(server.url) as rpc:
            task = start(rpc.call("never"))
            await until(lambda: server.times("never") == 1)
        with pytest.raises(RpcClosed):
            await task


async def test_notifications_go_behind_calls_and_are_not_answered() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        first = start(rpc.call("echo", [1]))
        await asyncio.sleep(0)
        await rpc.notify("told", {"a": 1})
        await first
        await rpc.call("echo", [2])
        assert [one["method"] for one in server.asked] == ["echo", "told", "echo"]
        assert server.asked[1] == {"jsonrpc": "2.0", "method": "told", "params": {"a": 1}}


async def test_case_16_a_reply_beyond_the_limit_says_why_and_the_client_goes_on() -> None:
    async with rpc_server() as server:

        async def huge(conn: Any, message: Any) -> None:
            await server.reply(conn, message, "x" * 2_000_000)

        server.own["huge"] = huge
        async with connect(server.url) as rpc:
            with pytest.raises(CallLost) as caught:
                await rpc.call("huge")
            assert caught.value.sent is not None
            assert caught.value.sent.code == 1009
            assert await rpc.call("echo", [1]) == [1]


@each_kind
async def test_replies_out_of_order_doubled_foreign_and_no_json_confuse_nobody(kind: str) -> None:
    async with rpc_server(kind) as server:
        kept: list[Any] = []

        async def chaos(conn: Any, message: Any) -> None:
            kept.append(message)
            if len(kept) < 20:
                return
            for text in (
                "no json",
                "[]",
                "7",
                '{"id":99999,"result":1}',
                '{"id":null,"error":{"code":1}}',
                '{"id":"1"}',
            ):
                await conn.send(text)
            await conn.send(b"\xff\xfe")
            for one in reversed(kept):
                await server.reply(conn, one, one["params"])
                await server.reply(conn, one, "again")
            await conn.send(json.dumps([server.result(one, "and again") for one in kept]))

        server.own["chaos"] = chaos
        async with connect(server.url) as rpc:
            assert await asyncio.gather(*(rpc.call("chaos", [n]) for n in range(20))) == [[n] for n in range(20)]
            assert await rpc.call("echo", ["after"]) == ["after"]


async def test_what_the_server_asks_is_answered_by_the_handler() -> None:
    async def handler(method: str, params: Any) -> Any:
        if method == "refuse":
            raise RpcError(7, "not me")
        if method == "break":
            raise ZeroDivisionError
        return [method, params]

    async with rpc_server() as server, connect(server.url, on_request=handler) as rpc:
        await rpc.call("echo")
        for number, method in enumerate(["add", "refuse", "break"]):
            request = {"jsonrpc": "2.0", "id": f"s{number}", "method": method, "params": [1]}
            await server.conns[0].send(json.dumps(request))
        await until(lambda: len(server.frames) == 4)
        answers = {one["id"]: one for one in server.asked[1:]}
        assert answers["s0"]["result"] == ["add", [1]]
        assert answers["s1"]["error"] == {"code": 7, "message": "not me"}
        assert answers["s2"]["error"]["code"] == -32603


async def test_what_the_server_asks_is_unknown_without_a_handler() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        await rpc.call("echo")
        await server.conns[0].send('{"jsonrpc":"2.0","id":1,"method":"add"}')
        await until(lambda: len(server.frames) == 2)
        assert server.frames[1]["error"]["code"] == -32601
        assert await rpc.call("echo", [1]) == [1]


@pytest.mark.parametrize(
    "options",
    [{"protocol": "soap"}, {"max_calls": 0}, {"idempotent": "echo"}],
    ids=["protocol", "max_calls", "idempotent"],
)
def test_a_wrong_argument_is_told_of_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        connect("ws://localhost", **options)
