"""Calls by clients of every kind, run in this process against the embedded server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import websockets

from penstock.traffic import calls as traffic
from penstock.traffic.answering import Answerer
from penstock.traffic.calls import CALLERS, RECENT, WrongAnswer, calls, make_numbers
from penstock.traffic.measure import Job
from penstock.traffic.server import SERVERS


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "WARM_UP", RECENT)


@pytest.mark.parametrize("library", CALLERS)
@pytest.mark.parametrize("repeats", [0.0, 0.9])
async def test_every_library_makes_the_calls_and_penstock_keeps_the_answers(library: str, repeats: float) -> None:
    told: list[int] = []
    async with SERVERS["jsonrpc"]() as port:
        job = Job(
            work="calls",
            library=library,
            url=f"ws://127.0.0.1:{port}",
            messages=1000,
            callers=16,
            repeats=repeats,
        )
        run = await calls(job, told.append)
    keeps = library.startswith("penstock") and repeats > 0
    distinct = len(set(make_numbers(1000, repeats, RECENT)) - set(range(RECENT)))
    assert run.reached == (distinct if keeps else 1000)
    assert run.messages == told[-1] == 1000
    assert 0 < run.p50 <= run.p99
    assert run.server_cpu is not None


async def test_a_wrong_answer_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Answerer._answer

    def one_too_many(call: Any) -> Any:
        answer = right(call)
        if call.method == "double":
            answer.result += 1
        return answer

    monkeypatch.setattr(Answerer, "_answer", staticmethod(one_too_many))
    async with SERVERS["jsonrpc"]() as port:
        job = Job(work="calls", library="websockets", url=f"ws://127.0.0.1:{port}", messages=10, callers=1)
        with pytest.raises(ExceptionGroup) as caught:
            await calls(job, lambda _: None)
    assert caught.group_contains(WrongAnswer)


async def test_the_server_answers_calls_arrays_and_pings() -> None:
    asked = [{"jsonrpc": "2.0", "id": number, "method": "double", "params": [number]} for number in (1, 2)]
    async with SERVERS["jsonrpc"]() as port, websockets.connect(f"ws://127.0.0.1:{port}") as ws:
        await ws.send(json.dumps(asked[0]))
        assert json.loads(await ws.recv()) == {"jsonrpc": "2.0", "id": 1, "result": 2}
        await ws.send(json.dumps(asked))
        assert [answer["result"] for answer in json.loads(await ws.recv())] == [2, 4]
        await asyncio.wait_for(await ws.ping(), 5)
        await ws.send(json.dumps({"jsonrpc": "2.0", "id": 3, "method": "count"}))
        assert json.loads(await ws.recv())["result"]["calls"] >= 3


def test_repeats_are_of_numbers_that_came_shortly_before() -> None:
    numbers = make_numbers(10_000, 0.9, 1000)
    seen = set(range(1000))
    repeated = 0
    for number in numbers:
        last = max(seen)
        if number in seen:
            repeated += 1
            assert number > last - RECENT
        else:
            assert number == last + 1
        seen.add(number)
    assert repeated == pytest.approx(9000, rel=0.03)
    assert make_numbers(5, 0.0, 7) == [7, 8, 9, 10, 11]


async def test_calls_to_a_server_that_hangs_up_fail() -> None:
    async def hang_up(ws: Any) -> None:
        await ws.recv()

    async with websockets.serve(hang_up, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        job = Job(work="calls", library="websockets", url=f"ws://127.0.0.1:{port}", messages=10, callers=4)
        with pytest.raises(ExceptionGroup) as caught:
            await calls(job, lambda _: None)
    assert caught.group_contains(ConnectionError)
