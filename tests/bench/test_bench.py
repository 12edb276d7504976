from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from rich.console import Console

from penstock.bench import rounds
from penstock.bench.report import as_json, number, table, verdicts
from penstock.bench.rounds import Outcome, run_all
from penstock.bench.scenarios import CORE, CPU, P50, RATE, SCENARIOS, START, Scenario, Target
from penstock.traffic.caches import CACHES
from penstock.traffic.calls import CALLERS
from penstock.traffic.jobs import WORK
from penstock.traffic.libraries import BROADCASTERS, LIBRARIES
from penstock.traffic.measure import Job, Run
from penstock.traffic.pools import CONNECTORS, POOLS
from penstock.traffic.server import SERVERS

SMALL = replace(SCENARIOS["one-way"], server=None, messages={"websockets": 1, "picows": 1, "penstock": 1})


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=list(SCENARIOS))
def test_every_scenario_can_be_run_as_it_stands(scenario: Scenario) -> None:
    kinds = {scenario.server_of(library) for library in scenario.messages}
    assert kinds == {None} or kinds <= set(SERVERS)
    assert scenario.work in WORK
    assert any(library.startswith("penstock") for library in scenario.messages)
    known = {
        "acquire": POOLS,
        "broadcast": BROADCASTERS,
        "cache-hit": CACHES,
        "calls": CALLERS,
        "connect": CONNECTORS,
        "contend": POOLS,
        "gather": {"penstock"},
        "import": {"websockets", "penstock"},
    }.get(scenario.work, LIBRARIES)
    assert set(scenario.messages) <= set(known)
    for target in scenario.targets:
        assert target.figure in scenario.figures
        assert target.of in scenario.messages
        assert target.against is None or target.against in scenario.messages


def test_a_target_compares_medians() -> None:
    runs = {
        "penstock": Run(messages=300, seconds=1, p50=2e-3, client_cpu=0.05),
        "peer": Run(messages=100, seconds=1, p50=1e-3),
    }
    assert Target(RATE, "peer", 2).value(runs) == 3
    assert Target(P50, "peer", 1.05).value(runs) == 2
    assert Target(START, "peer", 15, difference=True).value(runs) == pytest.approx(1)
    assert Target(P50, "penstock", 50, saving=True, of="peer").value(runs) == pytest.approx(50)
    assert Target(CORE, None, 10).value(runs) == pytest.approx(5)


def test_more_is_met_from_the_bound_up_and_less_from_it_down() -> None:
    assert Target(RATE, "peer", 2).met(2)
    assert not Target(RATE, "peer", 2).met(1.99)
    assert Target(P50, "peer", 1.05).met(1.05)
    assert not Target(P50, "peer", 1.05).met(1.06)
    assert Target(P50, "peer", 99.5, saving=True).met(99.6)
    assert not Target(P50, "peer", 99.5, saving=True).met(99.4)


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    order: list[str] = []

    async def play(job: Job, core: int | None, on_progress: object) -> Run:
        order.append(job.library)
        speed = {"websockets": 1, "picows": 2, "penstock": 24}[job.library]
        return Run(messages=100 * speed, seconds=1, client_cpu=1, server_cpu=0.5)

    monkeypatch.setattr(rounds, "run_job", play)
    return order


async def test_the_order_turns_round_every_round(played: list[str]) -> None:
    outcome = Outcome(SMALL)
    await run_all([outcome], 3, lambda *_: None)
    forth = ["websockets", "picows", "penstock"]
    assert played == forth + forth[::-1] + forth
    assert outcome.rounds == 3


async def test_the_report_tells_how_far_all_scenarios_are(played: list[str]) -> None:
    shares: list[float] = []
    await run_all([Outcome(SMALL), Outcome(SMALL)], 1, lambda _, share: shares.append(share))
    assert shares[0] == 0
    assert shares[-1] == 1
    assert shares == sorted(shares)


async def test_what_was_measured_before_an_interruption_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(job: Job, core: int | None, on_progress: object) -> Run:
        if job.library == "penstock":
            await asyncio.Event().wait()
        return Run(messages=1, seconds=1)

    monkeypatch.setattr(rounds, "run_job", play)
    outcome = Outcome(SMALL)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await run_all([outcome], 1, lambda *_: None)
    assert set(outcome.medians) == {"websockets", "picows"}
    assert outcome.rounds == 0
    assert verdicts(outcome) == ["throughput: not measured"] * 2
    assert as_json([outcome], interrupted=True)["scenarios"][0]["targets"] == []


async def test_the_json_has_everything_a_reader_needs(played: list[str]) -> None:
    outcome = Outcome(SMALL)
    await run_all([outcome], 2, lambda *_: None)
    report = as_json([outcome], interrupted=False)
    assert report["schema"] == 1
    assert not report["interrupted"]
    assert report["machine"]["cores"]
    assert {"python", "penstock", "picows", "websockets"} <= set(report["versions"])
    [scenario] = report["scenarios"]
    assert scenario["rounds"] == 2
    assert scenario["medians"]["penstock"]["rate"] == 2400
    assert len(scenario["runs"]["picows"]) == 2
    assert scenario["targets"] == [
        {"figure": "throughput", "of": "penstock", "against": "websockets", "value": 24, "bound": 12, "met": True},
        {"figure": "throughput", "of": "penstock", "against": "picows", "value": 12, "bound": 6, "met": True},
    ]


async def test_the_table_shows_each_library_with_its_processor_time(played: list[str]) -> None:
    outcome = Outcome(SMALL)
    await run_all([outcome], 2, lambda *_: None)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table(outcome))
    text = capture.get()
    assert "2,400" in text
    assert "100%" in text
    assert "50%" in text
    assert verdicts(outcome)[0] == "throughput: 24.00x of websockets (target >= 12x: met)"


def test_differences_and_plain_figures_are_told_in_their_unit() -> None:
    scenario = replace(SMALL, targets=(Target(START, "websockets", 15, difference=True), Target(CORE, None, 10)))
    outcome = Outcome(scenario, {"websockets": [Run(p50=0.02)], "penstock": [Run(p50=0.06, client_cpu=0.01)]})
    assert verdicts(outcome) == [
        "time: 40.00 ms over websockets (target <= 15 ms: missed)",
        "idle core: 1.00 % of a core (target <= 10 % of a core: met)",
    ]


def test_savings_and_other_ways_of_penstock_are_told() -> None:
    crowded = Target(CPU, "penstock", 1.1, of="penstock, crowded")
    scenario = replace(SMALL, targets=(Target(CPU, "websockets", 99.5, saving=True), crowded))
    outcome = Outcome(scenario, {"websockets": [Run(cpu_each=1e-3)], "penstock": [Run(cpu_each=1e-6)]})
    outcome.runs["penstock, crowded"] = [Run(cpu_each=1.2e-6)]
    assert verdicts(outcome) == [
        "CPU: 99.90 % less than websockets (target >= 99.5 % less: met)",
        "CPU of penstock, crowded: 1.20x of penstock (target <= 1.1x: missed)",
    ]


async def test_a_peer_that_is_not_installed_is_left_out_and_named(played: list[str]) -> None:
    outcome = Outcome(replace(SMALL, messages={"nonesuch.pool": 1, **SMALL.messages}))
    await run_all([outcome], 1, lambda *_: None)
    assert played == ["websockets", "picows", "penstock"]
    assert verdicts(outcome)[0] == "nonesuch is not installed: what needs it was left out"
    assert as_json([outcome], interrupted=False)["scenarios"][0]["missing"] == ["nonesuch"]


async def test_a_scenario_whose_needs_are_not_installed_is_left_out(played: list[str]) -> None:
    outcome = Outcome(replace(SMALL, needs=("nonesuch",)))
    await run_all([outcome], 1, lambda *_: None)
    assert played == []
    assert verdicts(outcome) == [
        "nonesuch is not installed: what needs it was left out",
        "throughput: not measured",
        "throughput: not measured",
    ]


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (12.3456, "12.35"), (999.94, "999.9"), (1234567.8, "1,234,568")]
)
def test_figures_have_four_digits(value: float, shown: str) -> None:
    assert number(value) == shown
