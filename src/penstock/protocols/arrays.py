"""Which calls that are due together go in arrays. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock.protocols.batching import Batching, Plan
from penstock.protocols.calls import Call
from penstock.protocols.messages import OVERHEAD


def choose(calls: Iterable[Call], batching: Batching, random: Callable[[], float]) -> list[Call]:
    """Those that go in arrays; all that could have a plan from now on. No array would be of one."""
    able = [call for call in calls if not call.alone and batching.allows(call.method)]
    if len(able) < 2:
        return []
    plans: dict[str, Plan] = {}
    for call in able:
        plan = plans.get(call.method)
        if plan is None:
            plan = plans[call.method] = batching.plan(call.method, random() / len(able))
        call.plan = plan
    together = [call for call in able if plans[call.method].array]
    if len(together) == 1:
        together[0].plan = None  # its time would say nothing about arrays
        return []
    return together


def divide(calls: Iterable[Call], batching: Batching) -> list[list[Call]]:
    """Calls in the order given, as many to an array as the caps allow; one array if there may be no more."""
    parts: list[list[Call]] = []
    part: list[Call] = []
    room = 0
    for call in calls:
        size = OVERHEAD + _bytes_of(call.method_text) + _bytes_of(call.params or "")
        if not parts or size > room or len(part) == batching.max_items:
            part = []
            parts.append(part)
            room = batching.max_bytes
        part.append(call)
        room -= size
    if batching.serial:
        return parts[:1] + [[call] for part in parts[1:] for call in part]
    return parts


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
