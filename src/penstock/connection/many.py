"""Many messages in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from penstock.connection.messages import DataLike, encode, encode_alike, is_whole
from penstock.connection.outbox import Outbox
from penstock.errors import MessageTypeError

CHUNK = 128
"""Messages that are looked at together."""


async def send_many(outbox: Outbox, messages: Iterable[DataLike]) -> None:
    """Have ``messages`` accepted in order, as many at a time as the batch has room for.

    Cancelled, or ended by a message that cannot be sent or an iterable that raises, it has sent those before.

    Raises:
        MessageTypeError: ``messages`` is one message.
    """
    if is_whole(messages):
        raise MessageTypeError(
            f"send_many takes an iterable of messages, not one {type(messages).__name__}", "use send for one message"
        )
    outbox.check_loop()
    iterator = iter(messages)
    more = True
    while more:
        chunk: list[DataLike] = []
        try:
            chunk.extend(islice(iterator, CHUNK))
        except Exception:
            await _send_chunk(outbox, chunk)
            raise
        await _send_chunk(outbox, chunk)
        more = len(chunk) == CHUNK


async def _send_chunk(outbox: Outbox, chunk: list[DataLike]) -> None:
    if len(chunk) > 1:
        outbox.expect_more()
    position = 0
    while position < len(chunk):
        first, payloads = encode_alike(chunk[position : position + outbox.spare])
        if payloads and outbox.append_all(first, payloads):
            position += len(payloads)
        else:
            await outbox.accept(*encode(chunk[position]))
            position += 1


def offer(outbox: Outbox, texts: Sequence[str]) -> int:
    """Take as many ``texts``, in order, as there is room for now; how many.

    None is taken that needs a closer look: one that fills the batch or cannot be sent, or where extensions are in use.
    """
    outbox.check_loop()
    outbox.expect_more()
    taken, alike = 0, len(texts)
    while taken < len(texts) and outbox.spare:
        first, payloads = encode_alike(texts[taken : taken + min(alike, outbox.spare)])
        if payloads and outbox.append_all(first, payloads):
            taken += len(payloads)
        elif alike > 1:
            alike = 1  # so many make the batch full, or one of them cannot be sent
        else:
            break
    return taken
