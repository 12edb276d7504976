"""A report, for people: what is wrong first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_SEVERITIES = {"critical": "bold red", "warning": "yellow", "info": "blue"}
_MODES = {"optimized": "green", "probing": "yellow", "bypassed": "bold red"}
_LATENCIES = {
    "acquire_wait": "wait for a connection",
    "connect": "open a connection",
    "batch_wait": "wait in a batch",
    "ping_rtt": "ping round trip",
    "event_loop_lag": "event loop lag",
}


def screen(who: dict[str, Any], report: dict[str, Any]) -> RenderableType:
    """All of it."""
    return Group(
        _title(who, report),
        *_alerts(report["alerts"]),
        "",
        _numbers(report),
        "",
        _latencies(report["latency"]),
        *_modes(report),
    )


def line(report: dict[str, Any]) -> str:
    """The same in one line, where there is no terminal."""
    pool, sending, cache = report["pool"], report["sending"], report["cache"]
    firing = [alert["name"] for alert in report["alerts"] if alert["state"] == "firing"]
    bypassed = sorted(
        {stage for modes in report["modes"].values() for stage, mode in modes.items() if mode != "optimized"}
    )
    parts = [
        f"sent {_rate(report['traffic']['sent']['messages_per_second'])}",
        f"received {_rate(report['traffic']['received']['messages_per_second'])}",
        f"pool {pool['in_use']}+{pool['idle']} of {pool['max_total']}, {pool['waiting']} waiting",
        f"pending {sending['pending_messages']}",
    ]
    if cache is not None:
        parts.append(f"cache {_hits(cache)}")
    parts.append(f"lag p99 {_seconds(report['latency']['event_loop_lag']['p99'])}")
    parts.append(f"alerts {', '.join(firing) or 'none'}")
    if bypassed:
        parts.append(f"bypassed {', '.join(bypassed)}")
    return "; ".join(parts)


def _title(who: dict[str, Any], report: dict[str, Any]) -> Text:
    name = f"{who['program']} ({who['pid']})"
    return Text.assemble((name, "bold"), f"  up {_ago(report['uptime'])}  {_memory(report)}")


def _memory(report: dict[str, Any]) -> str:
    budget = report["memory_budget"]
    used = _bytes(report["memory_bytes"])
    return f"keeps {used}" if budget is None else f"keeps {used} of {_bytes(budget)}"


def _alerts(alerts: list[dict[str, Any]]) -> Iterable[RenderableType]:
    standing = [alert for alert in alerts if alert["state"] in ("firing", "pending")]
    if not standing:
        yield Text("no alert", style="green")
        return
    for alert in sorted(standing, key=_urgency):
        labels = {name: text for name, text in alert["labels"].items() if name not in ("alertname", "severity")}
        about = "".join(f" {name}={text}" for name, text in labels.items())
        style = _SEVERITIES[alert["severity"]] if alert["state"] == "firing" else "dim"
        yield Text(
            f"{alert['severity']:8} {alert['name']}{about}: {alert['summary']} "
            f"({alert['state']} for {_ago(alert['seconds'])})",
            style=style,
        )


def _urgency(alert: dict[str, Any]) -> tuple[bool, int]:
    return alert["state"] != "firing", list(_SEVERITIES).index(alert["severity"])


def _numbers(report: dict[str, Any]) -> Table:
    traffic, pool, sending, cache = report["traffic"], report["pool"], report["sending"], report["cache"]
    grid = Table.grid(padding=(0, 3))
    for direction in ("sent", "received"):
        rates = traffic[direction]
        text = f"{_rate(rates['messages_per_second'])}, {_bytes(rates['bytes_per_second'])}/s"
        grid.add_row(Text(direction, style="bold"), text)
    text = f"{pool['in_use']} in use, {pool['idle']} idle, {pool['connecting']} connecting, of {pool['max_total']}; "
    text += f"{pool['waiting']} callers wait" + (f"; {pool['plain']} opened past it" if pool["plain"] else "")
    grid.add_row(Text("pool", style="bold"), text)
    text = f"{sending['pending_messages']} pending ({_bytes(sending['pending_bytes'])}), "
    text += f"{sending['waiting']} callers wait; {sending['dropped']} dropped, "
    text += f"{sending['undelivered']} undelivered, {sending['breaks']} breaks"
    grid.add_row(Text("sending", style="bold"), text)
    if cache is not None:
        text = f"{_hits(cache)}; {cache['size']} of {cache['capacity']} entries, {cache['evictions']} evicted"
        grid.add_row(Text("cache", style="bold"), text)
    return grid


def _hits(cache: dict[str, Any]) -> str:
    asked = cache["hits"] + cache["misses"]
    return f"{cache['hit_ratio']:.1%} hits of {asked} questions" if asked else "no questions"


def _latencies(latency: dict[str, dict[str, float | None]]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("last 10 s")
    for quantile in ("p50", "p99"):
        table.add_column(quantile, justify="right")
    for name, shown in _LATENCIES.items():
        table.add_row(shown, _seconds(latency[name]["p50"]), _seconds(latency[name]["p99"]))
    return table


def _modes(report: dict[str, Any]) -> Iterable[RenderableType]:
    if not report["modes"]:
        return
    table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("stages")
    stages = list(report["speedups"])
    for stage in stages:
        ratio = report["speedups"][stage]
        table.add_column(stage if ratio is None else f"{stage} {ratio:.3g}x")
    for url, modes in report["modes"].items():
        table.add_row(escape(url), *(f"[{_MODES[modes[stage]]}]{modes[stage]}[/]" for stage in stages))
    yield ""
    yield table
    for one in report["transitions"][-3:]:
        yield Text(
            f"{_ago(one['seconds_ago'])} ago {one['stage']} became {one['to']} for {one['url']}: {one['reason']}",
            style="dim",
        )


def _rate(messages: float) -> str:
    return f"{messages:,.0f} messages/s"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 0.001:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1e3:.1f} ms" if value < 1 else f"{value:.2f} s"


def _ago(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
