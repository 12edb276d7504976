from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

import pytest
from websockets.asyncio.server import serve

from penstock.traffic import processes
from penstock.traffic.loop import cores
from penstock.traffic.measure import Job
from penstock.traffic.processes import JobFailed, run_job, server
from penstock.traffic.syscalls import SyscallCounter


async def test_a_job_runs_in_a_process_of_its_own() -> None:
    client_core, server_core = cores()
    shares: list[float] = []
    async with server("picows", server_core) as url:
        job = Job(work="one-way", library="penstock", url=url + "/sink", messages=1000)
        run = await run_job(job, client_core, shares.append)
    assert run.messages == 1000
    assert shares[-1] == 1
    assert shares == sorted(shares)


async def test_a_server_that_cannot_be_reached_is_told_apart() -> None:
    with pytest.raises(JobFailed, match=r"penstock, one-way: ws://127\.0\.0\.1:9/: .*Errno 111") as failure:
        await run_job(Job(work="one-way", library="penstock", url="ws://127.0.0.1:9/", messages=1), None)
    assert failure.value.unreachable


async def test_a_peer_that_is_no_websocket_server_is_unreachable() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    plain = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with plain:
        port = plain.sockets[0].getsockname()[1]
        with pytest.raises(JobFailed, match="404") as failure:
            await run_job(Job(work="one-way", library="penstock", url=f"ws://127.0.0.1:{port}/", messages=1), None)
    assert failure.value.unreachable


async def test_a_server_that_hangs_up_is_a_failure_and_names_the_close() -> None:
    async with serve(lambda ws: ws.close(1008, "go away"), "127.0.0.1", 0) as hostile:
        port = next(iter(hostile.sockets)).getsockname()[1]
        job = Job(work="round-trip", library="penstock", url=f"ws://127.0.0.1:{port}/", messages=10, embedded=False)
        with pytest.raises(JobFailed, match="go away") as failure:
            await run_job(job, None)
    assert not failure.value.unreachable


async def test_a_process_that_dies_is_a_failure_with_what_it_printed() -> None:
    with pytest.raises(JobFailed, match="ended without a result") as failure:
        await run_job(Job(work="one-way", library="penstock", url="ws://127.0.0.1:9/", messages=1), 4711)
    assert "sched_setaffinity" in str(failure.value)


async def test_a_job_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "JOB_TIMEOUT", 0.01)
    with pytest.raises(JobFailed, match="not done within"):
        await run_job(Job(work="import", library="penstock", messages=100), None)


async def test_a_cancelled_job_leaves_no_process() -> None:
    started = asyncio.Event()
    job = Job(work="import", library="penstock", messages=1000)
    task = asyncio.create_task(run_job(job, None, lambda _: started.set()))
    async with asyncio.timeout(20):
        await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The fixture of all tests finds tasks that are left; a process that is left would keep its transport open.


async def test_a_server_that_does_not_start_says_why() -> None:
    with pytest.raises(JobFailed, match="KeyError: 'nonesuch'"):
        async with server("nonesuch", None):
            pass


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="system calls are counted on Linux alone")


@linux
async def test_coalesced_messages_share_system_calls() -> None:
    async with server("picows", None) as url:
        job = Job(work="one-way", library="penstock", url=url + "/sink", messages=2000)
        together = await asyncio.to_thread(SyscallCounter(job).per_message)
        apart = await asyncio.to_thread(SyscallCounter(replace(job, library="websockets")).per_message)
    if together is None:
        pytest.skip("this machine does not allow a process to trace its children")
    assert together < 0.1
    assert apart is not None
    assert apart > 0.9


@linux
def test_a_client_that_fails_has_no_count() -> None:
    job = Job(work="one-way", library="penstock", url="ws://127.0.0.1:9/", messages=10)
    assert SyscallCounter(job).per_message() is None


@linux
async def test_counting_ends_soon_when_it_is_stopped() -> None:
    counter = SyscallCounter(Job(work="import", library="penstock", messages=10_000))
    counting = asyncio.create_task(asyncio.to_thread(counter.per_message))
    await asyncio.sleep(0.3)
    counter.stop()
    async with asyncio.timeout(5):
        assert await counting is None
    assert counter.per_message() is None


def test_other_platforms_have_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert SyscallCounter(Job(work="one-way", library="penstock", messages=10)).per_message() is None
