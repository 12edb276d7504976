"""The sending half of a session: numbers messages, and keeps them until they were taken. Pure."""

from __future__ import annotations

from msgspec import Raw
from msgspec.msgpack import encode

from penstock.wire.compression import Codec, Trials, compress, decompress
from penstock.wire.envelope import (
    BAD_FRAME,
    LAST,
    MAX_MESSAGES,
    OVERHEAD,
    TEXT,
    BadFrame,
    Compressed,
    Content,
    Data,
    Part,
    count_of,
    pack,
    read,
    unpack,
    write,
)
from penstock.wire.limits import Limits

REPLAY_BYTES, REPLAY_FRAMES = 4 * 1024 * 1024, 4096
"""What one end keeps for a replay at most, and then takes no more."""

_HEAD_OF_PART = write(Part(0, 0, b""))[0]
"""The first byte of no other frame that has a number."""


class Outgoing:
    """The sending half.

    Args:
        theirs: what the peer takes.
        codec: what it reads compressed; None to compress nothing.
    """

    def __init__(self, theirs: Limits, codec: Codec | None = None) -> None:
        self.theirs = theirs
        self.tx = 0
        """Number of the last frame."""
        self.acked = 0
        """Frames up to it were taken by the peer's application."""
        self._written = 0
        """Frames up to it were written to the present socket, or have reached the peer before."""
        self._in_flight = 0
        """Bytes of frames that are written and not acknowledged; a compressed one has as many as its messages."""
        self._kept: dict[int, bytes] = {}
        self._saved: dict[int, int] = {}
        """Bytes by which those of these that are compressed are smaller than their messages."""
        self._begun: list[bytes] = []
        """Pieces that were taken of a message whose last one was not: if the session is lost, so is the whole of it."""
        self._begun_bytes = 0
        self.kept_bytes = 0
        """Of all of these."""
        self.codec = codec
        self._trials = Trials()

    # Numbering

    def add(self, messages: list[Content]) -> None:
        """Number messages, in as few frames as the peer's limits allow."""
        for start in range(0, len(messages), MAX_MESSAGES):
            self._add(messages[start : start + MAX_MESSAGES] if len(messages) > MAX_MESSAGES else messages)

    def add_one(self, message: Content) -> bytes | None:
        """Number a message, and write it at once if that may be: its frame, which counts as written; else None.

        A lone message must not pay for batching, so what `add` and `due` do for many is done here in few steps.
        """
        seq = self.tx + 1
        frame = encode((0, seq, (message,)))
        size = len(frame)
        if size > self.theirs.max_frame:
            self._add_large(message)
            return None
        self.tx = seq
        self._kept[seq] = frame
        self.kept_bytes += size
        if self._written != seq - 1 or self._in_flight >= self.theirs.window:
            return None
        self._written = seq
        self._in_flight += size
        return frame

    def _add(self, messages: list[Content]) -> None:
        array = pack(messages)
        if len(array) + OVERHEAD <= self.theirs.max_frame:
            frame = self._compressed(messages, array)
            self._keep(frame or write(Data(self.tx + 1, Raw(array))))
            if frame is not None:
                self._saved[self.tx] = max(0, len(array) - len(frame))
        elif len(messages) > 1:
            half = len(messages) // 2
            self._add(messages[:half])
            self._add(messages[half:])
        else:
            self._add_large(messages[0])

    def _compressed(self, messages: list[Content], array: bytes) -> bytes | None:
        if self.codec is None or not self._trials.may_try(len(messages)):
            return None
        packed = compress(self.codec, array)
        if not self._trials.tried(len(array), len(packed)):
            return None
        return write(Compressed(self.tx + 1, len(messages), len(array), packed))

    def _add_large(self, message: Content) -> None:
        text = isinstance(message, str)
        self.add_part(message.encode() if isinstance(message, str) else message, text=text, last=True)

    def add_part(self, piece: bytes, *, text: bool, last: bool) -> None:
        """Number a piece of a message; no other message may come before its last piece."""
        size = self.theirs.max_frame - OVERHEAD
        flags = TEXT if text else 0
        for start in range(0, len(piece) or 1, size):
            is_end = last and start + size >= len(piece)
            self._keep(write(Part(self.tx + 1, flags | LAST if is_end else flags, piece[start : start + size])))

    def _keep(self, frame: bytes) -> None:
        self.tx += 1
        self._kept[self.tx] = frame
        self.kept_bytes += len(frame)

    # Writing

    def due(self) -> list[bytes]:
        """The frames that may be written now, and count as written.

        The window is exceeded by one frame at most, and no more than `REPLAY_FRAMES` are not acknowledged.
        """
        frames: list[bytes] = []
        last = min(self.tx, self.acked + REPLAY_FRAMES)
        while self._written < last and self._in_flight < self.theirs.window:
            self._written += 1
            self._in_flight += self._weight(self._written)
            frames.append(self._kept[self._written])
        return frames

    def _weight(self, seq: int) -> int:
        """Bytes of the window that a frame takes."""
        return len(self._kept[seq]) + self._saved.get(seq, 0)

    @property
    def is_written(self) -> bool:
        """Whether no frame waits to be written."""
        return self._written == self.tx

    @property
    def is_full(self) -> bool:
        """Whether no more can be kept."""
        return self.kept_bytes - self._begun_bytes >= REPLAY_BYTES or len(self._kept) >= REPLAY_FRAMES

    @property
    def is_held_up(self) -> bool:
        """Whether frames wait for the window, or none more could be written or kept."""
        return (
            self._written < self.tx
            or self._in_flight >= self.theirs.window
            or self.kept_bytes - self._begun_bytes >= REPLAY_BYTES  # as `is_full`, which costs a lone message too much
            or len(self._kept) >= REPLAY_FRAMES
        )

    def acknowledged(self, taken: int) -> bool:
        """The peer's application has taken every frame up to ``taken``; False if that is known already.

        Raises:
            BadFrame: these were never written.
        """
        if taken > self._written:
            raise BadFrame(BAD_FRAME, f"frame {taken} acknowledged, {self._written} was the last")
        if taken <= self.acked:
            return False
        for seq in range(self.acked + 1, taken + 1):
            frame = self._kept.pop(seq)
            self._in_flight -= len(frame)
            if self._saved:
                self._in_flight -= self._saved.pop(seq, 0)
            if frame[0] == _HEAD_OF_PART:
                self._piece_was_taken(frame)
            else:
                self.kept_bytes -= len(frame)
        self.acked = taken
        return True

    def _piece_was_taken(self, frame: bytes) -> None:
        part = read(frame)
        assert isinstance(part, Part)
        if part.flags & LAST:
            self.kept_bytes -= self._begun_bytes + len(frame)
            self._begun, self._begun_bytes = [], 0
        else:
            self._begun.append(frame)
            self._begun_bytes += len(frame)

    def may_go_on_at(self, rx: int) -> bool:
        """Whether a peer that has every frame up to ``rx`` can be sent the rest."""
        return self.acked <= rx <= self.tx

    def written_since(self, seq: int) -> int:
        """Messages of the frames above ``seq`` that were written; one in parts counts with its last."""
        return sum(map(_messages_of, map(self._kept.__getitem__, range(seq + 1, self._written + 1))))

    def go_on_at(self, rx: int) -> None:
        """There is a new socket: all frames above ``rx`` are to be written again, and stay as they were."""
        self._written = rx
        self._in_flight = sum(map(self._weight, range(self.acked + 1, rx + 1)))

    def unacknowledged(self) -> list[Content]:
        """The messages that may not have been taken, whole; not one of which no last piece was added."""
        found: list[Content] = []
        pieces: list[bytes] = []
        for frame in (*self._begun, *self._kept.values()):
            match read(frame):
                case Data(messages=array):
                    found += unpack(array)
                case Compressed(size=size, packed=packed):
                    assert self.codec is not None
                    found += unpack(decompress(self.codec, packed, size))
                case Part(flags=flags, piece=piece):
                    pieces.append(piece)
                    if flags & LAST:
                        data = b"".join(pieces)
                        found.append(data.decode(errors="replace") if flags & TEXT else data)
                        pieces = []
        return found


def _messages_of(frame: bytes) -> int:
    """How many messages are whole with a frame."""
    match read(frame):
        case Data(messages=array):
            return count_of(array)
        case Compressed(count=count):
            return count
        case Part(flags=flags):
            return flags & LAST
    raise AssertionError(f"a frame without a number is kept: {frame!r}")
