"""What viewers are told, and when."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
import websockets

import penstock
from dashboard.boards import boarded, judge, port_in, viewing, watched
from penstock import AlertRule, Dashboard, MetricsConfig, Priority
from penstock.metrics import catalogue as m
from penstock.metrics.alerts.expressions import Gauge, select
from support.pipes import ledger
from support.relay import relaying
from support.waiting import until


async def test_all_history_comes_in_the_first_message_and_then_each_reading_once() -> None:
    async with boarded() as (pipe, board):
        begin = time.monotonic()
        for second in range(1, 200):
            pipe.metrics.tick(begin + second)
        async with viewing(board) as viewer:
            first = await viewer.told()
            assert len(first["points"]["at"]) > 70
            assert first["points"]["at"][-1] - first["points"]["at"][0] > 180
            assert all(len(column) == len(first["points"]["at"]) for column in first["points"].values())
            assert first["version"] == penstock.__version__
            assert first["interval"] == 3600
            for second in range(200, 203):
                pipe.metrics.tick(begin + second)
                told = await viewer.told()
                assert len(told["points"]["at"]) == 1
                assert "config" not in told
                assert told["state"] == {}
                assert len(json.dumps(told)) < 1024


@pytest.mark.parametrize("reliable", [True, False])
async def test_a_viewer_that_stalls_gets_no_more_than_one_message_and_holds_nobody_up(reliable: bool) -> None:
    async with boarded(patience=0.5) as (pipe, board):
        begin = time.monotonic()
        async with viewing(board, reliable=reliable) as stalled, viewing(board) as other:
            await stalled.unanswered()
            await other.told()
            for second in range(1, 51):
                pipe.metrics.tick(begin + second)
                assert len((await other.told())["points"]["at"]) == 1
            with pytest.raises(websockets.ConnectionClosed) as caught:
                await stalled.unanswered()
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1013, "too slow")
            pipe.metrics.tick(begin + 51)
            await other.told()


async def test_a_viewer_that_is_slow_gets_what_it_missed_in_one_message() -> None:
    async with boarded() as (pipe, board), viewing(board) as viewer:
        begin = time.monotonic()
        await viewer.unanswered()
        for second in range(1, 31):
            pipe.metrics.tick(begin + second)
        await viewer.conn.send("ok")
        assert len((await viewer.told())["points"]["at"]) == 30


async def test_viewers_that_know_the_same_share_a_message_that_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with boarded() as (pipe, board), viewing(board) as one, viewing(board) as another:
        await one.told()
        await another.told()
        asked = []
        stats = pipe.stats
        monkeypatch.setattr(pipe, "stats", lambda: asked.append(1) or stats())
        pipe.metrics.tick()
        for_metrics = len(asked)
        told = await one.told()
        assert told == await another.told()
        assert "config" not in told
        assert len(asked) == for_metrics + 1


async def test_without_viewers_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with boarded() as (pipe, board):
        async with viewing(board) as viewer:
            await viewer.told()
            await until(lambda: board._feed.viewers == 1)
        await until(lambda: board._feed.viewers == 0)
        monkeypatch.setattr("penstock.dashboard.feed.state_of", None)
        pipe.metrics.tick()
        await asyncio.sleep(0.01)


async def test_more_viewers_than_may_be_are_told_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.dashboard.feed.MAX_VIEWERS", 1)
    async with boarded() as (_, board), viewing(board) as first:
        await first.told()
        async with viewing(board) as second:
            with pytest.raises(websockets.ConnectionClosed) as caught:
                await second.told()
            assert caught.value.rcvd.code == 1013
        await until(lambda: board._feed.viewers == 1)


async def test_the_state_tells_what_the_middleware_does() -> None:
    async with ledger() as book, boarded() as (pipe, board), viewing(board) as viewer:
        await viewer.told()
        for number in range(5):
            await pipe.send(book.url, str(number), priority=Priority.HIGH)
        await until(lambda: len(book.messages) == 5)
        pipe.manager.bypass("batch", book.url, reason="for the test")
        before = time.time()
        pipe.metrics.tick()
        state = (await viewer.told())["state"]
    stats = pipe.stats()
    assert state["pool"]["opened"] == stats.pool.opened == 1
    assert state["batch"]["delivered"] == 5
    assert sum(one["total"] for one in state["flushes"]) == sum(stats.sending.batches.values())
    (row,) = state["urls"]
    assert row["url"] == book.url
    assert row["stages"]["pool"] == {"mode": "optimized", "reason": "configured", "since": None}
    assert (row["stages"]["batch"]["mode"], row["stages"]["batch"]["reason"]) == ("bypassed", "for the test")
    assert row["stages"]["batch"]["since"] == pytest.approx(before, abs=5)
    (change,) = state["transitions"]
    assert (change["stage"], change["to"], change["url"]) == ("batch", "bypassed", book.url)


async def test_of_the_state_only_what_has_changed_is_told_and_all_of_it_to_who_is_slow() -> None:
    async with boarded() as (pipe, board), viewing(board) as slow, viewing(board) as fast:
        begin = time.monotonic()
        everything = (await slow.unanswered())["state"]
        assert everything == (await fast.told())["state"]
        changes = [lambda: pipe.manager.switch("pool", "ws://1.example/"), lambda: pipe.manager.bypass("pool"), int]
        told = []
        for second, change in enumerate(changes, 1):
            change()
            pipe.metrics.tick(begin + second)
            told.append((await fast.told())["state"])
        assert [list(one) for one in told] == [["urls"], ["urls", "transitions"], []]
        await slow.conn.send("ok")
        assert (await slow.told())["state"] == told[0] | told[1]


async def test_no_more_urls_are_shown_than_can_be_read_and_those_in_trouble_come_first() -> None:
    async with boarded() as (pipe, board):
        for number in range(60):
            pipe.manager.switch(penstock.Stage.POOL, f"ws://{number}.example/")
        pipe.manager.bypass("cache", "ws://59.example/")
        async with viewing(board) as viewer:
            state = (await viewer.told())["state"]
    assert (len(state["urls"]), state["more_urls"]) == (50, 10)
    assert state["urls"][0]["url"] == "ws://59.example/"


async def test_alerts_tell_since_when_by_the_clock_on_the_wall() -> None:
    rule = AlertRule(
        name="Idle", expression=Gauge(select(m.POOL_WAITERS)), fire=1, below=True, by=("pool",), summary="Nobody waits"
    )
    async with boarded() as (pipe, board), viewing(board) as viewer:
        judge(pipe, rule)
        await viewer.told()
        pipe.metrics.tick()
        alerts = {alert["name"]: alert for alert in (await viewer.told())["state"]["alerts"]}
    alert = alerts["Idle"]
    assert (alert["state"], alert["severity"], alert["labels"]) == ("firing", "warning", {"pool": "main"})
    assert (alert["summary"], alert["value"], alert["rule"]) == ("Nobody waits", 0, "< 1")
    assert alert["fired_at"] == pytest.approx(time.time(), abs=5)
    assert alert["resolved_at"] is None


async def test_a_middleware_that_measures_nothing_is_shown_as_that() -> None:
    async with (
        watched({"metrics": MetricsConfig(enabled=False)}) as pipe,
        Dashboard(pipe) as board,
        viewing(board) as viewer,
    ):
        first = await viewer.told()
        assert first["interval"] is None
        assert first["points"]["at"] == []


@pytest.mark.parametrize("reliable", [True, False])
async def test_closing_tells_viewers_and_leaves_nothing_behind(reliable: bool) -> None:
    async with watched() as pipe:
        watchers = len(pipe.metrics._watchers)
        async with Dashboard(pipe) as board:
            port = board.url
            viewer = viewing(board, reliable=reliable)
            conn = (await viewer.__aenter__()).conn
            await conn.recv()
        assert len(pipe.metrics._watchers) == watchers
        with pytest.raises(websockets.ConnectionClosed):
            await conn.recv()
        assert conn.close_code in (1001, 1012)
        await viewer.__aexit__(None, None, None)
        async with Dashboard(pipe, port=int(port.split(":")[2].strip("/"))):
            pass


@pytest.mark.parametrize("reliable", [True, False])
async def test_a_viewer_that_takes_nothing_does_not_keep_the_dashboard_open(
    reliable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.dashboard.dashboard.SHUTDOWN_TIMEOUT", 0.1)
    async with watched() as pipe, Dashboard(pipe) as board, relaying(port_in(board)) as between:
        conn = await penstock.connect(between.url + "feed", reliable=reliable)
        await conn.send("{}")
        await conn.recv()
        between.pause()
        async with asyncio.timeout(3):
            await board.__aexit__(None, None, None)
        await board.__aenter__()
        between.go_on()
        with pytest.raises(websockets.ConnectionClosed):
            await conn.recv()
