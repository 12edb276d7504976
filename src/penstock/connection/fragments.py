"""One message in many frames."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import Any

from penstock.connection.messages import DataLike, encode, mixed, refused
from penstock.connection.outbox import Outbox
from penstock.transport.base import CloseCode
from penstock.wire.frames import CONTINUATION, FIN

YIELD_EVERY = 64
"""Fragments after which the event loop gets a turn."""


async def send_fragments(outbox: Outbox, fragments: Any, text: bool | None) -> None:
    """Send each item as a fragment; the last, empty frame ends the message.

    Nothing is sent for an iterable that yields nothing. Whatever ends the iteration before its end, an exception, a
    fragment of another kind, a cancelled task or the connection's ``send_timeout``, which holds for each fragment,
    closes the connection with 1011, since the peer has a part.

    Raises:
        MessageTypeError: ``fragments`` is no iterable of ``str`` or of bytes-like objects.
        ConnectionClosed: the connection is closed, or closing.
    """
    iterator = _iterate(fragments)
    try:
        chunk = await anext(iterator)
    except StopAsyncIteration:
        return
    first, payload = encode(chunk, text)
    is_text = isinstance(chunk, str)
    outbox.check_loop()
    await outbox.turn(0, exclusive=True)
    count = 0
    try:
        await _write(outbox, first & ~FIN, payload)
        count = 1
        async for item in iterator:
            if isinstance(item, str) is not is_text:
                raise mixed(chunk, item)
            await _write(outbox, CONTINUATION, encode(item)[1])
            count += 1
            if count % YIELD_EVERY == 0:
                await asyncio.sleep(0)
        await _write(outbox, FIN | CONTINUATION, b"")
    except BaseException:
        if count:
            outbox.transport.fail(CloseCode.INTERNAL_ERROR, "error in fragmented message")
        raise
    finally:
        outbox.end_fragments()


async def _write(outbox: Outbox, first: int, payload: bytes) -> None:
    """Write a frame behind what was accepted before it; cancelled, it has not written."""
    if outbox.transport.blocked and not outbox.ended:
        async with asyncio.timeout(outbox.send_timeout):
            while outbox.transport.blocked and not outbox.ended:
                await outbox.changed.wait()
    if outbox.ended:
        await outbox.raise_closed()
    outbox.write_out()
    outbox.write_one(first, payload)


async def _iterate(fragments: Any) -> AsyncIterator[DataLike]:
    if isinstance(fragments, AsyncIterable):
        async for item in fragments:
            yield item
    elif isinstance(fragments, Iterable) and not isinstance(fragments, Mapping):
        for item in fragments:
            yield item
    else:
        raise refused(fragments)
