"""What is faster wins, method by method, and an array that is refused ends it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from penstock.protocols.batching import CLEAR_PROBE, MAX_REFUSALS, PROBE, REST, ROUNDS, SAMPLES, SETTLING, Batching
from penstock.protocols.calls import Refused
from penstock.protocols.jsonrpc import JsonRpc

NEVER, NOW = 0.999, 0.0
"""Chances: of no new measurement, and of one."""
EPOCH = SETTLING + SAMPLES
MEASURING = 2 * ROUNDS * EPOCH


def run(
    batching: Batching, method: str, cost: Callable[[bool], float], calls: int, chance: float = NEVER
) -> list[bool]:
    """The ways that so many calls went, one after the other."""
    ways = []
    for _ in range(calls):
        plan = batching.plan(method, chance)
        ways.append(plan.array)
        batching.measured(plan, cost(plan.array))
    return ways


def faster_in_arrays(array: bool) -> float:
    return 0.001 if array else 0.003


def slower_in_arrays(array: bool) -> float:
    return 0.003 if array else 0.001


def test_both_ways_are_measured_and_the_faster_one_is_used() -> None:
    batching = Batching({"light", "heavy"})
    light = run(batching, "light", faster_in_arrays, MEASURING + 500)
    heavy = run(batching, "heavy", slower_in_arrays, MEASURING + 500)
    assert light[:MEASURING] == heavy[:MEASURING] == ([False] * EPOCH + [True] * EPOCH) * ROUNDS
    assert all(light[MEASURING:])
    assert not any(heavy[MEASURING:])


def test_a_small_gain_is_none() -> None:
    batching = Batching({"a"})
    assert not any(run(batching, "a", lambda array: 0.95 if array else 1.0, MEASURING + 500)[MEASURING:])


@pytest.mark.parametrize("busy", range(2 * ROUNDS))
def test_one_epoch_in_which_the_machine_was_busy_decides_nothing(busy: int) -> None:
    for cost, arrays in ((faster_in_arrays, True), (slower_in_arrays, False)):
        batching = Batching({"a"})
        for epoch in range(2 * ROUNDS):
            run(batching, "a", (lambda array: 9.0) if epoch == busy else cost, EPOCH)
        assert batching.plan("a", NEVER).array is arrays


def test_calls_that_wait_behind_those_that_went_the_other_way_do_not_count() -> None:
    batching = Batching({"a"})
    for _ in range(2 * ROUNDS):
        run(batching, "a", slower_in_arrays, SETTLING)
        run(batching, "a", lambda array: 0.0001 if array else 0.0003, SAMPLES)
    assert batching.plan("a", NEVER).array


def test_rare_calls_that_never_end_in_arrays_count() -> None:
    batching = Batching({"a"})
    costs = iter(range(10**6))
    run(batching, "a", lambda array: 30.0 if array and next(costs) % 8 == 0 else 0.001, MEASURING)
    assert not batching.plan("a", NEVER).array


def test_what_has_changed_is_noticed_by_chance() -> None:
    batching = Batching({"a"})
    run(batching, "a", slower_in_arrays, MEASURING)
    assert not any(run(batching, "a", faster_in_arrays, 500))
    for cost, arrays in ((faster_in_arrays, True), (slower_in_arrays, False)):
        for _ in range(ROUNDS):
            run(batching, "a", cost, 1, chance=NOW)
            run(batching, "a", cost, 2 * EPOCH)
        assert batching.plan("a", NEVER).array is arrays


def test_a_probe_ends_where_it_began_if_nothing_has_changed() -> None:
    batching = Batching({"a"})
    run(batching, "a", faster_in_arrays, MEASURING)
    ways = run(batching, "a", faster_in_arrays, 1, chance=CLEAR_PROBE / 2) + run(batching, "a", faster_in_arrays, 200)
    assert ways == [False] * EPOCH + [True] * (201 - EPOCH)
    assert all(run(batching, "a", faster_in_arrays, 100, chance=CLEAR_PROBE))


@pytest.mark.parametrize(
    ("in_array", "chance"), [(0.003, CLEAR_PROBE), (0.008, PROBE), (0.011, PROBE), (0.03, CLEAR_PROBE)]
)
def test_what_is_clear_is_measured_again_more_rarely_than_what_is_not(in_array: float, chance: float) -> None:
    batching = Batching({"a"})

    def cost(array: bool) -> float:
        return in_array if array else 0.01

    (way,) = set(run(batching, "a", cost, MEASURING + 500)[MEASURING:])
    assert set(run(batching, "a", cost, 500, chance=chance)) == {way}
    assert run(batching, "a", cost, 1, chance=chance * 0.99) == [not way]


def test_times_of_an_epoch_before_do_not_count() -> None:
    batching = Batching({"a"})
    old = batching.plan("a", NEVER)
    run(batching, "a", slower_in_arrays, EPOCH)
    for _ in range(1000):
        batching.measured(old, 1000.0)
    assert batching.plan("a", NEVER).array
    assert not any(run(batching, "a", slower_in_arrays, MEASURING)[MEASURING - EPOCH :])


def test_only_what_is_named_goes_in_arrays() -> None:
    batching = Batching({"read"})
    assert batching.allows("read")
    assert not batching.allows("write")


def test_a_refusal_stops_it_for_long_and_the_third_for_good() -> None:
    batching = Batching({"a"})
    for refusals in range(1, MAX_REFUSALS):
        batching.refused()
        assert batching.serial
        assert [batching.allows("a") for _ in range(REST)] == [False] * (REST - 1) + [True]
        assert batching.refusals == refusals
    batching.refused()
    assert not any(batching.allows("a") for _ in range(3 * REST))


@pytest.mark.parametrize("wrong", [{"max_items": 1}, {"max_bytes": 99}, {"allow": "eth_call"}])
def test_wrong_bounds_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Batching(**({"allow": {"a"}} | wrong))  # type: ignore[arg-type]


class Server:
    """Answers a call in a second of its clock, and an array in `per_array` seconds a call."""

    def __init__(self, per_array: float) -> None:
        self.per_array = per_array
        self.now = 0.0

    def serve(self, rpc: JsonRpc, calls: int) -> int:
        """Send so many calls together; the number that went in arrays."""
        for _ in range(calls):
            rpc.add("a", now=self.now)
        in_arrays = 0
        for frame in rpc.due(lambda: NEVER):
            message = json.loads(frame.text)
            if isinstance(message, list):
                in_arrays += len(message)
                self.now += self.per_array * len(message)
                rpc.receive(json.dumps([{"id": item["id"], "result": 1} for item in message]), now=self.now)
            else:
                self.now += 1.0
                rpc.receive(json.dumps({"id": message["id"], "result": 1}), now=self.now)
        return in_arrays


@pytest.mark.parametrize(("per_array", "arrays"), [(0.3, 10), (2.0, 0)])
def test_a_connection_learns_what_its_server_is_faster_at(per_array: float, arrays: int) -> None:
    server, rpc = Server(per_array), JsonRpc(Batching({"a"}))
    for _ in range(MEASURING // 10 + 20):
        server.serve(rpc, 10)
    assert server.serve(rpc, 10) == arrays


def test_lone_calls_say_nothing_about_arrays() -> None:
    server, rpc = Server(0.3), JsonRpc(Batching({"a"}))
    for _ in range(1000):
        assert server.serve(rpc, 1) == 0
    assert server.serve(rpc, 2) == 0  # still the first epoch


def test_calls_that_time_out_in_arrays_count_against_them() -> None:
    rpc = JsonRpc(Batching({"a"}))
    for _ in range(MEASURING // 10 + 20):
        calls = [rpc.add("a", now=0.0) for _ in range(10)]
        for frame in rpc.due(lambda: NEVER):
            if len(frame.calls) == 1:
                rpc.receive(json.dumps({"id": frame.calls[0].id, "result": 1}), now=1.0)
        for call in calls:
            rpc.forget(call, now=30.0)
    for _ in range(10):
        rpc.add("a", now=0.0)
    assert [len(frame.calls) for frame in rpc.due(lambda: NEVER)] == [1] * 10


def test_case_7_a_refusal_on_one_connection_stops_arrays_on_all() -> None:
    batching = Batching({"a"})
    one, other = JsonRpc(batching), JsonRpc(batching)
    server = Server(0.1)
    while not server.serve(one, 10):
        pass
    for _ in range(10):
        one.add("a", now=server.now)
    assert len(one.due(lambda: NEVER)) == 1
    (event,) = one.receive('{"id":null,"error":{"code":-32600,"message":"no batches"}}', now=server.now)
    assert isinstance(event, Refused)
    assert server.serve(other, 10) == 0
