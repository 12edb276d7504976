"""Those who wait for room in a full queue: first come, first served."""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError, Future
from collections import OrderedDict
from collections.abc import Callable

from penstock.batch.entry import Entry


class Line:
    """Callers that wait until their message may be added.

    One that is let through adds its message a moment later, in its own task, so that a caller who is cancelled in
    between has added nothing. Until then its room is promised: nobody else gets it, and nobody overtakes.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self.promised = self.promised_bytes = 0
        """Messages that were let through, and are not added yet."""
        self._loop = loop
        self._waiting: OrderedDict[Future[bool], Entry] = OrderedDict()

    def __len__(self) -> int:
        """Callers that wait, or have been let through and have not gone on."""
        return len(self._waiting) + self.promised

    async def join(self, entry: Entry, let_through: Callable[[], None]) -> bool:
        """Wait; return whether ``entry`` is to be added at once, or refused. Cancelling gives the promise back."""
        future: Future[bool] = self._loop.create_future()
        alone = not len(self)
        self._waiting[future] = entry
        if alone:  # else whoever was let through has to add first
            let_through()
        try:
            may_go = await future
        except CancelledError:
            self._waiting.pop(future, None)
            if not future.cancelled() and future.result():
                self._keep(entry)
            let_through()
            raise
        if may_go:
            self._keep(entry)
        return may_go

    def let_through(self, may_go: Callable[[Entry], bool]) -> None:
        """Promise callers room, from the first on, as long as ``may_go``."""
        waiting = self._waiting
        while waiting:
            future, entry = next(iter(waiting.items()))
            if not future.done():
                if not may_go(entry):
                    return
                self.promised += 1
                self.promised_bytes += entry.size
                future.set_result(True)
            del waiting[future]

    def refuse_all(self) -> None:
        """Send everybody away who still waits."""
        for future in self._waiting:
            if not future.done():
                future.set_result(False)
        self._waiting.clear()

    def _keep(self, entry: Entry) -> None:
        """A caller takes what it was promised, or gives it up."""
        self.promised -= 1
        self.promised_bytes -= entry.size
