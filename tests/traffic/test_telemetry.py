from __future__ import annotations

import json

from penstock.traffic.telemetry import make_telemetry


def test_telemetry_is_of_several_shapes_and_sizes_and_no_two_are_alike() -> None:
    messages = make_telemetry(5000)
    sizes = [len(message) for message in messages]
    assert len(set(messages)) == 5000
    assert min(sizes) >= 75
    assert max(sizes) <= 300
    assert max(sizes) > 2 * min(sizes)
    assert len({tuple(json.loads(message)) for message in messages}) == 4


def test_telemetry_is_the_same_for_the_same_seed_and_another_for_another() -> None:
    assert make_telemetry(100) == make_telemetry(200)[:100]
    assert make_telemetry(100, seed=2) != make_telemetry(100)
