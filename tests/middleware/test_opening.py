"""What counts as the envelope's own failure."""

from __future__ import annotations

import pytest

from penstock.manager.switch import Stage
from penstock.transport.base import ConnectionClosed, InvalidHandshake
from support.pipes import ledger, piped
from support.relay import relaying
from support.waiting import until


async def test_a_cut_while_the_session_is_greeted_is_not_the_envelopes_fault() -> None:
    async with ledger() as book, relaying(book.port) as relay, piped(fallback={"failures": 1}) as pipe:

        def cut_behind_the_head(data: bytes) -> bytes:
            head, _, _ = data.partition(b"\r\n\r\n")
            relay.cut_after = 0
            return head + b"\r\n\r\n"

        relay._edit_answer = cut_behind_the_head
        with pytest.raises((ConnectionClosed, InvalidHandshake, OSError)):
            await pipe._opening.open(relay.url)
        assert pipe.manager.failures[Stage.ENVELOPE] == 0
        relay._edit_answer = None
        await pipe.send(relay.url, "hello")
        await until(lambda: book.messages == ["hello"])
