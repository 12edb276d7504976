"""Reads all sources, once a second or when somebody asks, and remembers what it has read."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable

from penstock._version import __version__
from penstock.metrics.catalogue import BUILD_INFO, EVENT_LOOP_LAG, SELF, SELF_FAILURES, Metric, find
from penstock.metrics.histogram import Histogram
from penstock.metrics.history import History
from penstock.metrics.samples import Labels, MetricsSnapshot, Reading, Sample, Source

FINE = 60.0
"""Seconds for which every reading is kept, if any is for so long."""
LAG_INTERVAL = 0.1
"""Seconds between two looks at how late the event loop is."""
FAILURES = ("source", "watcher", "rule", "sink", "queue")
"""What can go wrong in measuring."""

logger = logging.getLogger("penstock.metrics")


class MetricsCollector:
    """All metrics of a program: add sources, ask for values.

    Reading costs what the sources cost, in the event loop; between readings nothing is spent. Once started it reads
    each second, and rates, differences and quantiles over windows as long as its history can be asked for.

    Args:
        interval: seconds between readings.
        history: seconds for which what was read is kept.
        clock: monotonic seconds.
    """

    def __init__(
        self, *, interval: float = 1.0, history: float = 900.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not interval > 0:
            raise ValueError(f"interval={interval!r}: must be greater than 0")
        if not history > 0:
            raise ValueError(f"history={history!r}: must be greater than 0")
        self.history = History(fine=min(FINE, history), span=history)
        self._interval, self._clock = interval, clock
        self._sources: dict[Source, object] = {}
        self._watchers: list[Callable[[float], object]] = []
        self._past: list[Sample] = []
        """What sources had counted that were removed."""
        self._failing: set[object] = set()
        """Sources, and the ids of watchers, of which the log has told."""
        self._failures = dict.fromkeys(FAILURES, 0)
        self._seconds = 0.0
        self._lag = Histogram()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: int | None = None
        self.add_source(self._own)

    # Sources

    def add_source(self, source: Source) -> Callable[[], None]:
        """Ask a source from now on; call what is returned to remove it again.

        What its counters and histograms have counted stays in their sums. A source that raises, or reports what its
        metric does not allow, is counted in ``penstock_self_failures_total``, logged once until it is well again, and
        left out meanwhile.
        """
        token = object()
        self._sources[source] = token

        def remove() -> None:
            if self._sources.get(source) is token:
                del self._sources[source]
                self._retire(source)

        return remove

    def _retire(self, source: Source) -> None:
        last = Reading()
        self._read(source, last)
        self._failing.discard(source)
        past = Reading()
        past.add(sample for sample in [*self._past, *last.snapshot(0.0)] if sample.metric.kind != "gauge")
        self._past = list(past.snapshot(0.0))

    def failed(self, what: str) -> None:
        """Count a failure of measuring, one of ``FAILURES``."""
        self._failures[what] += 1

    def _read(self, source: Source, reading: Reading) -> None:
        try:
            reading.add(list(source()))
        except Exception:
            self.failed("source")
            if source not in self._failing:
                self._failing.add(source)
                logger.exception("a source of metrics failed, and is left out until it is well again")
        else:
            self._failing.discard(source)

    def _own(self) -> Iterable[Sample]:
        yield Sample(BUILD_INFO, 1.0, (__version__, ".".join(map(str, sys.version_info[:3]))))
        yield Sample(EVENT_LOOP_LAG, self._lag.snapshot())
        yield Sample(SELF, self._seconds)
        for what, number in self._failures.items():
            yield Sample(SELF_FAILURES, number, (what,))

    # Reading

    def snapshot(self, now: float | None = None) -> MetricsSnapshot:
        """Read all sources.

        A thread other than the event loop's gets what was read last, once the collector is started: counters have one
        writer, and no lock.

        Args:
            now: seconds on the monotonic clock; None reads the clock.
        """
        if self._thread is not None and self._thread != threading.get_ident():
            latest = self.history.latest
            if latest is not None:
                return latest
        began = time.perf_counter()
        reading = Reading()
        for source in list(self._sources):
            self._read(source, reading)
        reading.add(self._past)
        self._seconds += time.perf_counter() - began
        return reading.snapshot(self._clock() if now is None else now)

    def tick(self, now: float | None = None) -> MetricsSnapshot:
        """Read all sources, remember it, and call those who `watch`; a started collector does so by itself."""
        snapshot = self.snapshot(now)
        self.history.add(snapshot)
        began = time.perf_counter()
        for watcher in list(self._watchers):
            self._call(watcher, snapshot.at)
        self._seconds += time.perf_counter() - began
        return snapshot

    def _call(self, watcher: Callable[[float], object], at: float) -> None:
        try:
            watcher(at)
        except Exception:
            self.failed("watcher")
            if id(watcher) not in self._failing:
                self._failing.add(id(watcher))
                logger.exception("a function that watches metrics failed, and is called again after each reading")
        else:
            self._failing.discard(id(watcher))

    def watch(self, watcher: Callable[[float], object]) -> Callable[[], None]:
        """Call ``watcher`` with the time after each reading; call what is returned to end that.

        One that raises is counted and logged as a source is, and called after the next reading.
        """
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher) if watcher in self._watchers else None

    # What was read

    def delta(self, name: str | Metric, window: float, **labels: str | Labels) -> float:
        """What a counter has counted in the last ``window`` seconds, or how a gauge has changed; 0 if unknown.

        It is the sum over all values of the labels that are not given; a label may be given several, as a tuple.
        A histogram counts its values.

        Raises:
            KeyError: there is no such metric, or it has no such label.
        """
        return self.history.delta(find(name), window, labels)

    def rate(self, name: str | Metric, window: float, **labels: str | Labels) -> float:
        """The same for each second.

        Raises:
            KeyError: as `delta`.
        """
        elapsed = self.history.elapsed(window)
        return self.history.delta(find(name), window, labels) / elapsed if elapsed > 0 else 0.0

    def quantile(self, name: str | Metric, q: float, window: float, **labels: str | Labels) -> float | None:
        """What a part ``q`` of the values recorded in the last ``window`` seconds does not exceed, within 6.25 %.

        None if there were no values.

        Raises:
            KeyError: as `delta`.
            ValueError: ``q`` is not from 0 to 1.
        """
        return self.history.quantile(find(name), q, window, labels)

    # Life

    def start(self) -> None:
        """Read regularly from now on, in the running event loop, and watch how late that is; no task is needed.

        Does nothing if it was started and not stopped, unless its event loop is closed.
        """
        if self._loop is not None and not self._loop.is_closed():
            return
        self.stop()
        self._loop = loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        now = self._clock()
        self.tick(now)
        self._call_at(loop, now + self._interval, self._interval, self._tick)
        self._call_at(loop, now + LAG_INTERVAL, LAG_INTERVAL, self._look_at_lag)

    def stop(self) -> None:
        """Read no more by itself; what was read stays."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._loop = self._thread = None

    def _call_at(
        self, loop: asyncio.AbstractEventLoop, due: float, interval: float, work: Callable[[float, float], None]
    ) -> None:
        """Call ``work`` with the time and the time at which it was due, again and again."""

        def run() -> None:
            now = self._clock()
            after = due + interval if now < due + interval else now + interval  # what was missed is not made up for
            self._call_at(loop, after, interval, work)
            work(now, due)

        self._timers[work.__name__] = loop.call_later(due - self._clock(), run)

    def _tick(self, now: float, _: float) -> None:
        self.tick(now)

    def _look_at_lag(self, now: float, due: float) -> None:
        self._lag.record(now - due)
