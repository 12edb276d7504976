"""Messages on their way into a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from penstock.wire.frames import BINARY, CONTINUATION, FIN, TEXT

if TYPE_CHECKING:
    from penstock.connection.session import SessionTransport

WHOLE = FIN | BINARY
"""The first byte of a message that is not sent in fragments; whether it is text, its type tells."""


class SessionFrames:
    """Numbers messages, and builds the WebSocket frames of those that may be written now.

    See `penstock.wire.frames`; payloads are ``str`` or ``bytes`` where ``first`` is `WHOLE`, pieces of bytes elsewhere.
    """

    masked = True
    """What was built for one connection does not serve another."""

    def __init__(self, transport: SessionTransport) -> None:
        self._transport = transport
        self._text = False

    def one(self, first: int, payload: Any) -> bytes:
        transport = self._transport
        if first == WHOLE:
            return transport.take_one(payload)
        if first & 0x0F != CONTINUATION:
            self._text = first & 0x0F == TEXT
        transport.session.outgoing.add_part(payload, text=self._text, last=bool(first & FIN))
        return transport.take_due()

    def many(self, first: int, payloads: Sequence[Any]) -> bytes:
        self._transport.session.outgoing.add(payloads)  # type: ignore[arg-type]
        return self._transport.take_due()
