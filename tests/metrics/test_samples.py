"""What sources report, together."""

from __future__ import annotations

import pytest

from penstock.metrics import catalogue as m
from penstock.metrics.histogram import EMPTY, Histogram, HistogramSnapshot
from penstock.metrics.samples import MetricsSnapshot, Reading, Sample, distribution, grouped


def read(*samples: Sample) -> MetricsSnapshot:
    reading = Reading()
    reading.add(samples)
    return reading.snapshot(7.0)


def recorded(*seconds: float) -> HistogramSnapshot:
    histogram = Histogram()
    for value in seconds:
        histogram.record(value)
    return histogram.snapshot()


def test_values_are_looked_up_by_labels_and_summed_over_the_others() -> None:
    snapshot = read(
        Sample(m.POOL_ACQUIRES, 1, ("a", "immediate")),
        Sample(m.POOL_ACQUIRES, 2, ("a", "waited")),
        Sample(m.POOL_ACQUIRES, 4, ("b", "waited")),
    )
    assert snapshot.at == 7.0
    assert snapshot.value("pool.acquires") == 7
    assert snapshot.value("penstock_pool_acquires_total", pool="a") == 3
    assert snapshot.value(m.POOL_ACQUIRES, outcome="waited") == 6
    assert snapshot.value(m.POOL_ACQUIRES, outcome=("waited", "immediate"), pool="a") == 3
    assert snapshot.value(m.POOL_ACQUIRES, pool="c") is None
    assert snapshot.value(m.CACHE_SIZE) is None


def test_the_same_from_several_sources_is_added_up() -> None:
    snapshot = read(
        Sample(m.CACHE_ENTRIES, 1),
        Sample(m.CACHE_ENTRIES, 2),
        Sample(m.PING_RTT, recorded(0.1), ("client",)),
        Sample(m.PING_RTT, recorded(0.1, 0.5), ("client",)),
        Sample(m.PING_RTT, recorded(3.0), ("server",)),
    )
    assert snapshot.value("cache.entries") == 3
    assert snapshot.histogram("ping.rtt", role="client") == recorded(0.1, 0.1, 0.5)
    assert snapshot.histogram("ping.rtt") == recorded(0.1, 0.1, 0.5, 3.0)
    assert snapshot.value("ping.rtt") == 4
    assert snapshot.histogram("batch.wait") == EMPTY
    assert {sample.metric for sample in snapshot} == {m.CACHE_ENTRIES, m.PING_RTT}
    assert len(list(snapshot)) == 3


@pytest.mark.parametrize("ask", ["value", "histogram"])
def test_a_label_that_there_is_not_is_refused(ask: str) -> None:
    with pytest.raises(KeyError, match="has no label 'colour'"):
        getattr(read(), ask)("ping.rtt", colour="red")


@pytest.mark.parametrize(
    "sample",
    [
        Sample(m.CACHE_ENTRIES, 1, ("x",)),
        Sample(m.POOL_ACQUIRES, 1, ("x",)),
        Sample(m.BATCH_WAIT, 1.0),
        Sample(m.CACHE_ENTRIES, recorded(1.0)),
        Sample(m.CLOSES, 1, ("client", 1006)),  # type: ignore[arg-type]
    ],
    ids=str,
)
def test_what_its_metric_does_not_allow_is_refused(sample: Sample) -> None:
    with pytest.raises(ValueError, match=sample.metric.name):
        read(sample)


def test_counts_by_powers_of_two_are_a_histogram() -> None:
    found = distribution({4: 3, 1: 2, 8: 0, 64: 1}, total=52)
    assert found.count == 6
    assert found.sum == 52
    assert found.at_most(m.BATCH_MESSAGES.bounds)[:8] == [2, 2, 5, 5, 5, 5, 6, 6]


def test_values_are_grouped_by_labels_and_one_that_is_missing_is_empty() -> None:
    series = {("a", "x"): 1, ("a", "y"): 2, ("b", "x"): 4}
    assert grouped(series, m.POOL_ACQUIRES, (("outcome", ("x",)),), ("stage", "pool")) == {
        ("", "a"): [1],
        ("", "b"): [4],
    }
    assert grouped(series, m.POOL_ACQUIRES, (), ()) == {(): [1, 2, 4]}
