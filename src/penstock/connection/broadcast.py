"""One message to many connections."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from penstock.connection.connection import Connection
from penstock.connection.messages import DataLike, encode
from penstock.transport.base import ConcurrencyError
from penstock.wire.frames import ServerFrames

logger = logging.getLogger("penstock.connection")


def broadcast(
    connections: Iterable[Connection],
    message: DataLike,
    *,
    text: bool | None = None,
    raise_exceptions: bool = False,
) -> None:
    """Send ``message`` to every connection that is open, behind what each has accepted before.

    As with ``send``, the first message of a loop iteration is written at once, the rest at its end, many to a write.
    Never waits: for a peer that does not read, messages gather without bound until its keepalive gives it up; over a
    session 4 MiB of them, with 64 bytes more for each, and then it ends with 1013 and raises SessionLost.
    Connections that are not open are passed over. One that is sending a message in fragments, or whose write fails, is
    skipped with a warning in the log, or with ``raise_exceptions`` reported in an ``ExceptionGroup`` at the end.

    Raises:
        MessageTypeError: ``message`` is neither text nor bytes.
        SerializationError: text with a lone surrogate.
        ExceptionGroup: with ``raise_exceptions``: a ConcurrencyError or RuntimeError for each connection skipped.
    """
    first, payload = encode(message, text)
    frame = ServerFrames().one(first, payload)  # the same bytes for every client; masked ones are built for each
    errors: list[Exception] = []
    for connection in connections:
        outbox = connection.outbox
        if outbox.ended:
            continue
        error: Exception
        if outbox.fragmenting:
            error = ConcurrencyError("sending a fragmented message")
        else:
            try:
                outbox.take_unasked(frame, first, payload)
                continue
            except Exception as cause:  # noqa: BLE001 - one connection's trouble must not keep the message from others
                error = RuntimeError("failed to write message")
                error.__cause__ = cause
        if raise_exceptions:
            errors.append(error)
        else:
            logger.warning("skipped broadcast to %s: %s", connection.id, error, exc_info=error.__cause__)
    if errors:
        raise ExceptionGroup("skipped broadcast", errors)
