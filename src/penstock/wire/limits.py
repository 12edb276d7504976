"""What each end of a session takes. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.wire.compression import Codec
from penstock.wire.envelope import (
    BAD_FRAME,
    MAX_INTEGER,
    BadFrame,
    Hello,
    Welcome,
)

LEAST_FRAME = 4096
"""Bytes that a frame must be allowed to have, for an end to speak the envelope at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one end takes; both hold for the life of a session.

    Raises:
        ValueError: a limit is out of bounds.
    """

    max_frame: int = 2**20
    """Bytes in a frame."""
    window: int = 2**20
    """Bytes of frames that were not taken yet."""
    max_message: int = 2**20
    """Bytes in a message."""

    def __post_init__(self) -> None:
        for name, least in (("max_frame", LEAST_FRAME), ("window", 1), ("max_message", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= MAX_INTEGER:
                raise ValueError(f"{name}={value!r}: must be a whole number from {least} to {MAX_INTEGER}")


def limits_of(peer: Hello | Welcome) -> Limits:
    """What a peer takes.

    Raises:
        BadFrame: its limits make no sense.
    """
    try:
        return Limits(peer.max_frame, peer.window, peer.max_message)
    except ValueError as exc:
        raise BadFrame(BAD_FRAME, str(exc)) from exc


def limits_within(max_size: int | None) -> Limits | None:
    """What an end takes whose messages and frames have ``max_size`` bytes at most; None if those are too few."""
    if max_size is None:
        return Limits(max_frame=2**24, max_message=MAX_INTEGER)
    return Limits(max_frame=max_size, max_message=max_size) if max_size >= LEAST_FRAME else None


def choose_codec(offered: int, taken: Codec) -> Codec | None:
    """The better one of those that both ends know."""
    common = Codec(offered & taken.value)
    return next((codec for codec in (Codec.ZSTD, Codec.ZLIB) if codec in common), None)
