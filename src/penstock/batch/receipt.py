"""What becomes of a message that was added."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from functools import partial
from typing import Any

from penstock.batch.entry import Entry
from penstock.errors import DeliveryFailed, MessageDropped, WrongLoop


class Receipt(Entry, eq=False):
    """Tells what became of a message: ``await`` it to wait until ``deliver`` has returned.

    A message that another one stands for, a repeat or an earlier value of the same key, shares its fate. Nobody has to
    look: a failure that nobody asks for is counted and logged, no more. Cancelling ends the waiting, not the delivery.

    Raises:
        WrongLoop: when awaited, before it is done, in another event loop or thread than its batcher's.
        MessageDropped: when awaited, of a message that was dropped and will not be delivered.
        DeliveryFailed: when awaited, of one that ``deliver`` failed on each time; what it raised last is the cause.
    """

    loop: asyncio.AbstractEventLoop | None = None
    """The batcher's."""

    def __await__(self) -> Generator[Any, None, None]:
        if self.outcome is None:
            loop = asyncio.get_running_loop()
            if loop is not self.loop:
                raise WrongLoop("receipt", "asyncio.wait_for(receipt, timeout)")
            future: asyncio.Future[None] = loop.create_future()
            self.watch(partial(_wake, future))
            yield from future
        error = self.exception()
        if error is not None:
            raise error

    @property
    def done(self) -> bool:
        """Whether the message was delivered, or dropped."""
        return self.outcome is not None

    def exception(self) -> MessageDropped | None:
        """Why the message was dropped; None if it was delivered, or waits."""
        outcome = self.outcome
        if outcome is None or not outcome.reason:
            return None
        if outcome.reason != "failed":
            return MessageDropped(outcome.reason)
        error = DeliveryFailed(outcome.attempts)
        error.__cause__ = outcome.cause
        return error


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
