"""Every program in the README and the documentation runs."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = [
    pytest.param(program, id=f"{page.name}-{number}")
    for page in PAGES
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]
SERVERS = [param for param in PROGRAMS if re.search(r"serve_forever|uvicorn\.Server", str(param.values[0]))]
CLIENTS = [param for param in PROGRAMS if param not in SERVERS]
SERVER = next(param for param in SERVERS if "tutorial" in str(param.id)).values[0]


def start(program: object, port: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", str(program).replace("8765", str(port))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        free: int = sock.getsockname()[1]
        return free


@pytest.fixture
def server(port: int) -> Iterator[subprocess.Popen[str]]:
    with start(SERVER, port) as process:
        wait_for(port)
        yield process
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("localhost", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the server of the example does not listen"
            time.sleep(0.05)
        else:
            return


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("program", CLIENTS)
def test_a_client_program_does_its_work(program: str, port: int) -> None:
    with start(program, port) as process:
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize("program", SERVERS)
def test_a_server_program_listens_until_it_is_interrupted(program: str, port: int) -> None:
    with start(program, port) as process:
        wait_for(port)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert process.returncode != 0
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


def test_every_page_is_reachable_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.MULTILINE), page.name
