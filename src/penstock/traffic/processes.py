"""Starting the two ends, hearing what they say, and leaving no process behind."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from penstock.traffic.measure import Job, Run

START_TIMEOUT = 30.0
"""Seconds that a server process may take until it prints its port."""
JOB_TIMEOUT = 300.0
"""Seconds that one job may take."""


class JobFailed(Exception):  # noqa: N818 - as the errors of the library
    """A client could not do its job."""

    def __init__(self, job: Job, reason: str, unreachable: bool = False) -> None:
        super().__init__(job, reason, unreachable)
        self.job, self.reason, self.unreachable = job, reason, unreachable

    def __str__(self) -> str:
        return f"{self.job.library}, {self.job.work}: {self.reason}"


@asynccontextmanager
async def child(module: str, *arguments: str, core: int | None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python process that runs ``module``; killed at the end, whatever happened."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        *arguments,
        "" if core is None else str(core),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # an interruption from the keyboard is ours to handle
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()  # servers end by themselves
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await process.wait()
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


@asynccontextmanager
async def server(kind: str, core: int | None) -> AsyncIterator[str]:
    """The URL, without a path, of an embedded server in a process of its own.

    Raises:
        JobFailed: it did not start within `START_TIMEOUT`.
    """
    async with child("penstock.traffic.server", kind, core=core) as process:
        assert process.stdout is not None
        port = ""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT):
                port = (await process.stdout.readline()).decode().strip()
        if not port:
            with suppress(ProcessLookupError):
                process.kill()
            job = Job(work="serving", library=kind)
            raise JobFailed(job, f"the embedded server did not start:\n{await _errors(process)}")
        yield f"{'wss' if kind.endswith('-tls') else 'ws'}://127.0.0.1:{port}"


async def run_job(job: Job, core: int | None, on_progress: Callable[[float], object] = lambda _: None) -> Run:
    """Do a job in a process of its own.

    Args:
        on_progress: told the share that is done.

    Raises:
        JobFailed: it could not be done, or not in `JOB_TIMEOUT`.
    """
    async with child("penstock.traffic.client", json.dumps(asdict(job)), core=core) as process:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(JOB_TIMEOUT):
                async for raw in process.stdout:
                    result = _read(job, json.loads(raw), on_progress)
                    if result is not None:
                        return result
        except TimeoutError:
            raise JobFailed(job, f"not done within {JOB_TIMEOUT:.0f} s") from None
        raise JobFailed(job, f"the process ended without a result:\n{await _errors(process)}")


def _read(job: Job, line: dict[str, Any], on_progress: Callable[[float], object]) -> Run | None:
    if "failed" in line:
        raise JobFailed(job, line["failed"], line["unreachable"])
    if "result" in line:
        return Run(**line["result"])
    on_progress(line["progress"] / max(1, job.messages))
    return None


async def _errors(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    return (await process.stderr.read()).decode(errors="replace").strip()
