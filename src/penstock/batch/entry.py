"""A message on its way through a batcher, and how it ended. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from penstock.message import NORMAL, TEXT, Message


class Outcome(Struct, frozen=True):
    """How a message ended."""

    reason: str = ""
    """Why it was dropped: ``"expired"``, ``"overflow"``, ``"failed"`` or ``"closed"``; empty if it was delivered."""
    attempts: int = 0
    """Times that ``deliver`` was called, if it failed."""
    cause: BaseException | None = None
    """What ``deliver`` raised last."""


DELIVERED, EXPIRED, OVERFLOW, CLOSED = Outcome(), Outcome("expired"), Outcome("overflow"), Outcome("closed")


class Entry(Struct, eq=False):
    """A message that was added.

    One that another stands for follows it: what becomes of the survivor becomes of the follower. The survivor does not
    know its followers, so that those whom nobody asks about cost nothing.
    """

    message: Message | str
    """Wrapped as late as possible, because most are plain text."""
    size: int
    """Bytes of payload."""
    level: int = NORMAL
    key: str | None = None
    expires_at: float | None = None
    seq: int = 0
    """Its number in the order of adding, from 1."""
    added_at: float = 0.0
    survivor: Entry | None = None
    ending: Outcome | None = None
    watchers: list[Callable[[], object]] | None = None
    """Called once it has ended."""

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, or the one that stands for it."""
        entry = self
        while entry.survivor is not None:
            entry = entry.survivor
        return entry.ending

    def tell(self) -> None:
        """Call those who watch it."""
        watchers, self.watchers = self.watchers, None
        for watcher in watchers or ():
            watcher()

    def follow(self, survivor: Entry) -> None:
        """Let another one, which has not been dropped, stand for it."""
        self.survivor = survivor
        self.message = ""
        watchers, self.watchers = self.watchers, None
        for watcher in watchers or ():
            survivor.watch(watcher)

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call ``watcher`` once it has ended."""
        entry = self
        while entry.survivor is not None:
            entry = entry.survivor
        if entry.ending is not None:
            watcher()
        elif entry.watchers is None:
            entry.watchers = [watcher]
        else:
            entry.watchers.append(watcher)


def wrapped(entries: Iterable[Entry]) -> list[Message]:
    """Their messages."""
    return [Message(text, TEXT) if isinstance(text := entry.message, str) else text for entry in entries]


def settle_all(entries: Iterable[Entry], outcome: Outcome) -> None:
    """They ended, and hold their messages no longer."""
    for entry in entries:
        entry.ending = outcome
        entry.message = ""
        if entry.watchers is not None:
            entry.tell()
