"""Which alerts are pending, firing and resolved. Pure: time is an argument."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from penstock.metrics.alerts.rules import AlertRule
from penstock.metrics.history import History
from penstock.metrics.samples import Labels

State: TypeAlias = Literal["pending", "firing", "resolved"]

RESOLVED_FOR = 900.0
"""Seconds for which a resolved alert is still shown."""
BROKEN = "AlertRuleFailed"
"""The alert about a rule that cannot be evaluated."""


@dataclass(frozen=True, slots=True)
class Alert:
    """What a rule has found, for some values of its labels. There is none where all is well: that is inactive."""

    rule: AlertRule
    labels: Labels
    """Values of the rule's ``by``."""
    state: State
    value: float
    """Of the rule's expression, the latest that was known."""
    since: float
    """When it became pending; seconds on the monotonic clock, as are the others."""
    fired_at: float | None = None
    resolved_at: float | None = None
    error: str = ""
    """Why the rule cannot be evaluated: such an alert is about the rule itself, and fires at once."""
    quiet_since: float | None = None
    """Since when it fires only because of the rule's ``keep_firing_for``."""

    @property
    def name(self) -> str:
        """The rule's, or ``AlertRuleFailed``."""
        return BROKEN if self.error else self.rule.name

    @property
    def severity(self) -> str:
        """The rule's; a warning if the rule cannot be evaluated."""
        return "warning" if self.error else self.rule.severity

    @property
    def summary(self) -> str:
        """What is wrong, for people."""
        return f"The rule {self.rule.name} cannot be evaluated: {self.error}" if self.error else self.rule.summary

    def all_labels(self) -> dict[str, str]:
        """What tells it apart, by name."""
        if self.error:
            own = {"rule": self.rule.name, "rule_severity": self.rule.severity}
        else:
            own = dict(zip(self.rule.by, self.labels, strict=True))
        return {"alertname": self.name, "severity": self.severity, **own}


class AlertEngine:
    """Keeps the state of all alerts; what changes it is `evaluate` alone."""

    def __init__(self, rules: Iterable[AlertRule]) -> None:
        self.rules = tuple(rules)
        names = [(rule.name, rule.severity) for rule in self.rules]
        twice = [name for name, _ in {one: None for one in names if names.count(one) > 1}]
        if twice:
            raise ValueError(f"two rules of one severity are named {twice[0]}; give one another name")
        self._tracks = [Track(rule) for rule in self.rules]

    @property
    def alerts(self) -> tuple[Alert, ...]:
        """All that are pending or firing, and those that were resolved lately."""
        return tuple(alert for track in self._tracks for alert in track.all())

    @property
    def failures(self) -> list[tuple[AlertRule, Exception]]:
        """The rules that could not be evaluated at last, and why."""
        return [(track.rule, track.failure) for track in self._tracks if track.failure is not None]

    def evaluate(self, history: History, now: float) -> list[Alert]:
        """Judge the latest that was read; return the alerts that have just begun to fire, or were resolved."""
        changed: list[Alert] = []
        known: dict[tuple[int, Labels], dict[Labels, float] | Exception] = {}
        for track in self._tracks:
            rule = track.rule
            key = (id(rule.expression), rule.by)
            if key not in known:
                known[key] = _values(rule, history)
            changed += track.judge(history, known[key], now)
        return changed


@dataclass(slots=True)
class Track:
    """A rule's alerts, by the values of its labels."""

    rule: AlertRule
    failure: Exception | None = None
    active: dict[Labels, Alert] = field(default_factory=dict)
    resolved: dict[Labels, Alert] = field(default_factory=dict)
    broken: Alert | None = None

    def all(self) -> list[Alert]:
        """All of them."""
        about_rule = [self.broken] if self.broken is not None else []
        return [*self.active.values(), *self.resolved.values(), *about_rule]

    def judge(self, history: History, values: dict[Labels, float] | Exception, now: float) -> list[Alert]:
        """Take in what the rule's expression is now; return what has begun to fire, or was resolved."""
        if not isinstance(values, Exception):
            try:
                bad = self._bad(history, values)
            except Exception as exc:  # noqa: BLE001 - the rule may be anybody's; it is told as an alert
                values = exc
        if isinstance(values, Exception):
            return self._break(values, now)  # its alerts stay as they are: nobody knows better
        changed = self._mend(now)
        if bad or self.active:
            for labels in [*bad, *(one for one in self.active if one not in bad)]:
                changed += self._move(labels, bad.get(labels), now)
        if self.resolved:
            self.resolved = {
                at: one for at, one in self.resolved.items() if now - (one.resolved_at or 0) < RESOLVED_FOR
            }
        return changed

    def _bad(self, history: History, values: dict[Labels, float]) -> dict[Labels, float]:
        """The groups that are pending or firing, with their values."""
        rule, active = self.rule, self.active
        bad = {}
        for labels, value in values.items():
            alert = active.get(labels)
            if rule.is_beyond(value, firing=alert is not None and alert.state == "firing"):
                bad[labels] = value
        beginning = [one for one in bad if one not in active or active[one].state == "pending"]
        if beginning:
            for labels in set(beginning) - self._may_begin(history, beginning):
                del bad[labels]
        return bad

    def _may_begin(self, history: History, groups: Sequence[Labels]) -> set[Labels]:
        """Those groups for which all holds that is asked for besides the threshold."""
        rule, may = self.rule, set(groups)
        counted = rule.expression.samples
        if rule.min_samples and counted is not None:
            numbers = counted.values(history, rule.by)
            may = {one for one in may if numbers.get(one, 0) >= rule.min_samples}
        return may & rule.when.holds(history, rule.by) if rule.when is not None else may

    def _move(self, labels: Labels, value: float | None, now: float) -> list[Alert]:
        """Go on with one group, whose value is None if it is well."""
        rule, alert = self.rule, self.active.get(labels)
        if value is None:
            return self._quiet(labels, now)
        if alert is None:
            alert = Alert(rule, labels, "pending", value, now)
            self.resolved.pop(labels, None)
        elif alert.value != value or alert.quiet_since is not None:
            alert = replace(alert, value=value, quiet_since=None)
        self.active[labels] = alert
        if alert.state == "pending" and now - alert.since >= rule.for_:
            alert = self.active[labels] = replace(alert, state="firing", fired_at=now)
            return [alert]
        return []

    def _quiet(self, labels: Labels, now: float) -> list[Alert]:
        rule, alert = self.rule, self.active[labels]
        if alert.state == "firing" and rule.keep_firing_for:
            if alert.quiet_since is None:
                alert = self.active[labels] = replace(alert, quiet_since=now)
            if now - (alert.quiet_since or 0) < rule.keep_firing_for:
                return []
        del self.active[labels]
        if alert.state == "pending":
            return []
        alert = self.resolved[labels] = replace(alert, state="resolved", resolved_at=now)
        return [alert]

    def _break(self, error: Exception, now: float) -> list[Alert]:
        self.failure = error
        if self.broken is not None and self.broken.state == "firing":
            return []
        self.broken = Alert(self.rule, (), "firing", 1.0, now, now, error=repr(error))
        return [self.broken]

    def _mend(self, now: float) -> list[Alert]:
        self.failure = None
        if self.broken is None:
            return []
        if self.broken.state == "firing":
            self.broken = replace(self.broken, state="resolved", resolved_at=now)
            return [self.broken]
        if now - (self.broken.resolved_at or 0) >= RESOLVED_FOR:
            self.broken = None
        return []


def _values(rule: AlertRule, history: History) -> dict[Labels, float] | Exception:
    try:
        return rule.expression.values(history, rule.by)
    except Exception as exc:  # noqa: BLE001 - the expression may be anybody's; it is told as an alert
        return exc
