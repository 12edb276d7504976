"""What connections count, a block for each thread and role."""

from __future__ import annotations

import threading

import pytest

from penstock.metrics import catalogue as m
from penstock.metrics import traffic as module
from penstock.metrics.samples import MetricsSnapshot, Reading
from penstock.metrics.traffic import MAX_NAMES, OTHER, ROLES, Traffic, traffic_of, traffic_samples
from support.threads import all_at_once


@pytest.fixture(autouse=True)
def _none_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_blocks", {})


def read() -> MetricsSnapshot:
    reading = Reading()
    reading.add(traffic_samples())
    return reading.snapshot(0.0)


def test_a_thread_has_one_block_for_each_role() -> None:
    assert traffic_of("client") is traffic_of("client")
    assert traffic_of("client") is not traffic_of("server")


def test_what_is_counted_is_reported_by_role_and_direction() -> None:
    for role, times in (("client", 1), ("server", 10)):
        block = traffic_of(role)  # type: ignore[arg-type]
        block.sent, block.sent_bytes, block.wire_bytes = 1 * times, 2 * times, 3 * times
        block.received.messages, block.received.bytes = 4 * times, 5 * times
        block.resumes, block.lost_sessions, block.redelivered = 6 * times, 7 * times, 8 * times
        block.rtt.record(0.5)
    snapshot = read()
    for role, times in (("client", 1), ("server", 10)):
        assert snapshot.value(m.MESSAGES, role=role, direction="sent") == 1 * times
        assert snapshot.value(m.MESSAGE_BYTES, role=role, direction="sent") == 2 * times
        assert snapshot.value(m.WIRE_BYTES, role=role, direction="sent") == 3 * times
        assert snapshot.value(m.MESSAGES, role=role, direction="received") == 4 * times
        assert snapshot.value(m.MESSAGE_BYTES, role=role, direction="received") == 5 * times
        assert snapshot.value(m.PING_RTT, role=role) == 1
        assert snapshot.value(m.CONNECTION_DURATION, role=role) == 0
    assert snapshot.value(m.SESSION_RESUMES) == 66
    assert snapshot.value(m.SESSION_LOST) == 77
    assert snapshot.value(m.REDELIVERED) == 88
    assert snapshot.value(m.WIRE_BYTES, direction="received") is None


def test_blocks_of_several_threads_are_added_up() -> None:
    together = threading.Barrier(4)

    def work(number: int) -> None:
        block = traffic_of("client")
        block.sent += number
        block.rtt.record(0.1)
        block.closed(1000, 2.0, None)
        together.wait()  # none may end before all have begun: the next would get its number, and its block

    assert all_at_once(4, work) == [None] * 4
    snapshot = read()
    assert snapshot.value(m.MESSAGES, direction="sent") == 0 + 1 + 2 + 3
    assert snapshot.histogram(m.PING_RTT).count == 4
    assert snapshot.histogram(m.CONNECTION_DURATION).sum == 8.0
    assert snapshot.value(m.CLOSES, code="1000") == 4


def test_counters_are_reported_as_zero_before_they_count() -> None:
    before = read()
    assert before.value(m.MESSAGES) == before.value(m.SESSION_RESUMES) == before.value(m.PING_RTT) == 0
    for role in ROLES:
        traffic_of(role)
        assert read().value(m.CLOSES, role=role, code="1006") == 0
        assert read().value(m.ERRORS, role=role, error_type="ConnectionClosedError") == 0


def test_an_error_counts_by_the_name_of_its_cause() -> None:
    block = traffic_of("server")
    error = ConnectionError("gone")
    block.closed(1006, 1.0, error)
    error.__cause__ = TimeoutError()
    block.closed(None, 1.0, error)
    block.closed(1001, 1.0, None)
    snapshot = read()
    assert snapshot.value(m.ERRORS, role="server", error_type="ConnectionError") == 1
    assert snapshot.value(m.ERRORS, error_type="TimeoutError") == 1
    assert snapshot.value(m.ERRORS) == 2
    assert snapshot.value(m.CLOSES, code="1006") == 2
    assert snapshot.value(m.CLOSES, code="1001") == 1


def test_no_peer_makes_more_series_than_there_is_room_for() -> None:
    block = Traffic()
    for code in range(3000, 4000):
        block.closed(code, 0.0, None)
    block.closed(1000, 0.0, None)
    assert len(block.closes) == MAX_NAMES + 1
    assert block.closes[OTHER] == 1000 - (MAX_NAMES - 3)
    assert block.closes["1000"] == 1
