"""When gathered messages leave, and how many may wait. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """How a connection gathers outgoing messages.

    Raises:
        ValueError: a field is out of bounds; the message names the field, its value and the bound.
    """

    batch_size: int = 1024
    """Messages: a batch that has as many is written at once."""
    batch_bytes: int = 128 * 1024
    """Bytes of payload: a batch that has as many is written at once."""
    batch_timeout: float = 0.0
    """Seconds that the first message of a batch waits for company. 0: the first message of a loop iteration is
    written at once, the rest at the iteration's end."""
    max_pending_messages: int = 16_384
    """Messages that may gather while the socket does not take more; then ``send`` waits."""
    max_pending_bytes: int = 1024 * 1024
    """Bytes, likewise. One message larger than this is taken when nothing else waits."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "batch_bytes", "max_pending_messages", "max_pending_bytes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                number = "whole number of bytes, at" if name.endswith("_bytes") else "whole number of at"
                raise ValueError(f"{name}={value!r}: must be a {number} least 1")
        check_seconds("batch_timeout", self.batch_timeout)

    @property
    def full_batch(self) -> tuple[int, int]:
        """Messages or bytes that make a batch full: no more gather than may be pending."""
        return min(self.batch_size, self.max_pending_messages), min(self.batch_bytes, self.max_pending_bytes)

    def is_full(self, messages: int, size: int) -> bool:
        """Whether a batch of so many messages and bytes should be written."""
        most, largest = self.full_batch
        return messages >= most or size >= largest

    def has_room(self, messages: int, size: int, more: int) -> bool:
        """Whether a message of ``more`` bytes may gather behind so many, while the socket does not take any."""
        if messages == 0:
            return True
        return messages < self.max_pending_messages and size + more <= self.max_pending_bytes


def check_seconds(name: str, value: float) -> None:
    """Raise ValueError if ``value`` is no duration."""
    if not isinstance(value, int | float) or not value >= 0:
        raise ValueError(f"{name}={value!r}: must be a number of seconds, at least 0")
