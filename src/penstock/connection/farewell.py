"""How a session ends in order: both ends say BYE."""

from __future__ import annotations

import asyncio

from penstock.transport.base import (
    Close,
    CloseCode,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ProtocolError,
)
from penstock.wire.envelope import BAD_FRAME, BadFrame, Bye

_OK = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)
_MAX_CONTROL = 125


class Farewell:
    """Who has said BYE, and whether the socket may be closed."""

    def __init__(self) -> None:
        self.ours: Close | None = None
        """What this end says, or will say behind its last frame."""
        self.is_sent = False
        """It was written to the present socket."""
        self.theirs: Close | None = None
        """What the peer has said."""
        self.settled = asyncio.Event()
        """Nothing more is to be waited for before the socket is closed."""
        self._they_were_first = False

    @property
    def is_said(self) -> bool:
        """Whether the session is over, in order, when the socket is gone."""
        return self.theirs is not None or self.settled.is_set()

    def hear(self, bye: Bye) -> bool:
        """The peer says BYE; False if it has said so before.

        Raises:
            BadFrame: nobody could close with that.
        """
        if self.theirs is not None:
            return False
        theirs = Close(bye.code, bye.reason)
        try:
            is_sane = len(theirs.serialize()) <= _MAX_CONTROL
        except ProtocolError:
            is_sane = False
        if not is_sane:
            raise BadFrame(BAD_FRAME, f"BYE with code {bye.code}")
        self.theirs = theirs
        self._they_were_first = self.ours is None
        return True

    @property
    def exc(self) -> ConnectionClosed | None:
        """What the end of the session raises; None if the socket's end has to tell."""
        if self.theirs is None:
            return None
        ours = self.theirs if self.ours is None else self.ours
        kind = ConnectionClosedOK if self.theirs.code in _OK and ours.code in _OK else ConnectionClosedError
        return kind(self.theirs, ours, self._they_were_first)
