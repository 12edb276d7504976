"""One call for all who ask for the same, whatever becomes of the one who was first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import (
    CallLost,
    CallTimeout,
    ConnectionPool,
    ConnectionPoolConfig,
    MessageCache,
    Rpc,
    RpcClosed,
    RpcError,
    SerializationError,
    TooManyCalls,
)
from penstock.rpc import connect
from support.ends import cancelled, start, within
from support.pools import free
from support.rpcserver import RpcServer, rpc_server
from support.waiting import until

pytestmark = pytest.mark.timeout(30)


class Gated:
    """A server that answers ``gated`` when it may, as it is told; and a client with a cache."""

    def __init__(self, server: RpcServer, rpc: Any, cache: MessageCache) -> None:
        self.server, self.rpc, self.cache = server, rpc, cache
        self.gate = asyncio.Event()
        self.answer: Callable[[Any, Any], Awaitable[None]] = self.echo
        server.own["gated"] = self._gated

    async def echo(self, conn: Any, message: Any) -> None:
        await self.server.reply(conn, message, message["params"])

    async def null(self, conn: Any, message: Any) -> None:
        await self.server.reply(conn, message, None)

    async def refuse(self, conn: Any, message: Any) -> None:
        await conn.send(f'{{"jsonrpc":"2.0","id":{message["id"]},"error":{{"code":7,"message":"no"}}}}')

    async def _gated(self, conn: Any, message: Any) -> None:
        await self.gate.wait()
        await self.answer(conn, message)

    def call(self, timeout: float | None = 10.0, params: Any = (1,)) -> asyncio.Task[Any]:
        return start(self.rpc.call("gated", params, ttl=60, timeout=timeout))

    async def arrived(self, times: int = 1) -> None:
        await until(lambda: self.times == times)

    @property
    def times(self) -> int:
        return self.server.times("gated")


@asynccontextmanager
async def gated(**options: Any) -> AsyncIterator[Gated]:
    cache = MessageCache()
    async with rpc_server() as server, connect(server.url, cache=cache, **options) as rpc:
        await rpc.open()
        yield Gated(server, rpc, cache)


async def test_cancelling_the_first_leaves_the_call_to_the_others() -> None:
    async with gated() as it:
        first, second = it.call(), it.call()
        await it.arrived()
        assert await cancelled(first)
        third = it.call()
        it.gate.set()
        assert await second == await third == await it.call() == [1]
        assert it.times == 1
        stats = it.rpc.stats()
        assert (stats.answered, stats.coalesced, stats.cached, stats.in_flight) == (1, 2, 1, 0)


async def test_each_has_its_own_time_and_the_first_one_s_is_not_the_others() -> None:
    async with gated() as it:
        first, second, third = it.call(timeout=0.05), it.call(), it.call(timeout=0.06)
        await it.arrived()
        for late in (first, third):
            with pytest.raises(CallTimeout):
                await late
        assert it.rpc.stats().timeouts == 2
        it.gate.set()
        assert await second == [1]
        assert await it.call() == [1]
        assert it.times == 1


@pytest.mark.parametrize("timeout", [10.0, 0.05])
async def test_what_nobody_waits_for_any_more_is_forgotten_and_asked_anew(timeout: float) -> None:
    async with gated() as it:
        calls = [it.call(timeout=timeout) for _ in range(2)]
        await it.arrived()
        for call in calls:
            if timeout == 10.0:
                assert await cancelled(call)
            else:
                with pytest.raises(CallTimeout):
                    await call
        await until(lambda: it.rpc.stats().in_flight == 0)
        again = it.call()
        await it.arrived(2)
        it.gate.set()
        assert await again == [1]
        await until(lambda: it.rpc.stats().late == 1)
        assert it.cache.get_cache_stats().loads == 2


async def test_an_answer_from_before_an_invalidation_is_given_and_not_kept() -> None:
    async with gated() as it:
        before = it.call()
        await it.arrived()
        it.cache.invalidate(prefix="")
        after = it.call()
        await it.arrived(2)
        it.gate.set()
        assert await before == await after == [1]
        assert len(it.cache) == 1
        it.gate.clear()
        unkept = it.call(params=(2,))
        await it.arrived(3)
        it.cache.clear()
        it.gate.set()
        assert await unkept == [2]
        assert len(it.cache) == 0


async def test_an_error_is_everybody_s_and_is_not_kept() -> None:
    async with gated() as it:
        it.answer = it.refuse
        calls = [it.call() for _ in range(3)]
        await it.arrived()
        it.gate.set()
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in errors] == [RpcError] * 3
        assert (it.rpc.stats().errors, it.rpc.stats().coalesced, it.times, len(it.cache)) == (1, 0, 1, 0)
        it.answer = it.echo
        assert await it.call() == [1]


async def test_an_answer_that_may_not_be_kept_is_everybody_s_who_waits() -> None:
    async with gated() as it:
        it.answer = it.null
        calls = [it.call() for _ in range(3)]
        await it.arrived()
        it.gate.set()
        assert await asyncio.gather(*calls) == [None] * 3
        assert (it.times, len(it.cache), it.cache.get_cache_stats().load_errors) == (1, 0, 0)
        assert it.rpc.stats().coalesced == 2
        assert await it.call() is None
        assert it.times == 2


async def test_what_was_lost_is_sent_again_for_whoever_waits_if_it_may_be() -> None:
    async with gated(idempotent=["gated"]) as it:
        first, second = it.call(), it.call()
        await it.arrived()
        it.server.hang_up()
        await it.arrived(2)
        assert await cancelled(first)
        it.gate.set()
        assert await second == [1]
        assert (it.rpc.stats().retried, it.times, it.rpc.stats().in_flight, len(it.cache)) == (1, 2, 0, 1)


async def test_what_is_sent_again_and_wanted_no_more_is_forgotten() -> None:
    async with gated(idempotent=["gated"]) as it:
        call = it.call()
        await it.arrived()
        it.server.hang_up()
        await it.arrived(2)
        assert await cancelled(call)
        await until(lambda: it.rpc.stats().in_flight == 0)


async def test_what_was_lost_for_good_is_lost_to_everybody() -> None:
    async with gated() as it:
        calls = [it.call() for _ in range(2)]
        await it.arrived()
        it.server.hang_up()
        assert [type(one) for one in await asyncio.gather(*calls, return_exceptions=True)] == [CallLost] * 2
        assert (it.rpc.stats().lost, it.rpc.stats().in_flight) == (1, 0)


async def test_closing_ends_it_for_everybody() -> None:
    async with gated() as it:
        calls = [it.call() for _ in range(2)]
        await it.arrived()
        await it.rpc.close()
        assert [type(one) for one in await asyncio.gather(*calls, return_exceptions=True)] == [RpcClosed] * 2
        assert it.rpc.stats().in_flight == 0


async def test_what_cannot_be_sent_leaves_nothing_behind() -> None:
    async with gated() as it:
        for _ in range(2):
            with pytest.raises(SerializationError, match="neither an array nor an object"):
                await it.call(params=5)
        assert (it.rpc.stats().in_flight, it.times, it.cache._store.loads) == (0, 0, {})


async def test_one_who_only_waits_for_another_s_call_is_not_refused() -> None:
    async with gated(max_calls=1) as it:
        first, second = it.call(), it.call()
        await it.arrived()
        with pytest.raises(TooManyCalls):
            await it.call(params=(2,))
        it.gate.set()
        assert await first == await second == [1]
        assert it.times == 1


async def test_one_who_asks_the_cache_itself_waits_with_the_others() -> None:
    async with gated() as it:
        call = it.call()
        await it.arrived()
        (key,) = it.cache._store.loads
        asking = start(it.cache.get_or_load(key, lambda: pytest.fail("it is loaded already")))
        await asyncio.sleep(0)
        assert await cancelled(call)
        it.gate.set()
        assert await asking == b"[1]"


async def test_who_gives_up_from_another_thread_when_the_answer_has_come_ends_nothing() -> None:
    async with gated() as it:
        call = it.call()
        await it.arrived()
        (flight,) = it.cache._loads._flights.values()
        lead = flight.task
        assert lead is not None
        it.gate.set()
        assert await call == [1]
        lead.cancel()
        assert (it.rpc.stats().in_flight, it.rpc.stats().late) == (0, 0)
        assert await it.call() == [1]
        assert it.times == 1


async def test_the_connection_of_a_call_whose_answer_is_kept_goes_back_to_its_pool() -> None:
    config = ConnectionPoolConfig(min_connections=0)
    async with (
        rpc_server() as server,
        ConnectionPool(config) as pool,
        Rpc(pool, server.url, cache=MessageCache()) as rpc,
    ):
        await rpc.open()
        assert await rpc.call("echo", [1], ttl=60) == [1]
        assert await cancelled(start(rpc.call("never", ttl=60)))
        await until(lambda: free(pool))


async def test_what_cannot_be_sent_leaves_no_load_behind() -> None:
    class Unsendable:
        name = "unsendable"

        def send(self, link: Any, owner: Any) -> Any:
            raise SerializationError("too long", "send less")

        def may_keep(self, answer: Any) -> bool:
            raise AssertionError

    async with gated() as it:
        for _ in range(2):  # the second does not wait for the first
            with pytest.raises(SerializationError):
                await within(it.rpc._leading.load("key", Unsendable(), 60, 5))
        assert it.cache.get_cache_stats().load_errors == 2
        assert it.rpc.stats().in_flight == 0


@pytest.mark.parametrize("timeout", [0.05, None])
async def test_closing_ends_the_calls_of_those_who_wait_for_another_client_s(timeout: float | None) -> None:
    async with gated() as it:
        others = it.call(timeout=None)
        await it.arrived()
        async with connect(it.server.url, cache=it.cache) as rpc:
            call = start(rpc.call("gated", (1,), ttl=60, timeout=timeout))
            await until(lambda: it.cache.get_cache_stats().coalesced == 1)
        with pytest.raises(RpcClosed):
            await within(call)
        assert rpc.stats().timeouts == 0
        it.gate.set()
        assert await within(others) == [1]
        assert it.times == 1


@pytest.mark.parametrize("has_link", [True, False])
async def test_when_the_client_is_closed_whose_call_it_is_another_that_waits_for_it_calls_itself(
    has_link: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with gated() as it, connect(it.server.url, cache=it.cache) as rpc:
        if not has_link:  # as on another event loop
            monkeypatch.setattr(it.cache.leads, "ask", lambda *_, **__: None)
        first = it.call()
        await it.arrived()
        second = start(rpc.call("gated", (1,), ttl=60))
        late = start(rpc.call("gated", (1,), ttl=60, timeout=0.2))
        await until(lambda: it.cache.get_cache_stats().coalesced == 2)
        await it.rpc.close()
        with pytest.raises(RpcClosed):
            await first
        await it.arrived(2)
        with pytest.raises(CallTimeout, match=r"0\.2"):
            await within(late)
        it.gate.set()
        assert await within(second) == [1]
        assert it.times == 2
        assert rpc.stats().in_flight == 0
