"""The receiving half of a session: opens frames, and knows what was taken of them. Pure."""

from __future__ import annotations

from collections import deque

from penstock.wire.compression import BadCompression, Codec, decompress
from penstock.wire.envelope import (
    BAD_FRAME,
    BAD_TEXT,
    GAP,
    LAST,
    MAX_MESSAGES,
    TEXT,
    TOO_BIG,
    Ack,
    BadFrame,
    Compressed,
    Content,
    Data,
    Part,
    size_of,
    unpack,
)
from penstock.wire.limits import Limits
from penstock.wire.outgoing import REPLAY_FRAMES

ACK_FRAMES = 32
"""Frames taken after which the sender is told at once."""
ACK_DELAY = 0.05
"""Seconds after which it is told in any case."""
MAX_FRAMES = 2 * REPLAY_FRAMES
"""Frames that may have arrived and not be acknowledged: small ones cost far more memory than their bytes."""


def payload_of(frame: Data | Compressed | Part, messages: list[Content]) -> int:
    """Bytes of the messages of a frame; where there are several, with those that msgpack puts before each.

    Nobody has looked at all of them, and to do so would cost more than anything else here.
    """
    if isinstance(frame, Part) or len(messages) == 1:
        return size_of(messages[0])
    return len(frame.messages) if isinstance(frame, Data) else frame.size


class Incoming:
    """The receiving half.

    Args:
        ours: what is taken at most.
        codec: what may arrive compressed.
        unread: messages of a session before this one that still wait for the application.
    """

    def __init__(self, ours: Limits, codec: Codec | None = None, *, unread: int = 0) -> None:
        self.ours = ours
        self.rx = 0
        """Number of the last frame that has arrived, with all before it."""
        self.taken = 0
        """Frames up to it were handed to the application."""
        self.told = 0
        """What the peer was told of that."""
        self.want = 0
        """The peer asks to be told as soon as this frame was taken; 0 if it does not."""
        self._codec = codec
        self._arrived = unread  # messages, of all frames
        self._waiting: deque[tuple[int, int, int]] = deque()
        """Frames that were not taken: number, messages that have arrived up to its end, bytes when inflated."""
        self._taken_bytes = 0  # of frames that the peer was not told of
        self.waiting_bytes = 0
        """Of frames that wait for the application, inflated."""
        self.must_tell = False
        """The peer is to be told in any case: it does not seem to know what it was told before."""
        self._pieces: bytearray | None = None
        """Of a message that comes in parts; as objects, small ones would take many times as much memory."""

    def receive(self, frame: Data | Compressed | Part, size: int) -> list[Content]:
        """The messages of a frame of ``size`` bytes; none if they were received before.

        Raises:
            BadFrame: it breaks the rules.
        """
        if frame.seq <= self.rx:
            self.must_tell = True  # it was sent again because the peer does not know
            return []
        if frame.seq > self.rx + 1:
            raise BadFrame(GAP, f"frame {frame.seq} after {self.rx}")
        if size > self.ours.max_frame:
            raise BadFrame(TOO_BIG, f"a frame of {size} bytes; {self.ours.max_frame} at most")
        if self.waiting_bytes + self._taken_bytes > self.ours.window:
            raise BadFrame(TOO_BIG, f"more than the window of {self.ours.window} bytes is not acknowledged")
        if frame.seq > self.told + MAX_FRAMES:
            raise BadFrame(TOO_BIG, f"more than {MAX_FRAMES} frames are not acknowledged")
        messages = self._open(frame)
        self.rx = frame.seq
        self._arrived += len(messages)
        if isinstance(frame, Compressed):
            size = max(size, frame.size)  # what waits is inflated
        self._waiting.append((frame.seq, self._arrived, size))
        self.waiting_bytes += size
        return messages

    def _open(self, frame: Data | Compressed | Part) -> list[Content]:
        if isinstance(frame, Part):
            return self._join(frame)
        if self._pieces is not None:
            raise BadFrame(BAD_FRAME, "a message in the middle of another that comes in parts")
        messages = unpack(frame.messages) if isinstance(frame, Data) else self._decompress(frame)
        if self.ours.max_message < self.ours.max_frame:
            for message in messages:
                self._check_size(size_of(message))
        return messages

    def _decompress(self, frame: Compressed) -> list[Content]:
        if frame.count > MAX_MESSAGES:
            raise BadFrame(TOO_BIG, f"{frame.count} messages in a frame; {MAX_MESSAGES} at most")
        if frame.size > self.ours.max_frame:
            raise BadFrame(TOO_BIG, f"{frame.size} bytes when inflated; {self.ours.max_frame} at most")
        if self._codec is None:
            raise BadFrame(BAD_FRAME, "compressed, though no codec was agreed on")
        try:
            array = decompress(self._codec, frame.packed, frame.size)
        except BadCompression as exc:
            raise BadFrame(BAD_FRAME, str(exc)) from exc
        return unpack(array, frame.count)

    def _join(self, part: Part) -> list[Content]:
        pieces = self._pieces = bytearray() if self._pieces is None else self._pieces
        self._check_size(len(pieces) + len(part.piece))
        pieces += part.piece
        if not part.flags & LAST:
            return []
        self._pieces = None
        if not part.flags & TEXT:
            return [bytes(pieces)]
        try:
            return [pieces.decode()]
        except UnicodeDecodeError as exc:
            raise BadFrame(BAD_TEXT, exc.reason) from exc

    def _check_size(self, size: int) -> None:
        if size > self.ours.max_message:
            raise BadFrame(TOO_BIG, f"a message of {size} bytes or more; {self.ours.max_message} at most")

    # Acknowledging

    def wanted(self, want: int) -> None:
        """The peer asks to be told as soon as frame ``want`` was taken."""
        self.want = want

    def left(self, messages: int) -> bool:
        """So many messages still wait for the application; True if the peer has to be told now of those that do not."""
        taken = self._arrived - messages
        waiting = self._waiting
        while waiting and waiting[0][1] <= taken:
            self.taken, _, size = waiting.popleft()
            self._taken_bytes += size
            self.waiting_bytes -= size
        return (
            self.must_tell
            or self.taken - self.told >= ACK_FRAMES
            or self._taken_bytes * 4 >= self.ours.window
            or (self.told < self.want <= self.taken)
        )

    @property
    def is_behind(self) -> bool:
        """Whether the peer does not know of all that has arrived that it was taken."""
        return self.told < self.rx

    def ack(self, want: int = 0) -> Ack:
        """What to tell the peer, which knows it then."""
        self.told = self.taken
        self._taken_bytes = 0
        self.must_tell = False
        return Ack(self.taken, want)

    def resumed(self) -> None:
        """There is a new socket: the peer is to be told anew."""
        self.must_tell = True
