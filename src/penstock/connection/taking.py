"""When the peer is told that its messages were taken."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle
from collections.abc import Callable, Sequence

from penstock.transport.inbox import Inbox, Item
from penstock.wire.incoming import ACK_DELAY, Incoming


class SessionInbox(Inbox):
    """Messages of a session that wait for the application. The window bounds them, so reading is never paused.

    Args:
        taken: called when the application waits for a message, and while `watched` whenever it has taken one.
    """

    def __init__(self, loop: AbstractEventLoop, taken: Callable[[], None]) -> None:
        super().__init__(loop, None, None)
        self._taken = taken

    def watch(self, *, closely: bool) -> None:
        """Have every message that is taken looked at, or only the last that is here."""
        self.paused = closely  # what `Receiver` looks at after each message anyhow

    def put_all(self, messages: Sequence[Item]) -> None:
        """Add what arrived together."""
        self.items.extend(messages)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def relax(self) -> None:
        if self.paused:
            self._taken()

    def expect(self) -> Future[None]:
        self._taken()
        return super().expect()

    def deaf_since(self, when: float) -> bool:
        return False


class Taking:
    """Watches what the application takes, and tells the peer: in time, but not of every message.

    Args:
        tell: writes an acknowledgement, if a socket takes it.
        on_empty: called when all was taken, and nothing more will arrive.
    """

    def __init__(self, loop: AbstractEventLoop, tell: Callable[[], None], on_empty: Callable[[], None]) -> None:
        self.inbox = SessionInbox(loop, self.look)
        self.incoming: Incoming
        self.is_ending = False
        """Nothing more will arrive."""
        self._loop, self._tell, self._on_empty = loop, tell, on_empty
        self._timer: TimerHandle | None = None
        self._seen = 0  # what had been taken when the timer was last due
        self._is_idle = False
        """The application takes nothing: it is watched closely instead of by the timer."""

    def look(self) -> None:
        """The application has taken messages, or waits for some."""
        left = len(self.inbox.items)
        if self._is_idle:
            self._is_idle = False
            self._watch()
            self._arm()
        if self.incoming.left(left):
            self.tell()
        if self.is_ending and not left:
            self._on_empty()

    def put(self, messages: Sequence[Item]) -> None:
        """Messages have arrived; the peer is told before long that they were taken."""
        if messages:
            self.inbox.put_all(messages)
        # Whoever waits has taken all that came before, and was looked at then; but a part is taken as it comes.
        is_known = bool(messages) and self.inbox.busy
        if (self.incoming.must_tell or not is_known) and self.incoming.left(len(self.inbox.items)):
            self.tell()
        elif self._timer is None and not self._is_idle:
            self._arm()

    def tell(self) -> None:
        """Tell the peer now."""
        self.incoming.left(len(self.inbox.items))
        self._watch()
        self._tell()

    def resume(self) -> None:
        """There is somebody to be told again: tell what was taken, and what is taken from now on."""
        self.tell()
        if self.incoming.is_behind and not self._is_idle:
            self._arm()

    def _watch(self) -> None:
        self.inbox.watch(closely=self._is_idle or self.incoming.want > self.incoming.taken)

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(ACK_DELAY, self._late)

    def _late(self) -> None:
        self._timer = None
        incoming = self.incoming
        incoming.left(len(self.inbox.items))
        if incoming.taken > incoming.told:
            self.tell()
            if incoming.taken > incoming.told:
                return  # no socket takes it: `resume` tells
        if incoming.is_behind:
            self._is_idle = incoming.taken == self._seen
            self._seen = incoming.taken
            if self._is_idle:
                self._watch()
            else:
                self._arm()

    def stop(self) -> None:
        """There is nobody to be told any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
