"""Rules judged each time that something was read."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

import pytest

from penstock import AlertManager, AlertRule, MetricsCollector
from penstock.metrics import catalogue as m
from penstock.metrics.alerts.engine import Alert
from penstock.metrics.alerts.expressions import Gauge, select
from penstock.metrics.alerts.rules import default_rules
from penstock.metrics.alerts.sinks import CallbackSink
from penstock.metrics.samples import Sample

FULL = AlertRule(name="Full", expression=Gauge(select(m.CACHE_ENTRIES)), fire=5, summary="full")
BROKEN = AlertRule(name="Broken", expression=Gauge(select(m.CACHE_ENTRIES, colour="red")), fire=5, summary="no")


class Program:
    """Something with one number, and what was told about it."""

    def __init__(self, *rules: AlertRule) -> None:
        self.entries = 0.0
        self.told: list[tuple[str, str]] = []
        self.collector = MetricsCollector(interval=0.01)
        self.collector.add_source(lambda: [Sample(m.CACHE_ENTRIES, self.entries)])
        self.alerts = AlertManager(self.collector, rules, [CallbackSink(self.tell)])
        self.heard = asyncio.Event()

    def tell(self, alert: Alert) -> None:
        self.told.append((alert.name, alert.state))
        self.heard.set()

    async def hear(self) -> None:
        await asyncio.wait_for(self.heard.wait(), 10)
        self.heard.clear()


async def test_what_happens_is_told_from_start_to_close() -> None:
    program = Program(FULL)
    async with program.alerts:
        program.entries = 6
        await program.hear()
        assert [alert.name for alert in program.alerts.firing] == ["Full"]
        assert program.collector.snapshot().value("alerts.firing", alertname="Full", severity="warning") == 1
        program.entries = 0
        await program.hear()
        assert program.alerts.firing == ()
        assert [alert.state for alert in program.alerts.alerts] == ["resolved"]
        assert program.collector.snapshot().value("alerts.firing") == 0
    assert program.told == [("Full", "firing"), ("Full", "resolved")]
    program.entries = 6
    program.collector.tick()
    assert program.alerts.firing == ()
    assert program.collector.snapshot().value("alerts.firing") is None
    program.collector.stop()


async def test_what_waits_is_sent_before_it_is_closed() -> None:
    program = Program(FULL)
    program.entries = 6
    program.alerts.start()
    program.alerts.start()
    await program.alerts.close()
    assert program.told == [("Full", "firing")]
    program.collector.stop()


async def test_a_rule_that_cannot_be_evaluated_is_told_counted_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    program = Program(BROKEN, FULL)
    program.entries = 6
    for second in range(3):
        program.collector.tick(float(second))
        program.alerts.evaluate(float(second))
    await program.alerts.close()
    assert sorted(program.told) == [("AlertRuleFailed", "firing"), ("Full", "firing")]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "Broken" in caplog.text
    assert program.collector.snapshot().value("self_failures", what="rule") == 3


async def test_a_sink_that_fails_is_counted() -> None:
    collector = MetricsCollector()
    manager = AlertManager(collector, [FULL], [])

    def refuse(alert: Alert) -> None:
        raise LookupError

    manager.add_sink(CallbackSink(refuse))
    collector.add_source(lambda: [Sample(m.CACHE_ENTRIES, 9)])
    collector.tick(0.0)
    manager.evaluate(0.0)
    await manager.close(0.05)
    assert collector.snapshot().value("self_failures", what="sink") == 1
    assert collector.snapshot().value("self_failures", what="queue") == 1


async def test_sinks_that_never_answer_take_their_time_together() -> None:
    collector = MetricsCollector()
    collector.add_source(lambda: [Sample(m.CACHE_ENTRIES, 9)])
    manager = AlertManager(collector, [FULL], [CallbackSink(lambda _: asyncio.sleep(60)) for _ in range(20)])
    collector.tick(0.0)
    manager.evaluate(0.0)
    began = time.monotonic()
    await manager.close(0.2)
    assert time.monotonic() - began < 2
    assert collector.snapshot().value("self_failures", what="queue") == 20


async def test_alertmanager_hears_of_what_fires_each_minute_and_of_what_has_changed_at_once() -> None:
    program, told = Program(FULL), []

    class Forgetful:
        resend = 60.0

        async def send(self, alerts: Sequence[Alert]) -> None:
            told.append((now, [alert.state for alert in alerts]))

    program.alerts.add_sink(Forgetful())
    for second in range(200):
        now = 1000.0 + second
        program.entries = 9 if 10 <= second < 150 else 0
        program.collector.tick(now)
        program.alerts.evaluate(now)
        await program.alerts.close()
    assert told == [(1010.0, ["firing"]), (1070.0, ["firing"]), (1130.0, ["firing"]), (1150.0, ["resolved"])]


async def test_by_default_the_default_rules_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    collector = MetricsCollector()
    collector.add_source(lambda: [Sample(m.FALLBACK_ACTIVE, 1, ("batch",))])
    manager = AlertManager(collector)
    assert [rule.name for rule in manager.rules] == [rule.name for rule in default_rules()]
    for now in (0.0, 299.0, 300.0):
        collector.tick(now)
        manager.evaluate(now)
    await manager.close()
    assert caplog.messages == ["FallbackActive (severity=warning, stage=batch): A stage is bypassed; value 1"]
