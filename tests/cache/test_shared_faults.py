"""A server of the shared tier that is killed, slow, flushed, or holds what nobody has written there."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import MessageCache, SharedTier
from penstock.cache.shared import writes
from penstock.cache.shared.entries import Packer
from penstock.cache.shared.rest import FAILURES
from support.redisserver import RedisServer, redis_server
from support.relay import relaying
from support.waiting import until

SLACK = 0.3
"""Seconds that a machine with other work may take longer."""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


async def in_time(cache: MessageCache, key: str, value: Any, budget: float = 0.05) -> float:
    """Ask for what the shared tier does not give: the loader does. Gives the seconds that it took."""
    begun = time.perf_counter()
    assert await cache.get_or_load(key, lambda: value) == value
    took = time.perf_counter() - begun
    assert took < budget + SLACK
    return took


async def test_case_14_a_killed_server_costs_nobody_an_error_and_is_used_again_when_it_is_back(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with SharedTier(server.url, timeout=0.5) as tier:
        cache = MessageCache(shared=tier)
        cache.set("key", 1)
        assert await tier.flush()
        await server.kill()
        await until(lambda: not tier.stats().is_up)
        assert cache.get("key") is None
        for number in range(20):
            assert await in_time(cache, f"key-{number}", number, 0) < SLACK
        stats = tier.stats()
        assert (stats.skipped, stats.timeouts, stats.hits) == (20, 0, 0)
        assert cache.get("key-1") == 1
        cache.set("key", 2)
        assert not await tier.flush(0.01)
        await server.start()
        await until(lambda: tier.stats().is_up)
        assert cache.get("key-1") is None  # another process may have changed it meanwhile
        assert await tier.flush()
        assert tier.stats().flushes == 3
        assert await cache.get_or_load("key", lambda: 3) == 3
        assert await tier.flush()
        assert tier.stats().stored == 2
    said = [record.message.partition(" at ")[2].partition(" is ")[2] for record in caplog.records]
    assert [one.partition(":")[0] for one in said] == ["down"]


async def test_case_14_a_server_that_is_not_there_is_none(caplog: pytest.LogCaptureFixture) -> None:
    async with SharedTier("redis://user:secret@127.0.0.1:1") as tier:
        cache = MessageCache(shared=tier)
        await in_time(cache, "key", 1)
        assert cache.get("key") == 1
        assert tier.stats().skipped == 1
        cache.set("other", 1)
        assert tier.stats().unwritten == 0
        assert not await tier.flush(0.01)
        assert tier.stats().unwritten == 1
    (record,) = caplog.records
    assert "127.0.0.1:1 is down" in record.message
    assert "secret" not in record.message


async def test_case_14_a_frozen_server_costs_its_budget_a_few_times_and_then_nothing(server: RedisServer) -> None:
    async with SharedTier(server.url) as tier, SharedTier(server.url, timeout=1.0) as witness:
        cache, other = MessageCache(shared=tier), MessageCache(shared=witness)
        other.set("deleted", "old")
        assert await witness.flush()
        server.freeze()
        try:
            for number in range(50):
                await in_time(cache, f"key-{number}", number)
            stats = tier.stats()
            assert (stats.timeouts, stats.is_up) == (3, True)
            assert stats.skipped >= 40
            cache.set("key", 1)
            cache.delete("deleted")
            await until(lambda: not tier.stats().is_up)
            assert len(cache) == 0
        finally:
            server.thaw()
        await until(lambda: tier.stats().is_up and tier.stats().owed == 0, seconds=10)
        await until(lambda: witness.stats().is_up, seconds=10)
        assert await other.get_or_load("deleted", lambda: "new") == "new"
        assert await other.get_or_load("key", lambda: 2) == 2
        assert await cache.get_or_load("again", lambda: 3) == 3
        assert tier.stats().misses >= 1


async def test_cancelling_who_waits_for_the_server_is_no_failure_of_it(server: RedisServer) -> None:
    async with SharedTier(server.url, timeout=5.0) as tier:
        cache = MessageCache(shared=tier)
        for _ in range(FAILURES):
            tier._rest.failed(0.0)  # which was long ago: one may ask again, for all
        server.freeze()
        caller = asyncio.create_task(cache.get_or_load("key", lambda: 1))
        await until(lambda: tier._writes.link is not None and tier._writes.link.pending > 0)
        caller.cancel()
        await asyncio.wait({caller})
        server.thaw()
        assert caller.cancelled()
        assert await cache.get_or_load("key", lambda: 2) == 2
        stats = tier.stats()
        assert (stats.misses, stats.timeouts, stats.failures, stats.skipped) == (1, 0, 0, 0)


async def test_case_14_a_pause_shorter_than_a_second_breaks_nothing(server: RedisServer) -> None:
    async with SharedTier(server.url) as tier:
        cache = MessageCache(shared=tier)
        cache.set("kept", 1)
        assert await tier.flush()
        server.freeze()
        await in_time(cache, "key", "loaded")
        server.thaw()
        assert await tier.flush()
        assert cache.get("kept") == 1
        assert (tier.stats().timeouts, tier.stats().flushes) == (1, 1)
        cache.delete("key")
        assert await cache.get_or_load("key", lambda: "again") == "again"


async def test_case_14_a_connection_of_which_nothing_is_heard_is_given_up(server: RedisServer) -> None:
    async with relaying(server.port) as relay, SharedTier(f"redis://127.0.0.1:{relay.port}") as tier:
        cache = MessageCache(shared=tier)
        cache.set("key", 1)
        assert await tier.flush()
        relay.pause_those_that_are_open()
        async with server.client() as client:
            await client.set("penstock:kkey", b"changed")
        assert cache.get("key") == 1
        await until(lambda: cache.get("key") is None)
        await until(lambda: tier.stats().is_up)
        assert relay.accepted == 2


async def test_a_break_drops_the_first_tier_before_anybody_reads_it(server: RedisServer) -> None:
    async with relaying(server.port) as relay, SharedTier(f"redis://127.0.0.1:{relay.port}", timeout=1.0) as tier:
        cache = MessageCache(shared=tier)
        told: list[int] = []
        cache.set("key", 1)
        assert await tier.flush()
        loading, go_on = asyncio.Event(), asyncio.Event()

        async def load() -> int:
            loading.set()
            await go_on.wait()
            return 5

        asking = asyncio.create_task(cache.get_or_load("loading", load))
        await loading.wait()
        link = tier._writes.link
        assert link is not None
        answer = link.ask(("PING",))
        answer.add_done_callback(lambda _: told.append(len(cache)))
        relay.cut()
        await answer
        assert told == [0]
        assert not tier.stats().is_up
        go_on.set()
        assert await asking == 5
        assert cache.get("loading") is None
        await until(lambda: tier.stats().is_up)


async def test_case_14_a_flushed_server_flushes_every_process_and_marks_its_loads(server: RedisServer) -> None:
    async with SharedTier(server.url, timeout=1.0) as tier, server.client() as client:
        cache = MessageCache(shared=tier)
        cache.set("key", 1, tags=["t"])
        assert await tier.flush()
        loading, go_on = asyncio.Event(), asyncio.Event()

        async def load() -> int:
            loading.set()
            await go_on.wait()
            return 2

        asking = asyncio.create_task(cache.get_or_load("other", load))
        await loading.wait()
        await client.flushall()
        await until(lambda: cache.get("key") is None)
        go_on.set()
        assert await asking == 2
        assert cache.get("other") is None
        assert tier.stats().flushes == 2
        assert await cache.get_or_load("key", lambda: 3, tags=["t"]) == 3
        assert await tier.flush()
        assert cache.get("key") == 3


GOOD = Packer().pack("good", 60, 0, (), os.urandom(8)).content
BAD: dict[str, Callable[[Any], Any]] = {
    "garbage": lambda client: client.set("penstock:kkey", os.urandom(200), px=60_000),
    "nothing": lambda client: client.set("penstock:kkey", b"", px=60_000),
    "truncated": lambda client: client.set("penstock:kkey", GOOD[:-1], px=60_000),
    "a head alone": lambda client: client.set("penstock:kkey", GOOD[:30], px=60_000),
    "another version": lambda client: client.set("penstock:kkey", GOOD[:2] + b"\x02" + GOOD[3:], px=60_000),
    "a bit": lambda client: client.set("penstock:kkey", GOOD[:-1] + bytes((GOOD[-1] ^ 1,)), px=60_000),
    "no end": lambda client: client.set("penstock:kkey", GOOD),
    "pickle": lambda client: client.set("penstock:kkey", b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00", px=60_000),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
async def test_case_14_what_is_damaged_is_a_miss_that_is_counted_and_replaced(
    server: RedisServer, spoil: Callable[[Any], Any]
) -> None:
    async with SharedTier(server.url, timeout=1.0) as tier, server.client() as client:
        cache = MessageCache(shared=tier)
        await spoil(client)
        assert await cache.get_or_load("key", lambda: "loaded") == "loaded"
        stats = tier.stats()
        assert (stats.damaged, stats.misses, stats.hits) == (1, 1, 0)
        assert await tier.flush()
        assert tier.stats().stored == 1
        cache._store.drop("key", "deleted")
        assert await cache.get_or_load("key", lambda: "again") == "loaded"


async def test_case_14_names_of_another_type_and_generations_of_nobody_are_misses(server: RedisServer) -> None:
    async with SharedTier(server.url, timeout=1.0) as tier, server.client() as client:
        cache = MessageCache(shared=tier)
        await client.rpush("penstock:kkey", "a list")
        assert await cache.get_or_load("key", lambda: "loaded", tags=["t"]) == "loaded"
        assert await tier.flush()
        assert tier.stats().stored == 1
        await client.delete("penstock:tt")
        await client.rpush("penstock:tt", "a list")
        await until(lambda: cache.get("key") is None)
        assert await cache.get_or_load("key", lambda: "again", tags=["t"]) == "again"
        await client.set("penstock:tt", "no generation")
        await until(lambda: cache.get("key") is None)
        assert await cache.get_or_load("key", lambda: "once more", tags=["t"]) == "once more"


async def test_a_server_that_refuses_to_write_is_asked_to_forget(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, SharedTier(server.url, timeout=1.0) as tier, server.client() as client:
        cache = MessageCache(shared=tier)
        cache.set("key", "old", tags=["t"])
        cache.set("other", "old", tags=["t"])
        assert await tier.flush()
        await client.config_set("maxmemory", 1)
        cache.set("key", "new")
        cache.invalidate(tag="t")
        assert await cache.get_or_load("loaded", lambda: 1) == 1
        assert await tier.flush(5)
        stats = tier.stats()
        assert (stats.owed, stats.unwritten, stats.stored) == (0, 2, 2)
        assert await client.get("penstock:kkey") is None
        assert await client.get("penstock:tt") is None


async def test_a_server_that_answers_with_errors_is_no_error(server: RedisServer) -> None:
    async with server.client() as client:
        await client.execute_command("ACL", "SETUSER", "me", "on", "nopass", "~*", "&*", "+@all", "-mget", "-eval")
        async with SharedTier(f"redis://me:@127.0.0.1:{server.port}", timeout=1.0) as tier:
            cache = MessageCache(shared=tier)
            for number in range(5):
                await in_time(cache, f"key-{number}", number, 1.0)
            stats = tier.stats()
            assert (stats.failures, stats.skipped, stats.is_up) == (3, 2, True)


async def test_a_server_that_does_not_tell_of_changes_is_down(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.client() as client:
        await client.execute_command("ACL", "SETUSER", "me", "on", "nopass", "~*", "+@all", "-client")
    async with SharedTier(f"redis://me:@127.0.0.1:{server.port}", timeout=1.0) as tier:
        await in_time(MessageCache(shared=tier), "key", 1)
        assert not tier.stats().is_up
    assert "no permissions" in caplog.text


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"?", b"*-5\r\n", b""])
async def test_what_is_no_server_of_this_kind_is_down(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as stranger:
        port = stranger.sockets[0].getsockname()[1]
        async with SharedTier(f"redis://127.0.0.1:{port}") as tier:
            await in_time(MessageCache(shared=tier), "key", 1)
            assert not tier.stats().is_up
            assert "is down" in caplog.text


async def test_a_connection_on_which_the_server_loses_the_thread_is_given_up(server: RedisServer) -> None:
    async with SharedTier(server.url, timeout=1.0) as tier:
        for noise in (b"?what\r\n", b"+nobody asked\r\n"):
            link = tier._writes.link
            assert link is not None
            link.data_received(noise)
            assert not tier.stats().is_up
            await until(lambda: tier.stats().is_up)


@pytest.mark.parametrize("at_once", [True, False])
async def test_too_many_changes_owed_become_one(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr(writes, "MOST_OWED", 10)
    async with SharedTier(server.url, timeout=1.0) as witness, SharedTier("redis://127.0.0.1:1") as tier:
        other, cache = MessageCache(shared=witness), MessageCache(shared=tier)
        other.set("key", "old")
        assert await witness.flush()
        cache.delete("key")
        for number in range(25):
            cache.delete(f"key-{number}")
            if at_once:
                continue
            assert not await tier.flush(0.001)
        assert tier.stats().owed <= 10
        tier._address._options["port"] = server.port
        await until(lambda: tier.stats().is_up, seconds=10)
        assert await tier.flush()
        await until(lambda: other.get("key") is None)
        assert await other.get_or_load("key", lambda: "new") == "new"


async def test_a_broken_sweep_is_made_again(server: RedisServer) -> None:
    async with SharedTier(server.url, timeout=1.0) as tier, SharedTier(server.url, timeout=1.0) as witness:
        cache, other = MessageCache(5000, shared=tier), MessageCache(5000, shared=witness)
        for number in range(3000):
            cache.set(f"key-{number}", number)
        assert await tier.flush(10)
        cache.invalidate(prefix="key-1")
        tier._writes.drain()
        await asyncio.sleep(0)
        link = tier._writes.link
        assert link is not None
        link.abort("cut")
        assert tier.stats().owed == 1
        await until(lambda: tier.stats().is_up)
        assert await tier.flush(5)
        assert await other.get_or_load("key-1999", lambda: "new") == "new"
        assert await other.get_or_load("key-2000", lambda: "new") == 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_child_process_leaves_its_parent_s_connection_alone(server: RedisServer) -> None:
    async with SharedTier(server.url, timeout=1.0) as tier:
        cache = MessageCache(shared=tier)
        cache.set("key", 1)
        assert await tier.flush()
        child = os.fork()
        if child == 0:
            cache.set("key", 2)
            os._exit(0 if (tier.stats().is_up, tier.stats().owed) == (False, 1) else 1)
        assert os.waitstatus_to_exitcode((await asyncio.to_thread(os.waitpid, child, 0))[1]) == 0
        cache.set("other", 1)
        assert await tier.flush()
        assert cache.get("key") == 1
