"""Loans that nobody returns."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from penstock.pool import care as care_module
from support.pools import URL, pooling, until

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_loan_that_is_collected_frees_its_slot_and_is_logged(
    shared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with pooling(max_connections=1) as (pool, servers):
        conn = await pool.get_connection(URL, shared=shared)
        assert conn.is_connected
        del conn
        gc.collect()
        async with asyncio.timeout(5), pool.get_connection(URL):
            assert servers.attempts == 2
        assert pool.stats().leaked == 1
        assert pool.stats().closed == {"leaked": 1}
    assert f"a connection to {URL} was never returned" in caplog.text


async def test_a_loan_that_lasts_too_long_is_logged_once_with_the_place_it_was_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)
    async with pooling(lease_warning=0.05) as (pool, _):
        for _ in range(2):  # the first waits, the second does not
            caplog.clear()
            async with pool.get_connection(URL):
                await until(lambda: caplog.records)
                await asyncio.sleep(0.05)
            assert len(caplog.records) == 1
            assert Path(__file__).name in caplog.text
            assert "test_a_loan_that_lasts_too_long" in caplog.text


async def test_a_loan_that_is_returned_in_time_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(care_module, "CARE_INTERVAL", 0.01)
    async with pooling(lease_warning=0.05) as (pool, _):
        (await pool.get_connection(URL)).release()
        await asyncio.sleep(0.1)
    assert not caplog.records
