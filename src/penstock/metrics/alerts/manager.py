"""Judges alert rules each time the collector has read its sources, and tells the sinks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from penstock.metrics.alerts.delivery import Delivery
from penstock.metrics.alerts.engine import Alert, AlertEngine
from penstock.metrics.alerts.rules import AlertRule, default_rules
from penstock.metrics.alerts.sinks import LogSink, Sink
from penstock.metrics.catalogue import ALERTS_FIRING
from penstock.metrics.collector import MetricsCollector
from penstock.metrics.samples import Labels, Sample

logger = logging.getLogger("penstock.alerts")


class AlertManager:
    """Alerts about what a collector reads, once a second.

    Use it as ``async with AlertManager(collector):``, or call `start` and `close`. A sink that fails is tried again six
    times with growing delays; no more than a hundred notifications wait for it.

    Args:
        rules: None: the default ones.
        sinks: None: the log.
        random: uniform in [0, 1).
    """

    def __init__(
        self,
        collector: MetricsCollector,
        rules: Iterable[AlertRule] | None = None,
        sinks: Iterable[Sink] | None = None,
        *,
        random: Callable[[], float] = random.random,
    ) -> None:
        self.collector = collector
        self._engine = AlertEngine(default_rules() if rules is None else rules)
        self._random = random
        self._deliveries: list[Delivery] = []
        self._ends: list[Callable[[], None]] = []
        for sink in (LogSink(),) if sinks is None else sinks:
            self.add_sink(sink)

    @property
    def rules(self) -> tuple[AlertRule, ...]:
        """What is judged."""
        return self._engine.rules

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """All that are pending or firing, and those that were resolved in the last quarter of an hour."""
        return self._engine.alerts

    @property
    def firing(self) -> tuple[Alert, ...]:
        """Those that are firing."""
        return tuple(alert for alert in self._engine.alerts if alert.state == "firing")

    def add_sink(self, sink: Sink) -> None:
        """Tell one sink more, from now on."""
        self._deliveries.append(Delivery(sink, self._random, self.collector.failed))

    def start(self) -> None:
        """Judge from now on, in the running event loop; starts the collector, if it was not. Twice is as once."""
        if not self._ends:
            self._ends = [self.collector.add_source(self._own), self.collector.watch(self.evaluate)]
            self.collector.start()

    async def close(self, timeout: float = 1.0) -> None:
        """Judge no more, and send what waits, for up to ``timeout`` seconds; the collector goes on.

        Cancelling ends the waiting, and what waits is dropped with the event loop.
        """
        for end in self._ends:
            end()
        self._ends = []
        await asyncio.gather(*(delivery.close(timeout) for delivery in self._deliveries))

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def evaluate(self, now: float) -> list[Alert]:
        """Judge what the collector has read last; return, and send, what has begun to fire or was resolved.

        A manager that was started does so by itself.

        Args:
            now: seconds on the monotonic clock.
        """
        changed = self._engine.evaluate(self.collector.history, now)
        for rule, error in self._engine.failures:
            self.collector.failed("rule")
            if any(alert.rule is rule and alert.error for alert in changed):
                logger.error("the alert rule %s cannot be evaluated", rule.name, exc_info=error)
        for delivery in self._deliveries:
            delivery.offer(changed, lambda: self.firing, now)
        return changed

    def _own(self) -> list[Sample]:
        firing: dict[Labels, float] = {(rule.name, rule.severity): 0 for rule in self.rules}
        for alert in self.firing:
            at = (alert.name, alert.severity)
            firing[at] = firing.get(at, 0) + 1
        return [Sample(ALERTS_FIRING, number, labels) for labels, number in firing.items()]
