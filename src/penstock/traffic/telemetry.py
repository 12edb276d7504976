"""Messages as machines send them: JSON of several shapes, with values that wander. The same for the same seed."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

_FLEET = 64
"""Devices, servers, instruments that take turns."""
_STATES = ("idle", "running", "degraded", "maintenance")
_SITES = ("lyon-2", "oslo-1", "porto-4", "turku-3", "gdansk-7")
_REGIONS = ("eu-west", "eu-north", "us-east")
_SERVICES = ("checkout", "search", "catalog", "auth")


def make_telemetry(count: int, seed: int = 1) -> list[str]:
    """So many JSON texts of 75 to 300 bytes, of sensors, vehicles, servers and markets, no two alike."""
    random = Random(seed)  # noqa: S311 - the same traffic in every run
    levels = [random.uniform(20, 80) for _ in range(_FLEET)]
    now = 1_760_000_000_000
    messages: list[str] = []
    for number in range(count):
        now += random.randrange(1, 40)
        source = random.randrange(_FLEET)
        levels[source] += random.gauss(0, 0.7)
        record = _SHAPES[source % len(_SHAPES)](random, number, now, source, levels[source])
        messages.append(json.dumps(record, separators=(",", ":")))
    return messages


def _sensor(random: Random, number: int, now: int, source: int, level: float) -> dict[str, Any]:
    return {
        "type": "reading",
        "seq": number,
        "ts": now,
        "sensor": f"th-{source:04d}",
        "site": _SITES[source % len(_SITES)],
        "temperature": round(level, 2),
        "humidity": round(35 + level / 4 + random.gauss(0, 0.3), 1),
        "battery": round(4.2 - number % 9000 / 10_000, 3),
    }


def _vehicle(random: Random, number: int, now: int, source: int, level: float) -> dict[str, Any]:
    return {
        "type": "position",
        "seq": number,
        "vehicle": f"VH{source:03d}",
        "time": now,
        "lat": round(45.75 + level / 1000 + random.gauss(0, 0.0004), 6),
        "lon": round(4.85 + level / 900 + random.gauss(0, 0.0004), 6),
        "speed": round(max(0.0, level + random.gauss(0, 2)), 1),
        "heading": random.randrange(360),
        "fix": {"satellites": random.randrange(6, 14), "hdop": round(random.uniform(0.6, 2.1), 2)},
        "state": _STATES[number // 700 % len(_STATES)],
    }


def _server(random: Random, number: int, now: int, source: int, level: float) -> dict[str, Any]:
    return {
        "metric": "host",
        "n": number,
        "t": now / 1000,
        "tags": {
            "host": f"node-{source:02d}",
            "region": _REGIONS[source % len(_REGIONS)],
            "service": _SERVICES[source % 4],
        },
        "cpu": {"user": round(level, 1), "system": round(level / 5 + random.random(), 1)},
        "mem": 8_000_000_000 + int(level * 31_000_000) + random.randrange(4096) * 4096,
        "net": {"rx": number * 811 + random.randrange(9000), "tx": number * 397 + random.randrange(9000)},
        "disk": {"read": number * 53 + random.randrange(500), "written": number * 71 + random.randrange(500)},
        "load": [round(level / 20, 2), round(level / 22, 2), round(level / 25, 2)],
    }


def _market(random: Random, number: int, now: int, source: int, level: float) -> dict[str, Any]:
    return {
        "e": "trade",
        "s": f"SYM{source:02d}",
        "t": now,
        "i": number,
        "p": f"{90 + level + random.gauss(0, 0.02):.2f}",
        "q": random.randrange(1, 900),
        "side": random.choice(("buy", "sell")),
    }


_SHAPES: tuple[Callable[[Random, int, int, int, float], dict[str, Any]], ...] = (_sensor, _vehicle, _server, _market)
