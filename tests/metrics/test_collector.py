"""Reading sources."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from penstock import MetricsCollector, __version__
from penstock.metrics import catalogue as m
from penstock.metrics.histogram import Histogram
from penstock.metrics.samples import MetricsSnapshot, Sample


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def collector() -> MetricsCollector:
    return MetricsCollector(clock=Clock())


def test_a_source_is_asked_only_when_somebody_asks() -> None:
    asked = []

    def source() -> Iterator[Sample]:
        asked.append(1)
        yield Sample(m.CACHE_ENTRIES, 3)

    one = collector()
    one.add_source(source)
    assert not asked
    snapshot = one.snapshot()
    assert snapshot.at == 100.0
    assert snapshot.value("cache.entries") == 3
    assert len(asked) == 1
    assert one.history.latest is None


def test_rates_differences_and_quantiles_are_of_a_window() -> None:
    one, histogram, count = collector(), Histogram(), 0
    one.add_source(lambda: [Sample(m.BATCH_FLUSHES, count, ("size",)), Sample(m.BATCH_WAIT, histogram.snapshot())])
    for second in range(30):
        count += 5 if second > 20 else 1
        histogram.record(0.5 if second > 20 else 0.001)
        one.tick(float(second))
    assert one.rate("batch.flushes", 5) == 5
    assert one.delta("batch.flushes", 5, reason="size") == 25
    assert one.delta("batch.flushes", 5, reason="time") == 0
    assert one.rate("batch.wait", 10) == 1
    assert one.quantile("batch.wait", 0.5, 5) == pytest.approx(0.5, rel=0.0625)
    assert one.quantile("batch.wait", 0.5, 29) == pytest.approx(0.001, rel=0.0625)
    assert one.quantile("ping.rtt", 0.5, 29) is None


@pytest.mark.parametrize(("seconds", "fine"), [(5.0, 5), (900.0, 60)])
def test_what_was_read_is_kept_for_as_long_as_asked(seconds: float, fine: int) -> None:
    one = MetricsCollector(history=seconds, clock=Clock())
    for second in range(1000):
        one.tick(float(second))
    kept = [snapshot.at for snapshot in one.history]
    assert 999 - 20 <= kept[0] + seconds <= 999
    assert kept[-fine:] == [float(second) for second in range(1000 - fine, 1000)]
    assert len(kept) <= fine + seconds / 10 + 2


def test_rates_are_zero_before_anything_was_read() -> None:
    assert collector().rate("messages", 60) == 0


def test_a_source_that_fails_is_counted_logged_once_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    one, ill = collector(), True

    def failing() -> Iterator[Sample]:
        yield Sample(m.CACHE_SIZE, 1)
        if ill:
            raise LookupError("lost")

    one.add_source(failing)
    one.add_source(lambda: [Sample(m.CACHE_ENTRIES, 3)])
    for _ in range(3):
        snapshot = one.snapshot()
        assert snapshot.value("cache.entries") == 3
        assert snapshot.value("cache.size") is None
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "LookupError: lost" in caplog.text
    ill = False
    assert one.snapshot().value("cache.size") == 1
    assert one.snapshot().value("self_failures", what="source") == 3
    ill = True
    one.snapshot()
    assert len(caplog.records) == 2


def test_what_a_removed_source_has_counted_stays() -> None:
    one, histogram = collector(), Histogram()
    histogram.record(0.5)
    for _ in range(2):
        remove = one.add_source(
            lambda: [
                Sample(m.BATCH_FLUSHES, 5, ("size",)),
                Sample(m.BATCH_WAIT, histogram.snapshot()),
                Sample(m.CACHE_ENTRIES, 9),
            ]
        )
        remove()
        remove()
    snapshot = one.snapshot()
    assert snapshot.value("batch.flushes") == 10
    assert snapshot.value("batch.wait") == 2
    assert snapshot.value("cache.entries") is None


def test_it_tells_what_runs_and_what_it_costs() -> None:
    one = collector()
    one.watch(lambda now: None)
    one.tick()
    snapshot = one.snapshot()
    assert snapshot.value("build_info", version=__version__, python=sys.version.split()[0]) == 1
    assert 0 < (snapshot.value("self") or 0) < 1


def test_those_who_watch_are_called_after_each_reading_until_they_end_it() -> None:
    one, seen = collector(), []
    end = one.watch(seen.append)
    one.tick(1.0)
    end()
    end()
    one.tick(2.0)
    assert seen == [1.0]


def test_one_who_watches_and_fails_is_counted_logged_once_and_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    one, seen, errors = collector(), [], [LookupError("x"), LookupError("x"), None, LookupError("x")]

    def fail(now: float) -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    one.watch(fail)
    one.watch(seen.append)
    for second in range(4):
        one.tick(float(second))
    assert seen == [0.0, 1.0, 2.0, 3.0]
    assert one.snapshot().value("self_failures", what="watcher") == 3
    assert len([record for record in caplog.records if record.exc_info]) == 2


async def test_once_started_it_reads_regularly_and_sees_a_loop_that_is_held_up() -> None:
    one = MetricsCollector(interval=0.02)
    seen: list[MetricsSnapshot] = []
    done = asyncio.Event()

    def look(now: float) -> None:
        snapshot = one.history.latest
        assert snapshot is not None
        seen.append(snapshot)
        if len(seen) >= 3 and snapshot.histogram("event_loop_lag").count:
            done.set()

    one.watch(look)
    one.start()
    one.start()
    threading.Event().wait(0.3)
    await asyncio.wait_for(done.wait(), 10)
    one.stop()
    assert [snapshot.at for snapshot in seen] == sorted({snapshot.at for snapshot in seen})
    assert seen[-1].histogram("event_loop_lag").quantile(1) > 0.1
    read = len(seen)
    await asyncio.sleep(0.05)
    assert len(seen) == read


def test_it_can_be_started_again_when_its_loop_is_gone() -> None:
    one, seen = MetricsCollector(interval=0.01), []
    one.watch(seen.append)

    async def main() -> None:
        one.start()
        read = len(seen)
        async with asyncio.timeout(10):
            while len(seen) < read + 2:
                await asyncio.sleep(0.01)

    asyncio.run(main())
    asyncio.run(main())


async def test_another_thread_gets_what_was_read_last() -> None:
    one, threads = MetricsCollector(), set()

    def source() -> list[Sample]:
        threads.add(threading.get_ident())
        return []

    one.add_source(source)
    one.start()
    assert await asyncio.to_thread(one.snapshot) is one.history.latest
    assert threads == {threading.get_ident()}
    one.stop()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_an_interval_or_a_history_that_is_none_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"^interval="):
        MetricsCollector(interval=seconds)
    with pytest.raises(ValueError, match=r"^history="):
        MetricsCollector(history=seconds)
