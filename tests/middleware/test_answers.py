"""Calls through the middleware, and a cache that raises, hangs or is bypassed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from penstock import CacheConfig, CallTimeout, MessageCache, PerformanceManager, RpcError
from penstock.cache.leads import Leads
from penstock.manager.switch import Mode, Stage
from penstock.middleware.answers import Answers
from penstock.protocols.policy import CachePolicy
from support.ends import cancelled, start, within
from support.pipes import piped
from support.rpcserver import rpc_server
from support.waiting import until

QUICK = {"probe_after": 0.1, "stage_timeout": 0.1}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "penstock")


async def test_calls_share_connections_and_answers() -> None:
    async with rpc_server() as server, piped() as pipe:
        rpc = pipe.rpc(server.url)
        assert pipe.rpc(server.url) is rpc
        assert await rpc.call("echo", [1]) == [1]
        for _ in range(10):
            assert await rpc.call("echo", ["kept"], ttl=60) == ["kept"]
        assert server.times("echo") == 2
        stats = pipe.stats()
        assert stats.cache is not None
        assert (stats.cache.hits, stats.cache.misses) == (9, 1)


async def test_a_callers_mistake_is_no_failure_of_the_cache() -> None:
    async with rpc_server() as server, piped(fallback={"failures": 1}) as pipe:
        rpc = pipe.rpc(server.url)
        with pytest.raises(ValueError, match="ttl='60'"):
            await rpc.call("echo", ttl="60")
        assert pipe.manager.mode(server.url)[Stage.CACHE] is Mode.OPTIMIZED


async def test_with_the_cache_turned_off_calls_that_say_a_ttl_ask_the_server() -> None:
    async with rpc_server() as server, piped(sections={"cache": CacheConfig(enabled=False)}) as pipe:
        rpc = pipe.rpc(server.url, policy=CachePolicy({"echo": 60}))
        for _ in range(3):
            assert await rpc.call("echo", [1], ttl=60) == [1]
            assert await rpc.call("echo", [1]) == [1]
        with pytest.raises(RpcError):
            await rpc.call("fail", ttl=60)
        assert server.times("echo") == 6
        assert pipe.stats().cache is None


async def test_other_options_make_another_client() -> None:
    async with rpc_server() as server, piped() as pipe:
        assert pipe.rpc(server.url) is not pipe.rpc(server.url, max_calls=5)
        with pytest.raises(ValueError, match="protocol='soap'"):
            pipe.rpc(server.url, "soap")  # type: ignore[call-overload]


@pytest.mark.parametrize("kind", ["raises", "hangs"])
async def test_a_cache_that_fails_is_passed_by_and_comes_back(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> Any:
        if kind == "raises":
            raise RuntimeError("injected")
        await asyncio.Event().wait()

    def broken_get(*_: Any, **__: Any) -> Any:
        raise RuntimeError("injected")

    def no_lead(*_: Any, **__: Any) -> None:
        return None

    async with rpc_server() as server, piped(fallback=QUICK, sending={"idle_time": 0.02}) as pipe:
        rpc = pipe.rpc(server.url)
        with monkeypatch.context() as patch:
            patch.setattr(MessageCache, "get_or_load", broken)
            patch.setattr(Leads, "ask", broken_get if kind == "raises" else no_lead)
            if kind == "raises":
                patch.setattr(MessageCache, "find", broken_get)
            for number in range(4):
                assert await rpc.call("echo", [number], ttl=60) == [number]
            assert pipe.manager.mode(server.url)[Stage.CACHE] is Mode.BYPASSED
        await until(lambda: pipe.manager.mode(server.url)[Stage.CACHE] is Mode.PROBING)
        for _ in range(15):
            assert await rpc.call("echo", ["x"], ttl=60) == ["x"]
        assert pipe.manager.mode(server.url)[Stage.CACHE] is Mode.OPTIMIZED


async def test_errors_of_the_server_are_not_the_caches() -> None:
    async with rpc_server() as server, piped(fallback={"failures": 1}) as pipe:
        rpc = pipe.rpc(server.url)
        results = await asyncio.gather(*(rpc.call("fail", ["same"], ttl=60) for _ in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [RpcError] * 5
        assert pipe.manager.mode(server.url)[Stage.CACHE] is Mode.OPTIMIZED


async def test_a_slow_server_is_not_a_slow_cache() -> None:
    async with rpc_server() as server, piped(fallback={"failures": 1, "stage_timeout": 0.05}) as pipe:
        rpc = pipe.rpc(server.url)
        results = await asyncio.gather(*(rpc.call("slow", [0.3], ttl=60) for _ in range(3)))
        assert len(results) == 3
        assert server.times("slow") == 1
        assert pipe.manager.failures[Stage.CACHE] == 0


async def test_bypassed_by_hand_every_call_asks_the_server() -> None:
    async with rpc_server() as server, piped() as pipe:
        rpc = pipe.rpc(server.url)
        await rpc.call("echo", [1], ttl=60)
        pipe.manager.bypass("cache")
        for _ in range(3):
            await rpc.call("echo", [1], ttl=60)
        assert server.times("echo") == 4


async def test_calls_go_on_with_the_pool_bypassed() -> None:
    async with rpc_server() as server, piped() as pipe:
        pipe.manager.bypass("pool")
        assert await pipe.rpc(server.url).call("echo", [1]) == [1]
        assert pipe.stats().pool.opened == 0


# Without a task


async def test_those_who_ask_at_a_time_share_one_call_that_needs_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    async with rpc_server() as server, piped() as pipe:
        rpc = pipe.rpc(server.url)
        await rpc.open()

        async def needs_a_task(*_: Any, **__: Any) -> None:
            raise AssertionError

        monkeypatch.setattr(MessageCache, "get_or_load", needs_a_task)
        assert await asyncio.gather(*(rpc.call("slow", [0.02], ttl=60) for _ in range(5))) == [[0.02]] * 5
        assert await rpc.call("slow", [0.02], ttl=60) == [0.02]
        assert server.times("slow") == 1
        stats = pipe.stats().cache
        assert stats is not None
        assert (stats.hits, stats.misses, stats.coalesced, stats.loads) == (1, 5, 4, 1)
        assert (rpc.stats().cached, rpc.stats().coalesced, rpc.stats().in_flight) == (1, 4, 0)
        assert pipe.manager.failures[Stage.CACHE] == 0


async def test_a_leader_that_is_cancelled_or_late_leaves_the_call_to_the_others() -> None:
    async with rpc_server() as server, piped() as pipe:
        rpc = pipe.rpc(server.url)
        await rpc.open()
        leader, stays, late = (start(rpc.call("slow", [0.2], ttl=60, timeout=timeout)) for timeout in (5, 5, 0.02))
        await until(lambda: server.times("slow") == 1)
        assert await cancelled(leader)
        with pytest.raises(CallTimeout):
            await late
        assert await within(stays) == [0.2]
        alone = start(rpc.call("never", ttl=60))
        await until(lambda: server.times("never") == 1)
        assert await cancelled(alone)
        assert rpc.stats().in_flight == 0
        again = start(rpc.call("never", ttl=60))
        await until(lambda: server.times("never") == 2)
        assert await cancelled(again)


@pytest.mark.parametrize("method", ["ask", "land"])
async def test_a_call_is_answered_though_the_cache_fails(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("injected")

    async with rpc_server() as server, piped() as pipe:
        rpc = pipe.rpc(server.url)
        await rpc.open()
        with monkeypatch.context() as patch:
            patch.setattr("penstock.cache.loads.Loads." + {"ask": "lead", "land": "land"}[method], broken)
            if method == "land":
                patch.setattr("penstock.cache.loads.Loads.ask", broken)
            assert await within(rpc.call("echo", [1], ttl=60)) == [1]
        assert pipe.manager.failures[Stage.CACHE] == 1
        assert server.times("echo") == 1


@pytest.mark.parametrize("method", ["land", "fail"])
async def test_nobody_waits_for_a_call_at_whose_end_the_cache_failed(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("injected")

    asked = {"land": "echo", "fail": "fail"}[method]
    async with rpc_server() as server, piped() as pipe:
        rpc = pipe.rpc(server.url)
        await rpc.open()
        with monkeypatch.context() as patch:
            patch.setattr(f"penstock.cache.loads.Loads.{method}", broken)
            calls = [rpc.call(asked, [1], ttl=60) for _ in range(3)]
            first = await within(asyncio.gather(*calls, return_exceptions=True))
        calls = [rpc.call(asked, [1], ttl=60) for _ in range(3)]
        assert list(map(str, await within(asyncio.gather(*calls, return_exceptions=True)))) == list(map(str, first))
        assert server.times(asked) == 2
        assert pipe.manager.failures[Stage.CACHE] == 1


@pytest.mark.parametrize("kind", ["raises", "hangs"])
async def test_a_cache_that_fails_with_the_answer_in_its_hands_has_the_call_sent_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(_: Any, key: Any, loader: Any, *__: Any) -> None:
        await loader()
        if kind == "raises":
            raise RuntimeError("injected")
        await asyncio.Event().wait()

    async with rpc_server() as server, piped(fallback=QUICK) as pipe:
        rpc = pipe.rpc(server.url)
        monkeypatch.setattr(MessageCache, "get_or_load", broken)
        monkeypatch.setattr(Leads, "ask", lambda *_, **__: None)
        assert await within(rpc.call("echo", [1], ttl=60)) == [1]
        assert server.times("echo") == 1
        assert pipe.manager.failures[Stage.CACHE] == 1


async def test_samples_take_the_plain_way_and_the_others_do_not() -> None:
    async with rpc_server() as server, piped(fallback={"sample_every": 3}) as pipe:
        rpc = pipe.rpc(server.url)
        await rpc.open()
        for _ in range(6):
            assert await rpc.call("echo", ["same"], ttl=60) == ["same"]
        assert server.times("echo") == 2  # the first, and the third, which takes the plain way


async def test_a_sample_that_is_due_is_not_led() -> None:
    async with rpc_server() as server, piped(fallback={"sample_every": 3}) as pipe:
        rpc = pipe.rpc(server.url)
        await rpc.open()
        for number in (1, 2, 3, 4, 1, 2, 4):
            assert await rpc.call("echo", [number], ttl=60) == [number]
        assert server.times("echo") == 4
        await rpc.call("echo", [3], ttl=60)  # which went the plain way
        assert server.times("echo") == 5


async def test_when_a_lead_is_cancelled_the_server_is_not_asked_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    async with rpc_server() as server, piped(fallback={"stage_timeout": 0.02}) as pipe:
        rpc = pipe.rpc(server.url)
        await rpc.open()
        alone = start(rpc.call("slow", [0.1], ttl=60))
        await until(lambda: server.times("slow") == 1)
        assert await cancelled(alone)
        monkeypatch.setattr(MessageCache, "get_or_load", hangs)
        monkeypatch.setattr(Leads, "ask", lambda *_, **__: None)
        assert await within(rpc.call("slow", [0.1], ttl=60)) == [0.1]
        assert pipe.manager.failures[Stage.CACHE] == 1


async def test_a_slow_server_that_is_asked_without_a_task_is_not_a_slow_cache() -> None:
    manager, cache, loop = PerformanceManager(sample_every=0), MessageCache(), asyncio.get_running_loop()
    answers = Answers(cache, manager, "ws://a", 0.01)
    waiter = loop.create_future()
    flight = answers.leads.ask("key", 60, waiter)
    assert flight is not None
    flight.task = loop.create_future()

    async def never() -> bytes:
        raise AssertionError

    joined = start(answers.get_or_load("key", never, 60))
    await asyncio.sleep(0.05)  # far more than the cache's time
    assert not joined.done()
    answers.leads.land(flight, b"1")
    assert await within(joined) == b"1"
    await waiter
    assert manager.failures[Stage.CACHE] == 0
    assert await answers.get_or_load("key", never, 60) == b"1"


async def test_bypassed_nothing_is_led() -> None:
    manager = PerformanceManager(sample_every=0)
    answers = Answers(MessageCache(), manager, "ws://a", 1.0)
    manager.bypass("cache")
    assert answers.leads.ask("key", 60, asyncio.get_running_loop().create_future()) is None
