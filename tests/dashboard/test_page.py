"""The page in a browser."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

from clients.chromium import Page, page
from clients.node import CLIENT
from dashboard.boards import boarded, judge, port_in, watched
from penstock import AlertRule, Dashboard, Priority
from penstock.dashboard import dashboard
from penstock.metrics import catalogue as m
from penstock.metrics.alerts.expressions import Gauge, select
from penstock.metrics.histogram import Histogram
from penstock.metrics.samples import Sample
from support.pipes import ledger
from support.rpcserver import rpc_server

STATIC = Path(dashboard.__file__).parent / "static"
TOKEN = "a-token-of-sufficient-length"


async def shows(shown: Page, selector: str, text: str) -> None:
    """Wait until an element has this text."""
    found = None
    try:
        async with asyncio.timeout(10):
            while found != text:
                found = await shown.evaluate(f"document.querySelector({selector!r})?.textContent")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{selector} shows {found!r}, not {text!r}") from None


def plain(text: str) -> str:
    return text.replace("\u202f", " ")


async def values(shown: Page) -> dict[str, str]:
    found = "[...document.querySelectorAll('[data-series]')].map((e) => [e.dataset.series, e.textContent])"
    return {name: plain(text) for name, text in await shown.evaluate(found)}


async def test_the_page_shows_what_the_metrics_are_and_asks_nobody_else(tmp_path: Path) -> None:
    rtt = Histogram()
    counted = [Sample(m.MESSAGE_BYTES, 0.0, ("client", "sent")), Sample(m.MESSAGE_BYTES, 0.0, ("client", "received"))]
    async with ledger() as book, rpc_server() as server, boarded() as (pipe, board):
        pipe.metrics.add_source(lambda: [*counted, Sample(m.PING_RTT, rtt.snapshot(), ("client",))])
        begin = time.monotonic()
        pipe.metrics.tick(begin)
        async with page(board.url, tmp_path / "profile") as shown:
            await shows(shown, "#link-text", "Live")
            for number in range(12):
                await pipe.send(book.url, str(number), priority=Priority.HIGH)
            await pipe.drain(book.url)
            rpc = pipe.rpc(server.url)
            for _ in range(4):
                await rpc.call("echo", [1], ttl=60)
            rtt.record(0.25)
            counted[0] = Sample(m.MESSAGE_BYTES, 123_400.0, ("client", "sent"))
            async with pipe.connection(book.url):
                pipe.metrics.tick(begin + 10)
                await shows(shown, '[data-series="pool_in_use"]', str(pipe.stats().pool.in_use))
            seen = await values(shown)
            latest = pipe.metrics.history.latest
            assert latest is not None
            assert seen["pool_max"] == f"{latest.value(m.POOL_CONNECTIONS_MAX):.0f}"
            assert seen["pool_waiting"] == "0"
            assert seen["cache_hit_ratio"] == "75 %"
            assert seen["ping_p99"] == f"{pipe.metrics.quantile(m.PING_RTT, 0.99, 10, role='client') * 1000:.0f} ms"
            assert seen["batch_pending"] == "0"
            assert seen["batch_size"] == f"{12 / pipe.metrics.delta(m.BATCH_MESSAGES, 10):.3g}"
            assert (
                seen["bytes_sent"]
                == f"{pipe.metrics.rate(m.MESSAGE_BYTES, 10, role='client', direction='sent') / 1000:.3g} kB/s"
            )
            urls = await shown.evaluate("[...document.querySelectorAll('#urls tr th')].map((e) => e.textContent)")
            assert set(urls) == set(pipe.manager.modes())
            setting = (
                "[...document.querySelectorAll('#config tr')].find((e) => e.textContent.includes('max_connections'))"
            )
            assert str(pipe.config.pool.max_connections) in await shown.evaluate(f"{setting}.textContent")
            assert shown.complaints == []
            host = f"127.0.0.1:{port_in(board)}/"
            assert len(shown.requests) > 5
            assert {re.sub("^(http|ws)://", "", url)[: len(host)] for url in shown.requests} == {host}


async def test_what_is_firing_is_seen_first_and_bypassed_stages_after_it(tmp_path: Path) -> None:
    rule = AlertRule(
        name="Idle",
        expression=Gauge(select(m.POOL_WAITERS)),
        fire=1,
        below=True,
        severity="critical",
        summary="No work",
    )
    async with boarded() as (pipe, board), page(board.url, tmp_path / "profile") as shown:
        await shows(shown, "#word", "All is well")
        pipe.manager.switch("cache", "ws://localhost/")
        pipe.manager.bypass("cache")
        pipe.metrics.tick()
        await shows(shown, "#word", "Nothing is firing. Not in use for some URLs: cache")
        await shows(shown, ".mode.bypassed", "bypassed")
        judge(pipe, rule)
        pipe.metrics.tick()
        await shows(shown, "#word", "1 alert firing: Idle")
        assert await shown.evaluate("verdict.dataset.level") == "critical"
        assert (await shown.evaluate("since.textContent")).startswith("since ")
        assert "Idle is firing. No work." in await shown.evaluate("announcement.textContent")
        assert "Idle" in await shown.evaluate("document.title")
        assert shown.complaints == []


async def test_the_page_outlives_the_server_and_has_the_history_again(tmp_path: Path) -> None:
    counted = [Sample(m.MESSAGE_BYTES, 0.0, ("client", "sent"))]
    most = "[aria-labelledby='card-bytes'] tbody td:last-child"
    async with watched() as pipe:
        pipe.metrics.add_source(lambda: counted)
        begin = time.monotonic()
        pipe.metrics.tick(begin + 1)
        async with Dashboard(pipe) as board, page(board.url, tmp_path / "profile") as shown:
            port = port_in(board)
            await shows(shown, "#link-text", "Live")
            await board.__aexit__(None, None, None)
            await shows(shown, "#word", "No connection: the state is not known")
            counted[0] = Sample(m.MESSAGE_BYTES, 5e6, ("client", "sent"))
            pipe.metrics.tick(begin + 2)  # nobody saw it
            pipe.metrics.tick(begin + 3)
            board._port = port
            await board.__aenter__()
            await shows(shown, "#link-text", "Live")
            await shows(shown, "#word", "All is well")
            await shows(shown, most, "5\u202fMB/s")
            pipe.manager.switch("pool", "ws://localhost/")
            pipe.metrics.tick(begin + 4)
            await shows(shown, "#urls th", "ws://localhost/")
            assert all("ERR_CONNECTION" in one for one in shown.complaints)


async def test_the_token_is_taken_from_the_address_and_asked_for_where_it_is_wrong(tmp_path: Path) -> None:
    async with boarded(token=TOKEN) as (_, board):
        async with page(board.url, tmp_path / "profile") as shown:
            await shows(shown, "#word", "All is well")
            assert await shown.evaluate("location.hash") == ""
            assert all(TOKEN not in url for url in shown.requests if not url.startswith("http"))
        async with page(board.url.partition("#")[0], tmp_path / "another") as shown:
            await shows(shown, "#word", "Waiting for data")
            await until_visible(shown, "entry")
            await shown.evaluate(f"token.value = {TOKEN!r}; entry.requestSubmit()")
            await shows(shown, "#word", "All is well")
            assert shown.complaints == []


async def until_visible(shown: Page, name: str) -> None:
    async with asyncio.timeout(10):
        while await shown.evaluate(f"{name}.hidden"):
            await asyncio.sleep(0.02)


async def test_every_control_has_a_name_and_is_reached_by_the_keyboard(tmp_path: Path) -> None:
    async with boarded() as (_, board), page(board.url, tmp_path / "profile") as shown:
        await shows(shown, "#link-text", "Live")
        tree: list[Any] = (await shown.call("Accessibility.getFullAXTree"))["nodes"]
        names: dict[str, list[str]] = {}
        for node in tree:
            if not node["ignored"]:
                role = node["role"]["value"]
                names.setdefault(role, []).append(node.get("name", {}).get("value", ""))
        assert {"banner", "main", "contentinfo"} <= set(names)
        assert len(names["heading"]) >= 14
        for role in ("button", "radio", "DisclosureTriangle", "region", "link", "heading"):
            assert all(names[role]), role
        for theme in ("light", "dark", "system"):
            await shown.evaluate("theme.click()")
            await shows(shown, "#theme", f"Theme: {theme}")
        assert await shown.evaluate("document.documentElement.scrollWidth <= innerWidth")


async def test_who_pauses_the_page_still_sees_what_fires(tmp_path: Path) -> None:
    rule = AlertRule(name="Idle", expression=Gauge(select(m.POOL_WAITERS)), fire=1, below=True, summary="No work")
    waiting = [Sample(m.POOL_WAITERS, 0.0, ("test",))]
    async with boarded() as (pipe, board), page(board.url, tmp_path / "profile") as shown:
        pipe.metrics.add_source(lambda: waiting)
        pipe.metrics.tick()
        await shows(shown, "[data-series='pool_waiting']", "0")
        await shown.evaluate("pause.click()")
        await shows(shown, "#pause[aria-pressed='true']", "Paused: go on")
        judge(pipe, rule)
        pipe.metrics.tick()
        await shows(shown, "#word", "1 alert firing: Idle")
        waiting[0] = Sample(m.POOL_WAITERS, 5.0, ("test",))
        pipe.metrics.tick()
        await shows(shown, "#word", "All is well")
        assert (await values(shown))["pool_waiting"] == "0"
        await shown.evaluate("pause.click()")
        await shows(shown, "[data-series='pool_waiting']", "5")
        assert shown.complaints == []


# What the package has


def test_the_client_is_the_one_of_this_repository() -> None:
    assert (STATIC / "penstock.js").resolve() == (CLIENT / "penstock.js").resolve()


def test_pages_name_no_place_elsewhere_and_have_nothing_inline() -> None:
    text = (STATIC / "index.html").read_text()
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=|https?://", text)
    named = re.findall(r'(?:src|href)="([^"#]+)"', text)
    assert named
    assert all((STATIC / name).is_file() for name in named)
    for name in ("board.js", "charts.js", "state.js", "format.js", "board.css"):
        assert "://" not in (STATIC / name).read_text()


def test_what_is_not_ours_says_its_version_and_its_licence() -> None:
    assert "(v1.6.32)" in (STATIC / "uPlot-1.6.32.iife.min.js").read_text()[:100]
    assert (STATIC / "uPlot-1.6.32.LICENSE.txt").read_text().startswith("The MIT License")
