"""Servers and callers that behave badly, or are only unlucky."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import pytest

from penstock import CallTimeout, Gap, MessageCache, RpcError, SerializationError
from penstock.protocols.calls import Frame
from penstock.protocols.jsonrpc import JsonRpc
from penstock.protocols.policy import CachePolicy
from penstock.rpc import connect
from penstock.rpc.identity import identity_of
from penstock.rpc.link import Link
from penstock.rpc.pacing import STEADY, Pace
from support.ends import cancelled, start, steps, within
from support.rpcserver import rpc_server
from support.waiting import until

pytestmark = pytest.mark.timeout(30)


class Stuck:
    """A connection whose socket takes nothing until it is told to, or takes what it is given wrongly."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.sent: list[str] = []
        self.error: Exception | None = None
        self.room = 0
        """Texts that it takes before it waits."""

    def offer(self, texts: Sequence[str]) -> int:
        taken = texts[: self.room]
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    async def send(self, message: str) -> None:
        await self.gate.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.sent.append(message)

    async def recv_many(self, max: int | None = None) -> Sequence[str]:  # noqa: A002
        await asyncio.Event().wait()
        raise AssertionError

    def fail(self, code: int, reason: str) -> None:
        raise AssertionError


class Keeper:
    """Owns a link, and keeps what could not be sent."""

    def __init__(self) -> None:
        self.unsent_calls: list[Any] = []

    def due(self, link: Link[JsonRpc]) -> Sequence[Frame]:
        return link.rpc.due(lambda: 0.5)

    def take(self, link: Link[JsonRpc], message: Any) -> None:
        raise AssertionError

    def unsent(self, link: Link[JsonRpc], call: Any, exc: Exception) -> None:
        self.unsent_calls.append((call, exc))

    def lost(self, link: Link[JsonRpc], exc: Any) -> None:
        link.rpc.lost()


async def test_a_call_that_is_given_up_behind_a_full_socket_is_not_sent_and_leaves_no_tombstone() -> None:
    wire = Stuck()
    link = Link(wire, JsonRpc(), Keeper())
    calls = [link.rpc.add(method, now=0) for method in ("first", "second", "third")]
    link.wake()
    await steps(3)
    link.rpc.forget(calls[1], now=0)
    wire.gate.set()
    await steps(5)
    assert [text.split('"method":"')[1][:5] for text in wire.sent] == ["first", "third"]
    assert link.rpc.stats().forgotten == 0
    assert link.rpc.stats().sent == 2
    await link.stop()


async def test_a_call_that_cannot_be_sent_is_told_and_leaves_no_tombstone() -> None:
    wire, keeper = Stuck(), Keeper()
    link = Link(wire, JsonRpc(), keeper)
    wire.error = SerializationError("too long", "send less")
    bad, good = link.rpc.add("bad", now=0), link.rpc.add("good", now=0)
    link.wake()
    wire.gate.set()
    await steps(5)
    assert [call for call, _ in keeper.unsent_calls] == [bad]
    assert (link.rpc.stats().forgotten, link.rpc.stats().sent) == (0, 1)
    assert good.written
    await link.stop()


async def test_null_is_not_kept_by_a_cache_that_keeps_failures() -> None:
    cache = MessageCache(negative_ttl={Exception: 60})
    async with rpc_server() as server, connect(server.url, cache=cache) as rpc:
        for _ in range(2):
            assert await rpc.call("null", ttl=60) is None
        assert server.times("null") == 2
        assert cache.get_cache_stats().load_errors == 0


async def test_case_19_a_leader_that_is_cancelled_ends_no_follower_and_the_last_ends_the_call() -> None:
    async with rpc_server() as server, connect(server.url, cache=MessageCache()) as rpc:
        leader, follower = (start(rpc.call("slow", [0.1], ttl=60)) for _ in range(2))
        await until(lambda: server.times("slow") == 1)
        assert await cancelled(leader)
        assert await within(follower) == [0.1]
        alone = start(rpc.call("never", ttl=60))
        await until(lambda: server.times("never") == 1)
        assert await cancelled(alone)
        await until(lambda: rpc.stats().in_flight == 0)


async def test_an_error_reaches_all_who_wait_and_is_asked_for_again() -> None:
    async with rpc_server() as server, connect(server.url, cache=MessageCache()) as rpc:
        for _ in range(2):
            results = await asyncio.gather(*(rpc.call("fail", [1], ttl=60) for _ in range(3)), return_exceptions=True)
            assert all(isinstance(one, RpcError) for one in results)
        assert server.times("fail") == 2


async def test_a_client_keeps_no_context_of_the_caller_who_needed_its_connection() -> None:
    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    seen: list[str] = []

    async def handler(method: str, params: Any) -> Any:
        seen.append(whose.get())

    async with rpc_server() as server:
        whose.set("the caller's")
        async with connect(server.url, on_request=handler) as rpc:
            await rpc.call("echo")
            await server.conns[0].send('{"id":1,"method":"ask"}')
            await until(lambda: bool(seen))
    assert seen == ["nobody's"]


async def test_who_waits_for_a_confirmation_waits_no_longer_than_it_says() -> None:
    async with rpc_server() as server, connect(server.url) as rpc:
        with pytest.raises(CallTimeout) as caught:
            async with rpc.subscribe("never", unsubscribe="unnever", timeout=0.05):
                pass
        assert (caught.value.method, caught.value.timeout) == ("never", 0.05)
        assert rpc.stats().subscriptions == 0


async def test_nor_if_each_connection_is_lost_meanwhile() -> None:
    async with rpc_server() as server:

        async def poison(conn: Any, message: Any) -> None:
            conn.transport.abort()

        server.own["subscribe"] = poison
        async with connect(server.url) as rpc:
            with pytest.raises(CallTimeout):
                async with rpc.subscribe("subscribe", timeout=0.3):
                    pass
            assert server.times("subscribe") < 10


async def test_a_server_that_hangs_up_on_everybody_is_asked_ever_less() -> None:
    async with rpc_server() as server, connect(server.url) as rpc, rpc.subscribe("subscribe") as events:

        async def poison(conn: Any, message: Any) -> None:
            conn.transport.abort()

        server.own["subscribe"] = poison
        began = server.times("subscribe")
        server.hang_up()
        await asyncio.sleep(1)
        assert 1 <= server.times("subscribe") - began <= 8
        del server.own["subscribe"]
        assert await within(anext(events)) == Gap("reconnected")


def test_delays_grow_until_a_connection_has_lasted() -> None:
    pace = Pace(lambda: iter([1.0, 2.0, 3.0]))
    assert pace.before() == 0
    pace.lost(STEADY / 2)
    assert (pace.before(), pace.before()) == (1.0, 0.0)
    assert pace.after_failure() == 2.0
    pace.lost(STEADY)
    assert pace.before() == 0
    assert [pace.after_failure() for _ in range(4)] == [1.0, 2.0, 3.0, None]
    pace.lost(0)
    assert pace.before() == 0


async def test_equal_subscriptions_are_shared_where_they_say_so() -> None:
    async with (
        rpc_server() as server,
        connect(server.url) as rpc,
        rpc.subscribe("subscribe", ["a"], share=True) as one,
        rpc.subscribe("subscribe", ["a"], share=True) as two,
        rpc.subscribe("subscribe", ["b"], share=True),
        rpc.subscribe("subscribe", ["a"]),
    ):
        assert len(server.subs) == 3
        await server.emit("shared", to=0)
        assert [await within(anext(one)), await within(anext(two))] == ["shared", "shared"]
        one.close()
        await server.emit("on", to=0)
        assert await within(anext(two)) == "on"
        assert server.times("unsubscribe") == 0
        server.hang_up()
        assert await within(anext(two)) == Gap("reconnected")


async def test_a_consumer_of_a_shared_one_has_events_of_its_own() -> None:
    async with (
        rpc_server() as server,
        connect(server.url) as rpc,
        rpc.subscribe("subscribe", share=True) as one,
        rpc.subscribe("subscribe", share=True) as two,
    ):
        await server.emit([1])
        (await within(anext(one))).append("changed")
        assert await within(anext(two)) == [1]


def test_who_shows_another_certificate_is_another() -> None:
    one, two = (ssl.create_default_context() for _ in range(2))
    url = "wss://localhost"
    assert identity_of(url, {"ssl": one}, "") == identity_of(url, {"ssl": one}, "")
    assert identity_of(url, {"ssl": one}, "") != identity_of(url, {"ssl": two}, "")
    assert identity_of(url, {"ssl": one}, "me") == identity_of(url, {"ssl": two}, "me")
    assert identity_of(url, {}, "me") != identity_of(url, {}, "you")
    assert identity_of(url, {"additional_headers": {"a": "b"}}, "") != identity_of(url, {}, "")


async def test_case_17_what_no_python_can_hold_is_told_to_its_caller_alone() -> None:
    async with rpc_server() as server:

        async def deep(conn: Any, message: Any) -> None:
            await conn.send(f'{{"id":{message["id"]},"result":{"[" * 100_000}{"]" * 100_000}}}')

        async def broken(conn: Any, message: Any) -> None:
            await conn.send(b'{"id":%d,"result":1}' % message["id"])

        server.own |= {"deep": deep, "broken": broken}
        async with connect(server.url) as rpc:
            deep_call, other = start(rpc.call("deep", timeout=0.5)), start(rpc.call("echo", [1]))
            assert await other == [1]
            with pytest.raises((CallTimeout, ValueError)):
                await deep_call
            assert await rpc.call("broken") == 1


async def test_a_rule_that_gives_no_seconds_is_told_of_and_nothing_is_sent() -> None:
    policy = CachePolicy({"echo": lambda params: float("nan")})
    async with rpc_server() as server, connect(server.url, cache=MessageCache(), policy=policy) as rpc:
        with pytest.raises(ValueError, match="echo"):
            await rpc.call("echo")
        assert server.times("echo") == 0
