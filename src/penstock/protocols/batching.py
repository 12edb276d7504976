"""Whether calls that are due together go as one array or singly: what is faster, method by method. Pure.

Arrays triple the rate of trivial calls on some servers, and slow down heavy ones on others, so both ways are measured.
A method goes one way for an epoch of `SETTLING` and `SAMPLES` calls, then the other, and after `ROUNDS` of each the way
that took less time for a call. From then on it is measured again now and then, by chance. Time is taken from when a
call is added to its reply: with a fixed number of callers it is the inverse of the rate, with a fixed rate it is what a
caller sees. The first calls of an epoch still wait behind those of the one before, and do not count. Of an epoch the
mean counts, so that calls which time out weigh as much as they cost; of the last epochs the median, so that one in
which the machine was busy with something else decides nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from statistics import median

from msgspec import Struct

MAX_ITEMS, MAX_BYTES = 100, 256 * 1024
"""Of an array. Servers refuse more: 100 is the least of the defaults that are in use."""
SETTLING, SAMPLES, ROUNDS = 64, 64, 3
PROBE, CLEAR_PROBE = 1 / 5000, 1 / 40_000
"""The chance that a call starts a new measurement, and where one way is clearly faster: it costs most there."""
CLEAR = 2 / 3
"""What the faster way takes of the time of the other, at most, to be clearly faster."""
MARGIN = 0.9
"""What arrays must take of the time of single calls to be taken up."""
REST = 10_000
"""Calls that go singly after an array was refused."""
MAX_REFUSALS = 3
"""After so many there are no more arrays."""


class Plan(Struct, frozen=True, eq=False):
    """How a call is to go, and the epoch in which its time counts."""

    method: str
    array: bool


class _Method:
    """What is known of one method."""

    def __init__(self, method: str) -> None:
        self._plans = {array: Plan(method, array) for array in (False, True)}
        self._costs = {array: deque[float](maxlen=ROUNDS) for array in (False, True)}
        """Seconds a call, by way, of its last epochs."""
        self._ahead = deque([False, True] * ROUNDS)
        """Ways to be measured; the first is being measured."""
        self._samples, self._seconds = 0, 0.0
        self.plan = self._plans[False]
        self.probe_chance = PROBE

    @property
    def is_measuring(self) -> bool:
        return bool(self._ahead)

    def probe(self) -> None:
        """Measure both ways, beginning with the one that is not used."""
        used = self.plan.array
        self._ahead.extend([not used, used])
        self._begin(not used)

    def _begin(self, array: bool) -> None:
        self._samples, self._seconds = 0, 0.0
        self.plan = Plan(self.plan.method, array)  # another object: times of an epoch before it do not count

    def measured(self, plan: Plan, seconds: float) -> None:
        if plan is not self.plan or not self._ahead:
            return
        self._samples += 1
        if self._samples > SETTLING:
            self._seconds += seconds
        if self._samples < SETTLING + SAMPLES:
            return
        self._costs[plan.array].append(self._seconds / SAMPLES)
        self._ahead.popleft()
        self._begin(self._ahead[0] if self._ahead else self._choose())

    def _choose(self) -> bool:
        """Whether arrays are to be used from now on."""
        array, single = median(self._costs[True]), median(self._costs[False])
        is_clear = min(array, single) <= max(array, single) * CLEAR
        self.probe_chance = CLEAR_PROBE if is_clear else PROBE
        return array < single * MARGIN


class Batching:
    """One server's; its connections share it.

    Args:
        allow: methods that may go in arrays. None that writes or subscribes: an array may be refused as a whole, and
            events of a subscription that was made in one are lost on some servers.
        max_items: calls in an array.
        max_bytes: bytes of an array.

    Raises:
        ValueError: a bound allows no array of two, or a method is one that subscribes or unsubscribes.
    """

    def __init__(self, allow: Collection[str], *, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> None:
        if isinstance(allow, str):
            raise ValueError(f"allow={allow!r} is one name; give a collection of methods")
        for method in allow:
            if "subscribe" in method.lower():
                raise ValueError(f"allow: {method} in an array may lose events; leave it out")
        if max_items < 2:
            raise ValueError(f"max_items={max_items} allows no array of two calls")
        if max_bytes < 100:
            raise ValueError(f"max_bytes={max_bytes} allows no array of two calls")
        self.max_items, self.max_bytes = max_items, max_bytes
        self.refusals = 0
        """Arrays that were refused as a whole."""
        self.serial = False
        """A connection may have one array in flight: an error without an id could be of any."""
        self._methods = {method: _Method(method) for method in allow}
        self._rest = 0

    def allows(self, method: str) -> bool:
        """Whether calls of a method may go in arrays at present."""
        if method not in self._methods:
            return False
        if self._rest and self.refusals < MAX_REFUSALS:
            self._rest -= 1
        return not self._rest

    def plan(self, method: str, chance: float) -> Plan:
        """How calls go that are due together with others.

        Args:
            method: one that is allowed.
            chance: at random, in [0, 1), divided by the number of calls.
        """
        known = self._methods[method]
        if chance < known.probe_chance and not known.is_measuring:
            known.probe()
        return known.plan

    def measured(self, plan: Plan, seconds: float) -> None:
        """A call went as planned, and it took so long until it was answered, or not any more waited for."""
        self._methods[plan.method].measured(plan, seconds)

    def refused(self) -> None:
        """An array was refused as a whole: off for `REST` calls, and at the third time for good."""
        self.refusals += 1
        self.serial = True
        self._rest = REST
