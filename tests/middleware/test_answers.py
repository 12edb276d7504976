"""Calls through the middleware, and a cache that raises, hangs or is bypassed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from penstock import MessageCache, RpcError
from penstock.manager.switch import Mode, Stage
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

    async with rpc_server() as server, piped(fallback=QUICK, sending={"idle_time": 0.02}) as pipe:
        rpc = pipe.rpc(server.url)
        with monkeypatch.context() as patch:
            patch.setattr(MessageCache, "get_or_load", broken)
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
