"""``penstock cache``: traces in, hit ratios out."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from array import array
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner, Result

from penstock import EvictionPolicy, cli
from penstock.cache.simulate import Curve
from penstock.cli.plot import svg_plot, text_plot

REQUESTS = [1, 2, 3, 1, 2, 3, 4, 1]


def simulate(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.cli, ["cache", "simulate", *map(str, arguments)])


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "requests.log"
    path.write_text("\n".join(map(str, REQUESTS)))
    return path


def test_a_log_becomes_a_table_and_a_plot(lines: Path) -> None:
    result = simulate(lines, "--size", "2", "--size", "4")
    assert result.exit_code == 0
    for text in ("requests.log", "8 requests, 4 keys", "LRU", "LFU", "TTL", "S3-FIFO", "50.00%", "ceiling 50.0%"):
        assert text in result.stdout
    assert "LRU, 2 entries" in result.stderr
    assert "100% done" in result.stderr


@pytest.mark.parametrize(("requests", "said"), [(3, True), (999, True), (1000, False)])
def test_a_trace_that_is_short_is_said_to_be(tmp_path: Path, requests: int, said: bool) -> None:
    path = tmp_path / "trace"
    path.write_text("\n".join(map(str, range(requests))))
    result = simulate(path, "--json", "--size", "1")
    assert (f"the trace is short: hit ratios of {requests} requests say little" in result.stderr) is said
    assert json.loads(result.stdout)["requests"] == requests


def test_one_size_is_a_table_without_a_plot(lines: Path) -> None:
    result = simulate(lines, "--size", "1")
    assert "S3-FIFO" in result.stdout
    assert result.stdout.endswith("ceiling 50.0%\n")
    assert "by factors" not in result.stdout
    assert "LRU, 1 entry" in result.stderr


@pytest.mark.parametrize("name", ["trace", "trace.zst", "trace.u64", "trace.u64.zst"])
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    content = array("Q", REQUESTS).tobytes() if ".u64" in name else "\n".join(map(str, REQUESTS)).encode()
    path = tmp_path / name
    path.write_bytes(zstandard.ZstdCompressor().compress(content) if name.endswith(".zst") else content)
    result = simulate(path, "--json", "--size", "3", "--policy", "lru", "--policy", "s3-fifo")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "schema": 1,
        "trace": str(path),
        "requests": 8,
        "keys": 4,
        "ceiling": 0.5,
        "hit_ratios": {
            "lru": [{"size": 3, "hit_ratio": 0.375}],
            "s3-fifo": [{"size": 3, "hit_ratio": 0.375}],
        },
    }


def test_a_trace_may_come_on_standard_input() -> None:
    content = array("Q", REQUESTS).tobytes()
    command = [sys.executable, "-m", "penstock", "cache", "simulate", "-", "--format", "u64", "--json"]
    result = subprocess.run(command, input=content, capture_output=True, timeout=60, check=True)
    assert json.loads(result.stdout)["requests"] == 8


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty", b"", "no request in it"),
        ("odd.u64", bytes(7), "7 bytes are no whole number of 64-bit keys"),
        ("text.zst", b"this is not compressed", "cannot read"),
    ],
)
def test_what_is_no_trace_ends_with_1_and_says_why(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    result = simulate(path)
    assert result.exit_code == 1
    assert name in result.stderr
    assert says in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nonesuch"], "No such file or directory"),
        (["-", "--size", "0"], "0 is not in the range"),
        (["-", "--policy", "fifo"], "'fifo' is not one of"),
        (["-", "--svg", "/"], "is a directory"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], says: str) -> None:
    result = simulate(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_an_image_that_cannot_be_written_ends_with_1(lines: Path, tmp_path: Path) -> None:
    result = simulate(lines, "--svg", tmp_path / "nowhere" / "plot.svg")
    assert result.exit_code == 1
    assert "cannot write" in result.stderr
    assert "LRU" in result.stdout


def test_the_image_is_svg_with_labelled_axes_and_a_line_for_each_policy(lines: Path, tmp_path: Path) -> None:
    path = lines.rename(lines.with_name("<requests> & more"))
    svg = tmp_path / "plot.svg"
    assert simulate(path, "--svg", svg).exit_code == 0
    root = ET.fromstring(svg.read_text())
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    texts = [text.text for text in root.iter(f"{space}text")]
    assert {"entries in the cache", "hit ratio", "LRU", "LFU", "TTL", "S3-FIFO"} <= set(texts)
    assert "<requests> & more: 8 requests for 4 keys" in texts
    assert len(list(root.iter(f"{space}polyline"))) == 4
    assert "prefers-color-scheme: dark" in svg.read_text()


def test_every_mark_is_inside_the_image() -> None:
    curves = [
        Curve(EvictionPolicy.LRU, {1: 0.0, 10: 0.35, 100_000: 0.999}),
        Curve(EvictionPolicy.S3_FIFO, {1: 0.0, 10: 0.42, 100_000: 1.0}),
    ]
    for ceiling in (1.0, 0.9999):
        root = ET.fromstring(svg_plot(curves, ceiling, "all"))
        for dot in root.iter("{http://www.w3.org/2000/svg}circle"):
            assert 64 <= float(dot.attrib["cx"]) <= 760 - 96
            assert 56 <= float(dot.attrib["cy"]) <= 440 - 60
        plot = text_plot(curves, ceiling)
        assert plot.count("#") == 3 + 1
        assert "100,000" in plot
        assert all(len(line) <= 72 for line in plot.splitlines())


def test_a_single_point_can_be_drawn() -> None:
    curves = [Curve(EvictionPolicy.TTL, {5: 0.0})]
    assert "+ TTL" in text_plot(curves, 0.0)
    assert "<polyline" in svg_plot(curves, 0.0, "one")


def test_an_interrupted_simulation_prints_what_it_has_and_ends_with_130(tmp_path: Path) -> None:
    path = tmp_path / "long.u64"
    path.write_bytes(array("Q", [number % 70_000 for number in range(3_000_000)]).tobytes())
    command = [sys.executable, "-m", "penstock", "cache", "simulate", str(path), "--json", "--size", "50000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "LFU" in line:
                break
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert list(json.loads(output)["hit_ratios"]) == ["lru"]
    assert "interrupted" in errors
