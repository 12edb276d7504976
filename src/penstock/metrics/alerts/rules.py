"""Alert rules, and those that everybody has. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan
from typing import Literal, TypeAlias, get_args

from penstock.metrics import catalogue as m
from penstock.metrics.alerts.expressions import (
    Above,
    Expression,
    Gauge,
    Increase,
    Quantile,
    Rate,
    Ratio,
    duration,
    number,
    select,
)
from penstock.metrics.catalogue import Metric
from penstock.metrics.samples import Labels

Severity: TypeAlias = Literal["info", "warning", "critical"]

FALL_BACK = "fall back"
"""The action that bypasses the stage which an alert is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """When somebody, or something, should be told.

    An alert becomes pending when ``expression`` goes beyond ``fire``, fires when that has lasted for ``for_`` seconds,
    and is resolved when the expression is back within ``clear``, or nothing is known of it any more.
    """

    name: str
    """An identifier. Rules of the same name differ in severity."""
    expression: Expression
    fire: float
    clear: float | None = None
    """Between this and ``fire`` an alert that fires goes on, and no other begins; None: the same as ``fire``."""
    below: bool = False
    """Whether the expression is bad when it is low."""
    by: Labels = ()
    """Labels for each of whose values there is an alert of its own."""
    when: Above | None = None
    """What must hold as well for an alert to become pending, and to stay so until it fires."""
    min_samples: int = 0
    """Events that the expression must be made of, likewise."""
    for_: float = 0.0
    """Seconds."""
    keep_firing_for: float = 0.0
    """Seconds for which an alert goes on firing when it could be resolved."""
    severity: Severity = "warning"
    action: str = ""
    """What is done by itself: ``fall back`` bypasses the stage that the label ``stage`` names; empty: nothing."""
    summary: str
    """What is wrong, for people."""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name={self.name!r}: must be an identifier")
        if isnan(self.fire):
            raise ValueError(f"fire={self.fire!r}: must be a number")
        if self.clear is not None and not (self.clear >= self.fire if self.below else self.clear <= self.fire):
            raise ValueError(f"clear={self.clear!r}: must be on the good side of fire={self.fire!r}")
        for name in ("min_samples", "for_", "keep_firing_for"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: must be at least 0, and finite")
        if self.severity not in get_args(Severity):
            raise ValueError(f"severity={self.severity!r}: must be one of {', '.join(get_args(Severity))}")
        if self.action == FALL_BACK and "stage" not in self.by:
            raise ValueError(f"action={self.action!r}: by must have 'stage', which says what falls back")
        if self.min_samples and self.expression.samples is None:
            raise ValueError(f"min_samples={self.min_samples!r}: {self.name} is about a gauge, which has no samples")

    def is_beyond(self, value: float, *, firing: bool) -> bool:
        """Whether a value is bad: one that made an alert fire is until it is within ``clear``."""
        bound = self.clear if firing and self.clear is not None else self.fire
        return value < bound if self.below else value > bound

    def promql(self) -> str:
        """An expression that Prometheus evaluates to the groups that are pending or firing."""
        sign, value = "<" if self.below else ">", self.expression.promql(self.by)
        begins = f"{value} {sign} {number(self.fire)}"
        samples = self.expression.samples
        if self.min_samples and samples is not None:
            begins += f"\n  and {samples.promql(self.by)} >= {self.min_samples}"
        if self.when is not None:
            begins += f"\n  and {self.when.promql(self.by)}"
        if begins == f"{value} {sign} {number(self.fire)}" and self.clear in {None, self.fire}:
            return begins
        clear = self.fire if self.clear is None else self.clear
        on = ", ".join(("job", "instance", *self.by))
        firing = f'ALERTS{{alertname="{self.name}", alertstate="firing", severity="{self.severity}"}}'
        return f"(\n  {begins}\n)\nor\n(\n  {value} {sign} {number(clear)}\n  and on ({on}) {firing}\n)"

    def describe(self) -> str:
        """Thresholds and times, for people: ``> 0.9 (clears at 0.75) for 30s``."""
        text = f"{'<' if self.below else '>'} {number(self.fire)}"
        if self.clear is not None:
            text += f" (clears at {number(self.clear)})"
        if self.min_samples:
            text += f", of at least {self.min_samples}"
        return f"{text} for {duration(self.for_)}" if self.for_ else text


def default_rules() -> tuple[AlertRule, ...]:
    """The rules that everybody has; a new tuple to add to, or to leave some out."""
    return (*_pool_rules(), *_connection_rules(), *_batch_rules(), *_cache_rules(), *_program_rules())


def _share(metric: Metric, window: float, **labels: str | Labels) -> Ratio:
    """Which part of what was counted in a window has these labels."""
    return Ratio(Rate(select(metric, **labels), window), Rate(select(metric), window))


def _pool_rules() -> list[AlertRule]:
    return [
        AlertRule(
            name="PoolSaturated",
            expression=Ratio(Gauge(select(m.POOL_CONNECTIONS, state="in_use")), Gauge(select(m.POOL_CONNECTIONS_MAX))),
            fire=0.9,
            clear=0.75,
            when=Above(Gauge(select(m.POOL_WAITERS))),
            by=("pool",),
            for_=30,
            summary="Nearly all connections of a pool are lent, and callers wait",
        ),
        AlertRule(
            name="AcquireTimeouts",
            expression=_share(m.POOL_ACQUIRES, 60, outcome="timeout"),
            fire=0.01,
            min_samples=20,
            by=("pool",),
            for_=15,
            severity="critical",
            summary="Callers wait for a connection in vain",
        ),
        AlertRule(
            name="AcquireWaitHigh",
            expression=Quantile(select(m.POOL_ACQUIRE_WAIT), 0.99, 60),
            fire=0.1,
            clear=0.05,
            by=("pool",),
            for_=60,
            summary="Callers wait for a connection for long",
        ),
        AlertRule(
            name="ConnectFailures",
            expression=_share(m.POOL_CONNECTS, 60, outcome="failed"),
            fire=0.05,
            min_samples=20,
            by=("pool",),
            for_=60,
            severity="critical",
            summary="Connections cannot be opened",
        ),
    ]


def _connection_rules() -> list[AlertRule]:
    errors = Ratio(Rate(select(m.ERRORS), 60), Rate(select(m.MESSAGES), 60))
    rtt = Quantile(select(m.PING_RTT), 0.99, 60)
    slow = "Peers take long to answer pings"
    wrong = "Many errors for the messages there are"
    return [
        AlertRule(name="ErrorRatio", expression=errors, fire=0.01, min_samples=100, for_=60, summary=wrong),
        AlertRule(
            name="ErrorRatio",
            expression=errors,
            fire=0.05,
            min_samples=100,
            for_=60,
            severity="critical",
            summary=wrong,
        ),
        AlertRule(name="RttHigh", expression=rtt, fire=0.2, for_=120, summary=slow),
        AlertRule(name="RttHigh", expression=rtt, fire=1, for_=120, severity="critical", summary=slow),
    ]


def _batch_rules() -> list[AlertRule]:
    return [
        AlertRule(
            name="BatchDelay",
            expression=Ratio(Quantile(select(m.BATCH_WAIT), 0.99, 60), Gauge(select(m.BATCH_WAIT_MAX))),
            fire=2,
            for_=60,
            summary="Messages wait for others more than twice as long as configured",
        ),
        AlertRule(
            name="BatchBacklog",
            expression=Ratio(
                Gauge(select(m.BATCH_PENDING_MESSAGES)),
                Gauge(select(m.BATCH_PENDING_MESSAGES_MAX)),
            ),
            fire=0.8,
            clear=0.6,
            for_=15,
            summary="Messages come faster than they are sent",
        ),
        AlertRule(
            name="BatchBacklog",
            expression=Increase(select(m.BATCH_DROPPED), 60),
            fire=0,
            for_=15,
            severity="critical",
            summary="Messages are dropped",
        ),
    ]


def _cache_rules() -> list[AlertRule]:
    return [
        AlertRule(
            name="CacheHitLow",
            expression=_share(m.CACHE_REQUESTS, 600, result=("hit", "stale")),
            fire=0.4,
            clear=0.5,
            below=True,
            min_samples=1000,
            for_=600,
            severity="info",
            summary="The cache answers few questions",
        )
    ]


def _program_rules() -> list[AlertRule]:
    lag = Quantile(select(m.EVENT_LOOP_LAG), 0.99, 60)
    late = "The event loop is late: something in it does not let go"
    return [
        AlertRule(name="LoopLag", expression=lag, fire=0.05, for_=30, summary=late),
        AlertRule(name="LoopLag", expression=lag, fire=0.25, for_=30, severity="critical", summary=late),
        AlertRule(
            name="MemoryBudget",
            expression=Ratio(Gauge(select(m.MEMORY)), Gauge(select(m.MEMORY_BUDGET))),
            fire=0.9,
            clear=0.75,
            for_=15,
            summary="The memory budget is nearly used up",
        ),
        AlertRule(
            name="OptimizationRegressed",
            expression=Gauge(select(m.OPTIMIZATION_SPEEDUP)),
            fire=1,
            clear=1.1,
            below=True,
            by=("stage",),
            for_=120,
            action=FALL_BACK,
            summary="A stage is slower than the plain way",
        ),
        AlertRule(
            name="FallbackActive",
            expression=Gauge(select(m.FALLBACK_ACTIVE)),
            fire=0,
            by=("stage",),
            for_=300,
            summary="A stage is bypassed",
        ),
        AlertRule(
            name="FallbackFlapping",
            expression=Increase(select(m.FALLBACK_TRANSITIONS), 600),
            fire=3,
            by=("stage",),
            severity="critical",
            summary="A stage is bypassed and restored again and again",
        ),
    ]
