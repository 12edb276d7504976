"""Text that arrives in parts."""

from __future__ import annotations

import codecs

_decoder = codecs.getincrementaldecoder("utf-8")


class TextDecoder:
    """Decodes the parts of one message, each as far as its characters are complete; bytes pass as they are."""

    def __init__(self, *, text: bool) -> None:
        self._decoder = _decoder() if text else None

    def decode(self, data: bytes, fin: bool) -> str | bytes:
        """Raise UnicodeDecodeError where the bytes are not UTF-8, or end within a character."""
        return data if self._decoder is None else self._decoder.decode(data, fin)
