"""Where an HTTP head ends. Pure."""

from __future__ import annotations

_END = b"\r\n\r\n"


class Head:
    """Cuts a stream after the empty line that ends the head of a request or a response."""

    def __init__(self) -> None:
        self.complete = False
        self._last = b""

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """What of ``data`` belongs to the head, and what comes after it."""
        if self.complete:
            return b"", data
        seen = self._last + data
        end = seen.find(_END)
        if end < 0:
            self._last = seen[-len(_END) + 1 :]
            return data, b""
        self.complete = True
        cut = end + len(_END) - len(self._last)
        return data[:cut], data[cut:]
