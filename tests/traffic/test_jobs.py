"""Jobs, run in this process against the embedded servers."""

from __future__ import annotations

import os
import sys

import pytest

from penstock.traffic import jobs, pools, resources, steady
from penstock.traffic.caches import CACHES
from penstock.traffic.jobs import WORK, LossError, make_messages
from penstock.traffic.libraries import BROADCASTERS, LIBRARIES
from penstock.traffic.measure import Job, Run
from penstock.traffic.pools import CONNECTORS, POOLS
from penstock.traffic.processes import run_job
from penstock.traffic.resources import allow_descriptors
from penstock.traffic.server import SERVERS
from penstock.traffic.unplug import SENDERS


async def run(job: Job) -> tuple[Run, list[int]]:
    told: list[int] = []
    return await WORK[job.work](job, told.append), told


ACKNOWLEDGED = ["penstock, acknowledged", "penstock, compressed"]
NEEDS_ENVELOPE = [
    *ACKNOWLEDGED,
    "penstock, metrics off",
    "penstock, metrics on",
    "penstock, pipe.connection",
]
EVERYWHERE = [
    *((library, kind) for kind in ("picows", "websockets") for library in LIBRARIES if library not in NEEDS_ENVELOPE),
    *((library, "penstock") for library in LIBRARIES),
    ("picows.websockets", "picows.websockets"),
    ("websockets, deflate", "websockets, deflate"),
]


@pytest.mark.parametrize(("library", "kind"), EVERYWHERE)
async def test_every_library_brings_every_message_to_every_sink(library: str, kind: str) -> None:
    async with SERVERS[kind]() as port:
        url = f"ws://127.0.0.1:{port}/sink"
        result, told = await run(Job(work="one-way", library=library, url=url, messages=500))
    assert result.messages == 500
    assert result.seconds > 0
    assert result.server_cpu is not None
    assert told[-1] == 500
    assert told == sorted(told)


@pytest.mark.parametrize(("library", "kind"), EVERYWHERE)
async def test_every_library_makes_round_trips(library: str, kind: str) -> None:
    async with SERVERS[kind]() as port:
        url = f"ws://127.0.0.1:{port}/echo"
        result, told = await run(Job(work="round-trip", library=library, url=url, messages=50))
    assert result.messages == 50
    assert 0 < result.p50 <= result.p99
    assert told[-1] == 50


@pytest.mark.parametrize("path", ["/echo", "/sink"])
@pytest.mark.parametrize("library", ["picows", "websockets", "penstock"])
async def test_a_server_that_does_not_count_is_asked_by_ping(library: str, path: str) -> None:
    async with SERVERS["picows"]() as port:
        url = f"ws://127.0.0.1:{port}{path}"
        sent, _ = await run(Job(work="one-way", library=library, url=url, messages=300, embedded=False))
        asked, _ = await run(Job(work="round-trip", library=library, url=url, messages=30, embedded=False))
    assert sent.messages == 300
    assert sent.server_cpu is None
    assert asked.messages == 30


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how many bytes a socket sent")
async def test_the_bytes_on_the_wire_are_those_of_the_frames() -> None:
    async with SERVERS["picows"]() as port:
        url = f"ws://127.0.0.1:{port}/sink"
        result, _ = await run(Job(work="one-way", library="penstock", url=url, messages=100, size_bytes=64))
    question = 2 + 4 + len("count")
    assert result.wire_bytes == 100 * (2 + 4 + 64) + question


async def test_a_message_that_did_not_arrive_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def all_but_one(client: jobs.Client, messages: list[str], tell: jobs.Tell) -> None:
        await client.send_all(messages[1:])

    monkeypatch.setattr(jobs, "_send_telling", all_but_one)
    async with SERVERS["picows"]() as port:
        url = f"ws://127.0.0.1:{port}/sink"
        with pytest.raises(LossError, match="10 messages were sent, but 9 arrived"):
            await run(Job(work="one-way", library="penstock", url=url, messages=10))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how many bytes a socket sent")
async def test_telemetry_is_compressed_where_that_was_asked_for() -> None:
    sizes: dict[str, float] = {}
    async with SERVERS["penstock"]() as port:
        for library in ACKNOWLEDGED:
            url = f"ws://127.0.0.1:{port}/sink"
            result, _ = await run(Job(work="one-way", library=library, url=url, messages=4000, content="telemetry"))
            sizes[library] = result.wire_each
            assert result.cpu_of_both > 0
    plain, compressed = sizes.values()
    assert 75 < plain < 300
    assert compressed < plain / 3


@pytest.mark.parametrize("library", SENDERS)
async def test_the_plug_is_pulled_and_what_has_arrived_is_counted(library: str) -> None:
    async with SERVERS[library]() as port:
        url = f"ws://127.0.0.1:{port}/ledger"
        result, told = await run(Job(work="unplug", library=library, url=url, messages=3000))
    assert told == [500, 1000, 1500, 2000, 2500]
    assert result.messages == 3000
    if library == "penstock":
        assert (result.lost, result.doubled) == (0, 0)
    else:
        assert result.lost > 0, "as without us"


@pytest.mark.parametrize("library", BROADCASTERS)
@pytest.mark.parametrize("burst", [1, 4])
async def test_a_broadcast_reaches_the_whole_audience(library: str, burst: int) -> None:
    async with SERVERS["audience"]() as port:
        job = Job(
            work="broadcast", library=library, url=f"ws://127.0.0.1:{port}", messages=8, connections=60, burst=burst
        )
        result, told = await run(job)
    assert result.messages == 8 * 60
    assert told[-1] == 8
    assert result.p50 > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc, on Linux")
async def test_held_connections_are_counted_by_their_memory() -> None:
    async with SERVERS["picows"]() as port:
        url = f"ws://127.0.0.1:{port}/sink"
        job = Job(work="hold", library="penstock", url=url, messages=500, connections=500, seconds=0)
        result = await run_job(job, None)  # in a process whose memory is its own
    assert result.messages == 500
    assert 2_000 < result.bytes_each < 200_000


@pytest.mark.parametrize("library", CONNECTORS)
@pytest.mark.parametrize("kind", ["picows", "picows-tls"])
async def test_connections_are_had_over_and_over(library: str, kind: str) -> None:
    scheme = "wss" if kind.endswith("-tls") else "ws"
    async with SERVERS[kind]() as port:
        url = f"{scheme}://127.0.0.1:{port}/echo"
        result, told = await run(Job(work="connect", library=library, url=url, messages=25))
    assert result.messages == 25
    assert 0 < result.p50 <= result.p99
    assert result.cpu_each > 0
    assert told[-1] == 25


@pytest.mark.parametrize("library", POOLS)
async def test_every_pool_lends_over_and_over(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "CROWD", 100)
    result, told = await run(Job(work="acquire", library=library, messages=200, connections=2))
    assert result.messages == 200
    assert result.cpu_each > 0
    assert told[-1] == 200


@pytest.mark.parametrize("library", CACHES)
async def test_every_cache_is_hit_over_and_over(library: str) -> None:
    result, told = await run(Job(work="cache-hit", library=library, messages=20_000))
    assert result.messages == 20_000
    assert 0 < result.cpu_each < 1e-4
    assert told[-1] == 20_000


@pytest.mark.parametrize("library", ["psycopg_pool", "asyncpg", "collections.deque", "penstock"])
async def test_every_pool_lends_to_more_than_it_has_connections_for(library: str) -> None:
    job = Job(work="contend", library=library, messages=4000, connections=2, callers=20)
    result, told = await run(job)
    assert result.messages == 4000
    assert result.cpu_each > 0
    assert told[-1] == 4000


async def test_messages_are_added_to_a_batcher() -> None:
    result, told = await run(Job(work="gather", library="penstock", messages=3000))
    assert result.messages == 3000
    assert 0 < result.p50 <= result.p99
    assert told[-1] == 3000


async def test_importing_is_timed() -> None:
    result, told = await run(Job(work="import", library="penstock", messages=2))
    assert result.messages == 2
    assert 0.001 < result.p50 < 10
    assert told[-1] == 2


def test_messages_are_of_one_size_and_all_different() -> None:
    messages = make_messages(1000, 8)
    assert {len(message) for message in messages} == {8}
    assert len(set(messages)) == 1000
    assert make_messages(2, 0) == ["", ""]


def test_too_many_connections_for_the_machine_are_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    set_limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resources.resource, "getrlimit", lambda _: (100, 1000))
    monkeypatch.setattr(resources.resource, "setrlimit", lambda _, limits: set_limits.append(limits))
    with pytest.raises(OSError, match="5000 connections need as many open files, the limit is 1000"):
        allow_descriptors(5000)
    allow_descriptors(50)
    assert set_limits == []
    allow_descriptors(500)
    assert set_limits == [(500, 1000)]


async def test_a_crowd_is_held_all_at_once_and_each_answers() -> None:
    async with SERVERS["picows"]() as port:
        job = Job(work="crowd", library="penstock", url=f"ws://127.0.0.1:{port}/echo", connections=120)
        told: list[int] = []
        run = await WORK["crowd"](job, told.append)
    assert run.messages == 120
    assert told == [50, 100, 120]
    assert 0 < run.p50 <= run.p99


async def test_rounds_tell_what_memory_came_to(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([1000, 1500])
    monkeypatch.setattr(steady, "resident_bytes", lambda: next(taken))
    monkeypatch.setattr(steady.sys, "platform", "linux")
    monkeypatch.setattr(steady, "SENDS", 100)
    async with SERVERS["jsonrpc"]() as port:
        job = Job(work="rounds", library="penstock", url=f"ws://127.0.0.1:{port}", messages=2)
        run = await WORK["rounds"](job, lambda _: None)
    assert run.grown_bytes == 500
    assert run.messages == 2


def test_a_mark_leaves_descriptors_alone() -> None:
    jobs.mark(jobs.BEGIN)
    os.fstat(0)
