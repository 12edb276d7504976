"""One end of a session: numbers what it sends, keeps it until it was taken, and goes on after a break. Pure.

A session is two `Outgoing` and two `Incoming` halves that talk by frames; nothing here knows sockets or clocks.
"""

from __future__ import annotations

from penstock.wire.compression import Codec
from penstock.wire.envelope import (
    Hello,
    Welcome,
)
from penstock.wire.incoming import Incoming
from penstock.wire.limits import Limits
from penstock.wire.outgoing import Outgoing


class Session:
    """Both halves of one end."""

    def __init__(self, ours: Limits, theirs: Limits, codec: Codec | None = None, *, unread: int = 0) -> None:
        self.outgoing = Outgoing(theirs, codec)
        self.incoming = Incoming(ours, codec, unread=unread)

    def may_resume(self, peer: Hello | Welcome) -> bool:
        """Whether this end and a peer that has come back have all that is needed to go on."""
        return peer.first <= self.incoming.rx + 1 and self.outgoing.may_go_on_at(peer.rx)

    def resume(self, peer: Hello | Welcome) -> None:
        """Go on, over another socket."""
        self.outgoing.go_on_at(peer.rx)
        self.incoming.resumed()

    @property
    def first(self) -> int:
        """The lowest number that can be sent again."""
        return self.outgoing.acked + 1
