from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock import __version__, cli
from penstock.bench import scenarios
from penstock.cli import demo, main
from penstock.cli.run import FAILED, INTERRUPTED, UNREACHABLE, run_reporting
from penstock.demo import tour
from penstock.traffic.measure import Job
from penstock.traffic.processes import JobFailed


def penstock(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "penstock", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_the_version_is_the_packages() -> None:
    result = penstock("--version")
    assert result.returncode == 0
    assert __version__ in result.stdout


def test_help_names_every_command() -> None:
    result = penstock("--help")
    assert result.returncode == 0
    for command in ("bench", "completion", "demo"):
        assert command in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonesuch"], "No such command 'nonesuch'"),
        (["bench", "--scenario", "nonesuch"], "'nonesuch' is not one of"),
        (["bench", "--rounds", "0"], "0 is not in the range"),
        (["demo", "--url", "http://localhost"], "isn't a valid URI"),
        (["demo", "--url", "ws://"], "isn't a valid URI"),
        (["demo", "--dashboard", "--json"], "--dashboard goes with neither"),
        (["demo", "--size", "-1"], "-1 is not in the range"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_what_is_wrong(arguments: list[str], says: str) -> None:
    result = penstock(*arguments)
    assert result.returncode == 2
    assert says in result.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    result = penstock("completion", shell)
    assert result.returncode == 0
    assert "_PENSTOCK_COMPLETE" in result.stdout


def test_bash_completes_commands_and_scenarios() -> None:
    def complete(line: str, word: int) -> str:
        environment = {**os.environ, "_PENSTOCK_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(word)}
        command = [str(Path(sys.executable).with_name("penstock"))]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    assert "demo" in complete("penstock de", 1)
    assert "round-trip" in complete("penstock bench --scenario ro", 3)


def test_the_list_names_every_scenario() -> None:
    result = penstock("bench", "--list")
    assert result.returncode == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(scenarios.SCENARIOS)


def test_a_demo_against_nobody_ends_with_3_and_names_the_url() -> None:
    result = penstock("demo", "--url", "ws://127.0.0.1:9/x")
    assert result.returncode == 3
    assert "ws://127.0.0.1:9/x" in result.stderr
    assert "refused" in result.stderr


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, scenario in scenarios.SCENARIOS.items():
        messages = dict.fromkeys(("websockets", "penstock"), 300)
        monkeypatch.setitem(
            scenarios.SCENARIOS, name, type(scenario)(**{**_fields(scenario), "messages": messages, "targets": ()})
        )


def _fields(scenario: scenarios.Scenario) -> dict[str, object]:
    return {name: getattr(scenario, name) for name in scenario.__dataclass_fields__}


@pytest.mark.usefixtures("quick")
def test_a_benchmark_prints_json_alone_on_standard_output() -> None:
    result = CliRunner().invoke(
        cli.cli, ["bench", "--json", "--rounds", "1", "--scenario", "one-way", "--scenario", "round-trip"]
    )
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert [scenario["name"] for scenario in report["scenarios"]] == ["one-way", "round-trip"]
    assert "one-way: websockets, round 1 of 1" in result.stderr


@pytest.mark.usefixtures("quick")
def test_a_benchmark_prints_a_table() -> None:
    result = CliRunner().invoke(cli.cli, ["bench", "--rounds", "1", "--scenario", "one-way"])
    assert result.exit_code == 0
    assert "penstock" in result.stdout
    assert "client CPU" in result.stdout


@pytest.fixture
def small_tour(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "TRIAL_MESSAGES": 300,
        "ONE_WAY_SECONDS": 0,
        "ROUND_TRIPS": 50,
        "CONNECTS": 20,
        "COUNTED_MESSAGES": 100,
        "CALLS": 2000,
        "CROWD": 60,
        "ROUNDS": 1,
    }.items():
        monkeypatch.setattr(tour, name, value)


@pytest.mark.usefixtures("small_tour")
def test_the_demo_prints_a_table_of_both_ways() -> None:
    result = CliRunner().invoke(cli.cli, ["demo", "--size", "10"])
    assert result.exit_code == 0
    assert "10-byte messages to an embedded server" in result.stdout
    for row in ("messages a second", "bytes on the wire", "system calls", "p50", "p99", "from the pool"):
        assert row in result.stdout
    for criterion in ("throughput, against the plain way", "connections at once", "10,000", "met"):
        assert criterion in result.stdout
    assert "penstock: sending" in result.stderr
    first, second, third, blank, *_ = result.stdout.splitlines()
    assert min(len(first), len(second)) > 60, "the introduction breaks where the terminal ends, not before"
    assert third.rstrip().endswith("process each.")
    assert blank.strip() == ""


@pytest.mark.usefixtures("small_tour")
def test_the_demo_prints_json_alone_on_standard_output() -> None:
    result = CliRunner().invoke(cli.cli, ["demo", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["figures"]["messages_per_second"]["penstock"] > 0


def test_the_demo_shows_its_traffic_in_a_browser_until_it_is_interrupted() -> None:
    command = [sys.executable, "-u", "-m", "penstock", "demo", "--dashboard"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said, url = process.stdout.readline().split()
        with urllib.request.urlopen(url, timeout=10) as page:
            assert page.status == 200
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert said == "Dashboard:"
    assert (process.returncode, errors) == (130, "")


def test_a_dashboard_without_its_packages_is_an_error_that_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    result = CliRunner().invoke(cli.cli, ["demo", "--dashboard"])
    assert result.exit_code == FAILED
    assert 'pip install "penstock[dashboard]"' in result.stderr


def test_an_interrupted_demo_ends_with_130_and_leaves_no_process() -> None:
    command = [sys.executable, "-m", "penstock", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        before = children.read_text().split() if children.exists() else []
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)


def test_an_interrupted_benchmark_prints_what_it_has_and_ends_with_130() -> None:
    command = [sys.executable, "-m", "penstock", "bench", "--json", "--scenario", "round-trip", "--rounds", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "picows, round 1" in line:
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    report = json.loads(output)
    assert report["interrupted"]
    assert "websockets" in report["scenarios"][0]["medians"]
    assert "interrupted" in errors


@pytest.mark.parametrize(("unreachable", "code"), [(True, UNREACHABLE), (False, FAILED)])
def test_a_failed_job_is_told_with_its_exit_code(
    unreachable: bool, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail(report: object) -> None:
        raise JobFailed(Job(work="one-way", library="penstock"), "it broke [sic]", unreachable)

    assert run_reporting(fail) == code
    assert "it broke [sic]" in capsys.readouterr().err


def test_an_interruption_is_told_with_its_exit_code() -> None:
    async def interrupt(report: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(10)

    before = time.monotonic()
    assert run_reporting(interrupt) == INTERRUPTED
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(
    ("raised", "code"), [(KeyboardInterrupt(), 130), (cli.click.Abort(), 130), (cli.click.ClickException("no"), 1)]
)
def test_what_ends_a_command_becomes_an_exit_code(
    raised: BaseException, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise raised

    monkeypatch.setattr(cli.cli, "main", fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
