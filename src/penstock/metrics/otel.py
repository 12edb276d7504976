"""For programs that export with OpenTelemetry (extra ``otel``): instruments that are read when they are asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
except ImportError as error:
    raise ImportError("OtelInstruments needs the extra: pip install 'penstock[otel]'") from error

from penstock._version import __version__
from penstock.metrics.catalogue import CATALOGUE, Metric
from penstock.metrics.collector import MetricsCollector
from penstock.metrics.history import quantile_between
from penstock.metrics.samples import Labels, MetricsSnapshot

Callback: TypeAlias = Callable[[CallbackOptions], Iterable[Observation]]

QUANTILES = (0.5, 0.9, 0.99)
WINDOW = 60.0
"""Seconds over which quantiles are taken."""
FRESH = 0.1
"""Seconds for which what was read serves all instruments: they are asked one after the other."""

_UNITS = {"": "1", "ratio": "1", "seconds": "s", "bytes": "By"}


class OtelInstruments:
    """Penstock's metrics as observable instruments of OpenTelemetry, under their names with dots.

    OpenTelemetry has no observable histogram: of each there are ``.count``, ``.sum``, and ``.quantile`` over the last
    minute, with an attribute ``quantile``.

    Args:
        meter: None: that of the global provider.
    """

    def __init__(
        self,
        collector: MetricsCollector,
        meter: Meter | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._collector, self._clock = collector, clock
        self._read_at = float("-inf")
        self._snapshot = MetricsSnapshot(0.0)
        meter = meter or get_meter("penstock", __version__)
        for metric in CATALOGUE.values():
            unit = _UNITS[metric.unit]
            if metric.kind == "histogram":
                meter.create_observable_counter(f"{metric.name}.count", [self._counts(metric)], "1", metric.help)
                meter.create_observable_counter(f"{metric.name}.sum", [self._sums(metric)], unit, metric.help)
                meter.create_observable_gauge(f"{metric.name}.quantile", [self._quantiles(metric)], unit, metric.help)
            elif metric.kind == "counter":
                meter.create_observable_counter(metric.name, [self._numbers(metric)], unit, metric.help)
            else:
                meter.create_observable_gauge(metric.name, [self._numbers(metric)], unit, metric.help)

    def _read(self) -> MetricsSnapshot:
        now = self._clock()
        if now - self._read_at > FRESH:
            self._read_at, self._snapshot = now, self._collector.snapshot()
        return self._snapshot

    def _numbers(self, metric: Metric) -> Callback:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for labels, value in self._read().numbers.get(metric, {}).items():
                yield Observation(value, _attributes(metric, labels))

        return observe

    def _counts(self, metric: Metric) -> Callback:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for labels, histogram in self._read().histograms.get(metric, {}).items():
                yield Observation(histogram.count, _attributes(metric, labels))

        return observe

    def _sums(self, metric: Metric) -> Callback:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for labels, histogram in self._read().histograms.get(metric, {}).items():
                yield Observation(histogram.sum, _attributes(metric, labels))

        return observe

    def _quantiles(self, metric: Metric) -> Callback:
        def observe(_: CallbackOptions) -> Iterator[Observation]:
            for labels, ends in list(self._collector.history.ends(metric, WINDOW).items()):
                for q in QUANTILES:
                    value = quantile_between([ends], q)
                    if value is not None:
                        yield Observation(value, {**_attributes(metric, labels), "quantile": f"{q:g}"})

        return observe


def _attributes(metric: Metric, labels: Labels) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))
