"""Delays between attempts: exponential, jittered, pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

INITIAL_DELAY = 5.0
"""Seconds; the first delay is random below it (RFC 6455 section 7.2.3)."""
MIN_DELAY = 3.1
MAX_DELAY = 90.0
FACTOR = 1.618


def backoff(
    random: Callable[[], float],
    *,
    initial: float = INITIAL_DELAY,
    minimum: float = MIN_DELAY,
    maximum: float = MAX_DELAY,
    factor: float = FACTOR,
) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt, for ever.

    The first delay is uniform below ``initial``. Later ones grow by ``factor`` from ``minimum`` to ``maximum``, and
    each is drawn from the upper half of its step: a thousand clients that lost the same server at the same moment do
    not come back at the same moment, neither on the first attempt nor on any later one.

    Args:
        random: uniform in [0, 1).
    """
    yield random() * initial
    step = minimum
    while True:
        yield step * (0.5 + random() / 2)
        step = min(step * factor, maximum)
