"""Waiting for something to change."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future


class Signal:
    """Whoever waits is woken by the next `fire`; nobody may be waiting then."""

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        self._waiters: dict[Future[None], None] = {}

    def __bool__(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiters)

    async def wait(self) -> None:
        """Wait for the next `fire`. Cancelling is safe."""
        waiter = self._loop.create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)

    def fire(self) -> None:
        """Wake all that wait."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
