from __future__ import annotations

import asyncio

import pytest
from rich.console import Console
from websockets.asyncio.server import ServerConnection, serve

from penstock.demo import tour as tour_module
from penstock.demo.criteria import CRITERIA
from penstock.demo.table import ROWS, as_json, criteria_table, ratio, saving, table
from penstock.demo.tour import Findings, Tour
from penstock.traffic.measure import Job, Run
from penstock.traffic.processes import JobFailed
from penstock.traffic.server import SERVERS


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour_module, "TRIAL_MESSAGES", 500)
    monkeypatch.setattr(tour_module, "ONE_WAY_SECONDS", 0.01)
    monkeypatch.setattr(tour_module, "ROUND_TRIPS", 100)
    monkeypatch.setattr(tour_module, "CONNECTS", 20)
    monkeypatch.setattr(tour_module, "UNPLUGGED_MESSAGES", 1200)
    monkeypatch.setattr(tour_module, "COUNTED_MESSAGES", 500)
    monkeypatch.setattr(tour_module, "CALLS", 2000)
    monkeypatch.setattr(tour_module, "CROWD", 60)
    monkeypatch.setattr(tour_module, "ROUNDS", 1)


def shown(tour: Tour) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(tour))
    return capture.get()


@pytest.mark.usefixtures("small")
async def test_the_tour_measures_both_ways_in_every_figure() -> None:
    shares: list[float] = []
    tour = Tour(None, 64)
    await tour.run(lambda _, share: shares.append(share))
    assert shares[-1] == 1
    assert shares == sorted(shares)
    figures = as_json(tour)["figures"]
    for key in ("messages_per_second", "client_cpu", "server_cpu", "p50_seconds", "p99_seconds", "connect_seconds"):
        assert figures[key]["plain"] > 0, key
        assert figures[key]["penstock"] > 0, key
        assert figures[key]["ratio"] == pytest.approx(figures[key]["penstock"] / figures[key]["plain"])
    assert figures["connect_seconds"]["ratio"] < 0.5
    assert figures["messages_per_second_both_ends"]["ratio"] > 1
    assert figures["lost"]["plain"] > figures["lost"]["penstock"] == 0
    assert figures["calls_reached"]["plain"] == 2000
    assert 100 < figures["calls_reached"]["penstock"] < 1000
    assert figures["hit_ratio"]["penstock"] == 1 - figures["calls_reached"]["penstock"] / 2000
    assert figures["repeated_p50_seconds"]["ratio"] < 0.5
    assert "embedded server" in shown(tour)
    told = as_json(tour)["criteria"]
    assert told["connections"]["measured"] == 60
    assert told["hit_ratio_percent"]["measured"] == pytest.approx(figures["hit_ratio"]["penstock"] * 100)
    assert None not in [criterion["measured"] for criterion in told.values()]


@pytest.mark.usefixtures("small")
async def test_the_tour_visits_a_server_of_the_users() -> None:
    async with SERVERS["websockets"]() as port:
        tour = Tour(f"ws://127.0.0.1:{port}/echo", 32)
        await tour.run(lambda *_: None)
    figures = as_json(tour)["figures"]
    assert figures["messages_per_second"]["penstock"] > 0
    assert figures["p50_seconds"]["plain"] > 0
    assert figures["connect_seconds"]["penstock"] > 0
    assert figures["server_cpu"]["plain"] is None
    assert "not measured" not in shown(tour) + criteria_of(tour)
    assert "having a connection" in criteria_of(tour)


@pytest.mark.usefixtures("small")
async def test_a_server_that_closes_with_an_error_is_told_with_what_it_was_sent() -> None:
    async def picky(ws: ServerConnection) -> None:
        await ws.recv()
        await ws.close(1003, "JSON objects only")

    async with serve(picky, "127.0.0.1", 0) as server:
        url = f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"
        with pytest.raises(
            JobFailed, match=r"JSON objects only.*; it was sent text messages of 32 digits: try a server"
        ):
            await Tour(url, 32).run(lambda *_: None)
        with pytest.raises(JobFailed, match="it was sent empty text messages"):
            await Tour(url, 0).run(lambda *_: None)


async def test_a_server_that_is_not_there_is_not_told_what_to_take() -> None:
    with pytest.raises(JobFailed) as caught:
        await Tour("ws://127.0.0.1:9", 64).run(lambda *_: None)
    assert "it was sent" not in str(caught.value)


def test_what_was_not_measured_is_left_out_where_it_could_not_be() -> None:
    """But what there was no time for is told."""
    text = shown(Tour("ws://localhost", 64))
    assert text.count("not measured") == 14
    for name in (
        "server CPU",
        "own server",
        "plug pulled",
        "calls a second",
        "server saw",
        "cache spared",
        "repeated call",
    ):
        assert name not in text
        assert name in shown(Tour(None, 64))
    assert criteria_of(Tour("ws://localhost", 64)).count("not measured") == 3


def test_no_row_breaks_in_80_columns() -> None:
    tour = Tour(None, 64)
    slow, fast = tour.findings.values()
    slow.one_way, fast.one_way = [Run(messages=100_000, seconds=1)], [Run(messages=9_000_000, seconds=1)]
    slow.calling, fast.calling = Run(messages=1, p50=1e-2, p99=2e-2), Run(messages=1, p50=1e-6, p99=2e-6)
    slow.connects, fast.connects = [Run(p50=1e-3)], [Run(p50=1e-6)]
    fast.rounds = Run(messages=40, grown_bytes=4 * 1024 * 1024)
    for grid, rows in ((table(tour), ROWS), (criteria_table(tour), CRITERIA)):
        console = Console(width=80)
        with console.capture() as capture:
            console.print(grid)
        assert len(capture.get().splitlines()) == 5 + len(rows)


@pytest.mark.usefixtures("small")
async def test_the_tour_ends_in_time_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ponder(job: Job, *_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(tour_module, "ask", ponder)
    monkeypatch.setattr(tour_module, "TIME_LIMIT", 5)
    tour = Tour(None, 64)
    async with asyncio.timeout(15):
        await tour.run(lambda *_: None)
    assert len(tour.findings["websockets"].one_way) == len(tour.findings["penstock"].one_way) == 1
    assert tour.findings["penstock"].answering is None
    assert shown(tour).count("not measured") == 20
    told = as_json(tour)["criteria"]
    assert told["throughput_gained_percent"]["met"] is not None
    assert told["connection_time_saved_percent"]["met"] is not None
    assert told["memory_growth_mib"] == {"target": 4, "measured": None, "met": None}


def criteria_of(tour: Tour) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(criteria_table(tour))
    return capture.get()


def test_a_criterion_is_met_missed_or_not_measured() -> None:
    tour = Tour(None, 64)
    assert criteria_of(tour).count("not measured") == 7
    assert "met" not in criteria_of(tour)
    ours = tour.findings["penstock"]
    ours.crowd = Run(messages=1000)
    ours.rounds = Run(messages=40, grown_bytes=4 * 1024 * 1024 + 1)
    ours.calling = Run(messages=100, reached=60, p99=0.0101)
    ours.one_way = [Run(messages=9999, seconds=1)]
    tour.findings["websockets"].one_way = [Run(messages=8000, seconds=1)]
    met = {key: criterion["met"] for key, criterion in as_json(tour)["criteria"].items()}
    assert met == {
        "connection_time_saved_percent": None,
        "throughput_gained_percent": False,
        "hit_ratio_percent": True,
        "cached_latency_milliseconds": False,
        "connections": True,
        "messages_per_second": False,
        "memory_growth_mib": False,
    }
    text = criteria_of(tour)
    assert (text.count("missed"), text.count("not measured")) == (4, 1)


async def test_a_server_that_never_answers_is_a_failure_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tour_module, "TIME_LIMIT", 2)
    async with serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0, max_queue=1) as deaf:
        url = f"ws://127.0.0.1:{next(iter(deaf.sockets)).getsockname()[1]}"
        async with asyncio.timeout(15):
            with pytest.raises(JobFailed, match=rf"{url} took longer than 2 s"):
                await Tour(url, 64).run(lambda *_: None)


def test_a_password_is_not_shown_and_a_url_is_not_markup() -> None:
    tour = Tour("ws://me:s3cret@[fd00::1]:8080/x[red]y", 64)
    assert "ws://[fd00::1]:8080/x[red]y" in shown(tour)
    assert "s3cret" not in shown(tour)
    assert as_json(tour)["url"] == "ws://[fd00::1]:8080/x[red]y"


def test_a_ratio_is_of_penstock_to_the_plain_way() -> None:
    assert ratio(100, 2150) == "21.5x"
    assert ratio(100, 98) == "0.98x"
    assert ratio(100, 119) == "1.19x"
    assert ratio(7, 7) == "1.00x"
    assert ratio(2, 0.9) == "1/2.2"
    assert ratio(2, 0.01) == "1/200"
    assert ratio(1147.9, 0.41) == "1/2,800"
    assert ratio(705, 0) == "none"
    assert ratio(0, 5) == ""
    assert ratio(None, 5) == ""
    assert ratio(5, None) == ""


def test_the_pool_saves_the_time_of_opening() -> None:
    tour = Tour(None, 64)
    tour.findings["websockets"].connects = [Run(p50=400e-6)]
    assert saving(tour) is None
    tour.findings["penstock"].connects = [Run(p50=2e-6)]
    assert saving(tour) == "Borrowing a connection takes 99.50 % less time than opening a new one."


def test_the_table_shows_the_medians() -> None:
    tour = Tour(None, 64)
    tour.findings["websockets"] = Findings([Run(messages=100, seconds=1), Run(messages=300, seconds=1)])
    tour.findings["penstock"] = Findings([Run(messages=4000, seconds=1, wire_bytes=80_000)])
    text = shown(tour)
    assert "4,000" in text
    assert "20.0x" in text
