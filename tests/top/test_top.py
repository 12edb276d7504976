"""`penstock top` and the socket it looks through."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from penstock.config.sections import MetricsConfig
from penstock.manager.switch import Stage
from penstock.middleware.control import Control, ensure_private
from penstock.middleware.report import report
from penstock.top import programs
from penstock.top.programs import NoProgram, choose, reports, sockets
from penstock.top.view import line, screen
from support.pipes import ledger, piped

CONTROLLED = {"metrics": MetricsConfig(control=True)}


@pytest.fixture(autouse=True)
def _runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


async def until_open() -> Path:
    for _ in range(200):
        if sockets():
            return sockets()[0]
        await asyncio.sleep(0.01)
    raise AssertionError("no socket")


async def test_a_program_says_who_it_is_and_what_it_does() -> None:
    async with ledger() as book, piped(sections=CONTROLLED) as pipe:
        await pipe.send(book.url, "x")
        path = await until_open()
        assert await choose() == path
        assert await choose(os.getpid()) == path
        seen = reports(path)
        who, first = await anext(seen), await anext(seen)
        assert who["pid"] == os.getpid()
        assert first["pool"]["in_use"] == 1
        assert first["modes"] == {book.url: dict.fromkeys(Stage, "optimized")}
        await seen.aclose()  # type: ignore[attr-defined]
    assert not path.exists()


async def test_only_its_user_can_look() -> None:
    async with piped(sections=CONTROLLED):
        path = await until_open()
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_directory_that_others_may_use_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "penstock").mkdir(mode=0o755)
    (tmp_path / "penstock").chmod(0o755)
    with pytest.raises(PermissionError, match="chmod 700"):
        ensure_private(tmp_path / "penstock")
    control = Control(dict)
    control.start()
    await asyncio.sleep(0.01)
    await control.close()
    assert "penstock top cannot look" in caplog.text


async def test_without_a_program_it_says_what_to_do() -> None:
    with pytest.raises(NoProgram, match="PENSTOCK_METRICS__CONTROL=1"):
        await choose()
    with pytest.raises(NoProgram, match="no program with PID 17"):
        await choose(17)


async def test_of_several_programs_one_has_to_be_named(tmp_path: Path) -> None:
    async with piped(sections=CONTROLLED), piped(sections=CONTROLLED):
        while len(sockets()) < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(NoProgram, match=f"{os.getpid()}, {os.getpid()}"):
            await choose()
        assert await choose(os.getpid()) in sockets()


async def test_what_a_killed_program_has_left_is_removed(tmp_path: Path) -> None:
    ensure_private(tmp_path / "penstock")
    left = tmp_path / "penstock" / "1.1.sock"
    server = await asyncio.start_unix_server(lambda *_: None, left)
    server.close()
    await server.wait_closed()
    left.touch()
    with pytest.raises(NoProgram):
        await choose()
    assert not left.exists()


async def test_a_program_that_cannot_be_asked_now_keeps_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **options: Any) -> Any:
        raise PermissionError("denied")

    async with piped(sections=CONTROLLED):
        path = await until_open()
        monkeypatch.setattr(asyncio, "open_unix_connection", refuse)
        with pytest.raises(NoProgram):
            await choose()
        assert path.exists()


async def test_a_program_that_ends_while_it_is_looked_for_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "penstock"
    ensure_private(place)
    monkeypatch.setattr(Path, "glob", lambda *_: iter([place / "1.1.sock"]))
    with pytest.raises(NoProgram, match="no program of yours"):
        await choose()


async def test_where_others_may_put_something_nobody_looks(tmp_path: Path) -> None:
    place = tmp_path / "penstock"
    place.mkdir()
    place.chmod(0o777)
    with pytest.raises(NoProgram, match="chmod 700"):
        await choose()


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (b'{"pid": 1}\n{"schema": 99}\n', "another version"),
        (b"HTTP/1.1 400\r\n\r\n", "no program with penstock"),
        (b"[1]\n", "no program with penstock"),
        (b"\xff\n", "no program with penstock"),
        (b"x" * 100_000, "more than"),
    ],
)
async def test_what_is_no_report_is_told_plainly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, says: str
) -> None:
    monkeypatch.setattr(programs, "LONGEST_LINE", 1000)
    with pytest.raises(NoProgram, match=says):
        await heard_from(tmp_path / "any.sock", said)


async def test_what_a_program_says_when_it_is_killed_in_the_middle_is_left_out(tmp_path: Path) -> None:
    said = b'{"pid": 1}\n{"schema": 1, "uptime": 1}\n{"schema": 1, "upt'
    assert await heard_from(tmp_path / "any.sock", said) == [{"pid": 1}, {"schema": 1, "uptime": 1}]


async def heard_from(path: Path, said: bytes) -> list[dict[str, Any]]:
    """The reports of a program that says something, and ends."""

    def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async with await asyncio.start_unix_server(say, path):
        return [one async for one in reports(path)]


async def test_urls_that_differ_in_their_secrets_alone_are_told_apart() -> None:
    async with piped() as pipe:
        for user in ("one", "two"):
            pipe.manager.bypass(Stage.CACHE, f"ws://{user}:secret@localhost/")
        found = report(pipe)
    assert set(found["modes"]) == {"ws://localhost/", "ws://localhost/ (2)"}
    assert "secret" not in json.dumps(found)


async def test_one_who_looks_and_does_not_read_costs_nothing() -> None:
    told = 0

    def big() -> dict[str, Any]:
        nonlocal told
        told += 1
        return {"x": "x" * 1_000_000}

    control = Control(big)
    control.start()
    path = await until_open()
    _reader, writer = await asyncio.open_unix_connection(path)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(2.2)
    assert 1 <= told <= 2
    writer.transport.abort()
    await control.close()


async def test_the_view_shows_what_is_wrong_first() -> None:
    async with ledger() as book, piped(sections=CONTROLLED) as pipe:
        await pipe.send(book.url, "x")
        pipe.manager.bypass("pool", reason="a reason")
        found = report(pipe)
    found["alerts"] = [
        {"name": "Late", "severity": "info", "state": "pending", "labels": {}, "summary": "soon", "seconds": 3.0},
        {
            "name": "PoolSaturated",
            "severity": "critical",
            "state": "firing",
            "labels": {"alertname": "PoolSaturated", "severity": "critical", "pool": "main"},
            "summary": "callers wait",
            "seconds": 3725.0,
        },
    ]
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(screen({"pid": 1, "program": "feed.py"}, found))
    lines = console.export_text().splitlines()
    assert lines[0].startswith("feed.py (1)")
    assert lines[1].split(":")[0] == "critical PoolSaturated pool=main"
    assert "firing for 1 h 2 min" in lines[1]
    assert any("bypassed" in text and book.url in text for text in lines)
    assert any("a reason" in text for text in lines)
    assert "alerts PoolSaturated; bypassed pool" in line(found)


def test_the_command_prints_json_once(tmp_path: Path) -> None:
    program = """
import asyncio
from penstock import PerformanceConfig, PerformanceMiddleware
async def main():
    async with PerformanceMiddleware(PerformanceConfig.load(environ={"PENSTOCK_METRICS__CONTROL": "1"})):
        await asyncio.sleep(30)
asyncio.run(main())
"""
    import subprocess
    import time

    with subprocess.Popen([sys.executable, "-c", program]) as running:
        try:
            for _ in range(500):
                if sockets():
                    break
                time.sleep(0.02)
            top = [sys.executable, "-m", "penstock", "top", "--once"]
            shown = subprocess.run([*top, "--json"], capture_output=True, text=True, timeout=30, check=True)
            assert json.loads(shown.stdout)["pid"] == running.pid
            plain = subprocess.run([*top, str(running.pid)], capture_output=True, text=True, timeout=30, check=True)
            assert plain.stdout.startswith("sent ")
            assert "alerts none" in plain.stdout
            nobody = subprocess.run([*top, "1"], capture_output=True, text=True, timeout=30, check=False)
            assert nobody.returncode == 3
            assert "no program with PID 1" in nobody.stderr
        finally:
            running.kill()
