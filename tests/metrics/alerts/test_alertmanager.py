"""A real Alertmanager is told."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import AlertManager, AlertRule, MetricsCollector
from penstock.metrics import catalogue as m
from penstock.metrics.alerts.expressions import Gauge, select
from penstock.metrics.alerts.sinks import AlertmanagerSink
from penstock.metrics.samples import Sample
from support.prometheus import program

RULE = AlertRule(
    name="Full", expression=Gauge(select(m.POOL_WAITERS)), fire=5, by=("pool",), severity="critical", summary="full"
)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of an Alertmanager."""
    path, port = program("alertmanager", "prometheus-alertmanager"), free_port()
    (tmp_path / "config.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    command = [
        path,
        f"--config.file={tmp_path}/config.yml",
        f"--storage.path={tmp_path}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
                return
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline, "Alertmanager does not start"
            time.sleep(0.05)


def alerts(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{url}/api/v2/alerts", timeout=5) as answer:
        found: list[dict[str, Any]] = json.load(answer)
    return found


async def test_it_shows_what_fires_and_forgets_what_is_resolved(server: str) -> None:
    waiters = 9
    collector = MetricsCollector()
    collector.add_source(lambda: [Sample(m.POOL_WAITERS, waiters, ("main",))])
    manager = AlertManager(collector, [RULE], [AlertmanagerSink(server, labels={"service": "shop"})])
    for _ in range(2):
        now = collector.tick().at
        manager.evaluate(now)
    await manager.close(5)
    [alert] = await asyncio.to_thread(alerts, server)
    assert alert["labels"] == {"alertname": "Full", "severity": "critical", "pool": "main", "service": "shop"}
    assert alert["annotations"] == {"summary": "full", "value": "9"}
    assert alert["status"]["state"] == "active"
    waiters = 0
    manager.evaluate(collector.tick().at)
    await manager.close(5)
    deadline = time.monotonic() + 10
    while await asyncio.to_thread(alerts, server):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert collector.snapshot().value("self_failures") == 0
