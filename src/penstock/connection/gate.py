"""What a message meets on its way out of a connection."""

from __future__ import annotations

from enum import Enum


class Gate(Enum):
    """What the next message meets."""

    LONE = 0
    GATHER = 1
    SHUT = 2


LONE, GATHER, SHUT = Gate  # looked up for every message, and a member is slow to find
