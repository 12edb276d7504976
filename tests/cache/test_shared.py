"""Caches that share a server, each over a connection of its own, as another process would have it."""

from __future__ import annotations

import asyncio
import re
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock import MessageCache, SerializationError, SharedTier
from support.certificates import authority
from support.redisserver import RedisServer, redis_server
from support.waiting import until


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


@asynccontextmanager
async def sharing(server: RedisServer, count: int = 2, **options: Any) -> AsyncIterator[list[MessageCache]]:
    tiers = [SharedTier(server.url, timeout=1.0) for _ in range(count)]
    caches = [MessageCache(shared=tier, **options) for tier in tiers]
    for tier in tiers:
        await tier.__aenter__()
    try:
        yield caches
    finally:
        for tier in tiers:
            await tier.close()


def tier_of(cache: MessageCache) -> SharedTier:
    assert cache._shared is not None
    return cache._shared


async def confirmed(*caches: MessageCache) -> None:
    """Everybody has told everything, and has heard of everything."""
    for cache in caches:
        assert await tier_of(cache).flush()
    for cache in caches:  # invalidations come before the answer to a later question
        link = tier_of(cache)._writes.link
        assert link is not None
        await link.ask(("PING",))
        await link.ask(("PING",))


def never() -> Any:
    raise AssertionError("it was loaded")


async def test_what_one_process_has_loaded_the_others_find(server: RedisServer) -> None:
    async with sharing(server) as (one, other):
        assert await one.get_or_load(("block", 17), lambda: {"number": 17}, tags=["blocks"]) == {"number": 17}
        await confirmed(one)
        assert await other.get_or_load(("block", 17), never) == {"number": 17}
        assert other.get(("block", 17)) == {"number": 17}
        entry = other.peek(("block", 17))
        assert entry is not None
        assert entry.tags == ("blocks",)
        assert 299 < entry.expires_in <= 300
        stats = other.get_cache_stats().shared
        assert stats is not None
        assert (stats.hits, stats.misses, stats.is_up) == (1, 0, True)
        assert await other.get_or_load(("block", 17), never, ttl=5) == {"number": 17}


async def test_a_value_is_fresh_for_no_longer_than_whoever_stored_it_or_asks_for_it_says(server: RedisServer) -> None:
    async with sharing(server) as (one, other):
        one.set("a", 1)
        await confirmed(one)
        assert await other.get_or_load("a", never, ttl=5) == 1
        one.set("b", 1, ttl=5)
        await confirmed(one)
        assert await other.get_or_load("b", never) == 1
        for key in ("a", "b"):
            entry = other.peek(key)
            assert entry is not None
            assert entry.expires_in <= 5


async def test_what_one_process_sets_replaces_what_the_others_have(server: RedisServer) -> None:
    async with sharing(server) as (one, other):
        one.set("a", [1], tags=["t"])
        await confirmed(one)
        assert await other.get_or_load("a", never) == [1]
        one.set("a", [2])
        await confirmed(one, other)
        assert other.get("a") is None
        assert await other.get_or_load("a", never) == [2]
        assert one.get("a") == [2]  # nobody is told of what he has changed himself


CHANGES: dict[str, Callable[[MessageCache], object]] = {
    "delete": lambda cache: cache.delete("key"),
    "tag": lambda cache: cache.invalidate(tag="tag"),
    "prefix": lambda cache: cache.invalidate(prefix="ke"),
    "clear": lambda cache: cache.clear(),
    "ttl 0": lambda cache: cache.set("key", "new", ttl=0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_one_process_drops_no_process_has(server: RedisServer, change: Callable[..., object]) -> None:
    async with sharing(server, 3) as (one, other, late):
        one.set("key", "old", tags=["tag"])
        one.set("another", "kept", tags=["another"])
        await confirmed(one)
        assert await other.get_or_load("key", never) == "old"
        assert await other.get_or_load("another", never) == "kept"
        change(one)
        await confirmed(one, other)
        assert other.get("key") is None
        assert await late.get_or_load("key", lambda: "new") == "new"
        if change is not CHANGES["clear"]:
            assert other.get("another") == "kept"
            assert await late.get_or_load("another", never) == "kept"
        await confirmed(late)
        assert await other.get_or_load("key", never) == "new"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_case_9_what_another_process_drops_during_a_load_is_served_and_stored_nowhere(
    server: RedisServer, change: Callable[..., object]
) -> None:
    async with sharing(server, 3) as (one, other, late):
        loading, go_on = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            loading.set()
            await go_on.wait()
            return "outdated"

        asking = asyncio.create_task(one.get_or_load("key", load, tags=["tag"]))
        await loading.wait()
        change(other)  # which never heard of the key
        await confirmed(other, one)
        go_on.set()
        assert await asking == "outdated"
        await confirmed(one)
        assert one.get("key") is None
        assert await late.get_or_load("key", lambda: "new") == "new"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_case_9_nor_if_word_of_it_comes_too_late(server: RedisServer, change: Callable[..., object]) -> None:
    async with sharing(server, 3) as (one, other, late):
        loading, go_on = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            loading.set()
            await go_on.wait()
            return "outdated"

        asking = asyncio.create_task(one.get_or_load("key", load, tags=["tag"]))
        await loading.wait()
        tier_of(one)._forget = lambda changes: None
        change(other)
        await confirmed(other)
        go_on.set()
        assert await asking == "outdated"
        await confirmed(one)
        assert tier_of(one).stats().outdated == 1
        assert await late.get_or_load("key", lambda: "new") == "new"


async def test_a_value_with_tags_that_its_reader_does_not_name_goes_with_them(server: RedisServer) -> None:
    async with sharing(server, 3) as (one, other, late):
        one.set("key", "old", tags=["a", "b"])
        await confirmed(one)
        assert await other.get_or_load("key", never, tags=["b"]) == "old"
        one.invalidate(tag="a")
        await confirmed(one, other)
        assert other.get("key") is None
        assert await late.get_or_load("key", lambda: "new", tags=["b"]) == "new"
        entry = late.peek("key")
        assert entry is not None
        assert entry.tags == ("b",)


async def test_of_two_that_load_at_the_same_time_the_first_one_s_is_kept(server: RedisServer) -> None:
    async with sharing(server, 3) as (one, other, late):
        loading, go_on = asyncio.Event(), asyncio.Event()

        async def load() -> str:
            loading.set()
            await go_on.wait()
            return "second"

        asking = asyncio.create_task(one.get_or_load("key", load))
        await loading.wait()
        assert await other.get_or_load("key", lambda: "first") == "first"
        await confirmed(other, one)
        go_on.set()
        assert await asking == "second"
        await confirmed(one)
        assert one.get("key") is None
        assert await one.get_or_load("key", never) == await late.get_or_load("key", never) == "first"


async def test_what_is_stale_here_is_asked_for_there_and_what_is_stale_there_is_loaded(server: RedisServer) -> None:
    async with sharing(server, stale_ttl=100) as (one, other):
        one.set("key", "old", ttl=0.05)
        await confirmed(one)
        assert await other.get_or_load("key", never) == "old"
        await asyncio.sleep(0.06)
        assert await one.get_or_load("key", lambda: "new", ttl=100) == "old"
        await until(lambda: one.get("key") == "new")
        await confirmed(one, other)
        assert await other.get_or_load("key", never) == "new"


async def test_the_server_drops_what_is_over(server: RedisServer) -> None:
    async with sharing(server) as (one, _), server.client() as client:
        one.set("key", 1, ttl=50)
        await confirmed(one)
        assert 49_000 < await client.pttl("penstock:kkey") <= 50_000
        one.set("key", 1, ttl=float("inf"))
        await confirmed(one)
        assert await client.pttl("penstock:kkey") == -1
        assert await one.get_or_load("key", never) == 1


async def test_ttl_0_asks_nobody_and_tells_nobody(server: RedisServer) -> None:
    async with sharing(server) as (one, other):
        one.set("key", "there")
        await confirmed(one)
        assert await other.get_or_load("key", lambda: "loaded", ttl=0) == "loaded"
        stats = tier_of(other).stats()
        assert (stats.hits, stats.misses, stats.skipped) == (0, 0, 0)


async def test_cached_none_and_the_first_caller_s_cancelling_are_as_ever(server: RedisServer) -> None:
    async with sharing(server) as (one, other):
        assert await one.get_or_load("none", lambda: None) is None
        await confirmed(one)
        assert await other.get_or_load("none", never) is None
        first, *others = [asyncio.create_task(other.get_or_load("key", lambda: 5)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        assert await asyncio.gather(*others) == [5] * 4
        assert first.cancelled()
        assert other.get_cache_stats().loads == 2


async def test_prefixes_keep_caches_apart_and_a_tier_has_one_cache(server: RedisServer) -> None:
    async with SharedTier(server.url, prefix="a:") as one, SharedTier(server.url, prefix="b:") as other:
        first, second = MessageCache(shared=one), MessageCache(shared=other)
        first.set("key", 1)
        assert await one.flush()
        assert await second.get_or_load("key", lambda: 2) == 2
        with pytest.raises(ValueError, match="has a cache already"):
            MessageCache(shared=one)


async def test_a_beginning_is_not_a_pattern_and_other_keys_stay(server: RedisServer) -> None:
    async with sharing(server) as (one, other):
        for key in ("a*1", "ab1", ("a*", 1)):
            one.set(key, 1)
        await confirmed(one)
        one.invalidate(prefix="a*")
        await confirmed(one)
        assert await other.get_or_load("ab1", never) == 1
        assert await other.get_or_load(("a*", 1), never) == 1
        assert await other.get_or_load("a*1", lambda: 2) == 2


async def test_what_cannot_be_shared_is_refused_by_name(server: RedisServer) -> None:
    async with sharing(server) as (one, _):
        with pytest.raises(SerializationError, match="a value of type tuple cannot be shared"):
            one.set("key", (1, 2))
        with pytest.raises(SerializationError, match="a value of type tuple cannot be shared"):
            await one.get_or_load("key", lambda: (1, 2))
        for ask in (lambda: one.set(object(), 1), lambda: one.delete(object())):
            with pytest.raises(SerializationError, match="the key <object"):
                ask()
        with pytest.raises(SerializationError, match="the key <object"):
            await one.get_or_load(object(), lambda: 1)
        assert len(one) == 0
        assert await one.get_or_load("key", lambda: 1) == 1


async def test_changes_from_other_threads_are_passed_on_in_their_order(server: RedisServer) -> None:
    async with sharing(server) as (one, other):

        def work(number: int) -> None:
            for value in range(50):
                one.set("key", [number, value])
                one.set(f"key-{number}", value)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        await asyncio.to_thread(lambda: [thread.join(10) for thread in threads])
        await confirmed(one)
        assert await other.get_or_load("key", never) == one.get("key")
        for number in range(4):
            assert await other.get_or_load(f"key-{number}", never) == 49


async def test_a_thread_with_an_event_loop_of_its_own_does_without(server: RedisServer) -> None:
    async with sharing(server) as (one, other):
        other.set("key", "there")
        await confirmed(other)
        assert await asyncio.to_thread(lambda: asyncio.run(one.get_or_load("key", lambda: "loaded"))) == "loaded"
        assert tier_of(one).stats().skipped == 1


def test_the_next_event_loop_goes_on_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with redis_server(tmp_path) as server:
            tier = SharedTier(server.url, timeout=1.0)
            cache = MessageCache(shared=tier)

            async def ask(value: str) -> str:
                answer = await cache.get_or_load("key", lambda: value)
                assert await tier.flush()
                return answer

            assert await asyncio.to_thread(lambda: asyncio.run(ask("first"))) == "first"
            assert (len(cache), tier.stats().is_up) == (0, False)
            await asyncio.to_thread(cache.set, "without an event loop", 1)
            assert tier.stats().owed == 1
            assert await asyncio.to_thread(lambda: asyncio.run(ask("second"))) == "first"
            assert tier.stats().owed == 0

    asyncio.run(main())


async def test_a_closed_tier_leaves_a_cache(server: RedisServer) -> None:
    async with sharing(server) as (one, _):
        await tier_of(one).close()
        assert await one.get_or_load("key", lambda: 1) == 1
        one.set("other", 2)
        assert one.get("other") == 2
        assert tier_of(one).stats().skipped == 1


def test_arguments_out_of_bounds_are_refused_by_name() -> None:
    for options, message in (
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": 60}, "timeout=60"),
        ({"prefix": ""}, "prefix=''"),
    ):
        with pytest.raises(ValueError, match=message):
            SharedTier("redis://localhost", **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="redis://"):
        SharedTier("http://localhost")
    with pytest.raises(TypeError, match="no_such_option"):
        SharedTier("redis://localhost", no_such_option=1)


async def test_it_speaks_tls(tmp_path: Path) -> None:
    certificate = authority().issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    authority().cert_pem.write_to_path(tmp_path / "authority.pem")
    async with redis_server(tmp_path) as plain:
        port = plain.port
    files = ["--tls-cert-file", f"{tmp_path}/chain.pem", "--tls-key-file", f"{tmp_path}/key.pem"]
    files += ["--tls-ca-cert-file", f"{tmp_path}/authority.pem", "--tls-auth-clients", "no"]
    async with redis_server(tmp_path, "--tls-port", str(port), *files):
        url = f"rediss://127.0.0.1:{port}"
        async with SharedTier(url, timeout=1.0, ssl_ca_certs=f"{tmp_path}/authority.pem") as tier:
            cache = MessageCache(shared=tier)
            cache.set("key", "x" * 300_000)
            assert await tier.flush()
            async with SharedTier(url, timeout=1.0, ssl_ca_certs=f"{tmp_path}/authority.pem") as other:
                assert await MessageCache(shared=other).get_or_load("key", never) == "x" * 300_000
        async with SharedTier(url) as distrustful:
            assert not distrustful.stats().is_up


async def test_the_program_in_the_documentation_runs_with_a_server_and_without(server: RedisServer) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to-cache.md").read_text()
    (program,) = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    for port, said in ((server.port, "up: True"), (server.port, "1 from the server"), (1, "1 without it")):
        command = [sys.executable, "-W", "error", "-c", program.replace("6379", str(port))]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        assert said in out.decode()
        assert process.returncode == 0


async def test_word_of_a_change_takes_less_than_a_millisecond(server: RedisServer) -> None:
    dropped: list[float] = []
    async with SharedTier(server.url) as tier, SharedTier(server.url, timeout=1.0) as witness:
        cache = MessageCache(shared=tier)
        other = MessageCache(shared=witness, on_evict=lambda *_: dropped.append(time.perf_counter()))
        waits: list[float] = []
        for number in range(100):
            assert await other.get_or_load("key", lambda number=number: number) is not None  # type: ignore[misc]
            await witness.flush()
            dropped.clear()
            changed = time.perf_counter()
            cache.delete("key")
            await until(lambda: bool(dropped))
            waits.append(dropped[0] - changed)
        assert statistics.median(waits) < 0.001


async def test_it_says_who_it_is(tmp_path: Path) -> None:
    async with redis_server(tmp_path, "--requirepass", "secret", "--unixsocket", str(tmp_path / "socket")):
        for options in ({"password": "secret"}, {"username": "default", "password": "secret", "db": 3}):
            async with SharedTier(f"unix://{tmp_path}/socket", timeout=1.0, **options) as tier:  # type: ignore[arg-type]
                cache = MessageCache(shared=tier)
                cache.set("key", 1)
                assert await tier.flush()
                assert tier.stats().is_up
