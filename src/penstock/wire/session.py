"""One end of a session: numbers what it sends, keeps it until it was taken, and goes on after a break. Pure.

A session is two `Outgoing` and two `Incoming` halves that talk by frames; nothing here knows sockets or clocks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from msgspec import Raw
from msgspec.msgpack import encode

from penstock.wire.compression import BadCompression, Codec, Trials, compress, decompress
from penstock.wire.envelope import (
    BAD_FRAME,
    BAD_TEXT,
    GAP,
    LAST,
    MAX_INTEGER,
    MAX_MESSAGES,
    OVERHEAD,
    TEXT,
    TOO_BIG,
    Ack,
    BadFrame,
    Compressed,
    Content,
    Data,
    Hello,
    Part,
    Welcome,
    pack,
    read,
    unpack,
    write,
)

LEAST_FRAME = 4096
"""Bytes that a frame must be allowed to have, for an end to speak the envelope at all."""
REPLAY_BYTES, REPLAY_FRAMES = 4 * 1024 * 1024, 4096
"""What one end keeps for a replay at most, and then takes no more."""
ACK_FRAMES = 32
"""Frames taken after which the sender is told at once."""
ACK_DELAY = 0.05
"""Seconds after which it is told in any case."""

_HEAD_OF_PART = write(Part(0, 0, b""))[0]
"""The first byte of no other frame that has a number."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one end takes; both hold for the life of a session.

    Raises:
        ValueError: a limit is out of bounds.
    """

    max_frame: int = 2**20
    """Bytes in a frame."""
    window: int = 2**20
    """Bytes of frames that were not taken yet."""
    max_message: int = 2**20
    """Bytes in a message."""

    def __post_init__(self) -> None:
        for name, least in (("max_frame", LEAST_FRAME), ("window", 1), ("max_message", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= MAX_INTEGER:
                raise ValueError(f"{name}={value!r}: must be a whole number from {least} to {MAX_INTEGER}")


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
        """Bytes of frames that are written and not acknowledged."""
        self._kept: dict[int, bytes] = {}
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
            self._keep(self._compressed(messages, array) or write(Data(self.tx + 1, Raw(array))))
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
        """The frames that may be written now, and count as written: the window is exceeded by one frame at most."""
        frames: list[bytes] = []
        while self._written < self.tx and self._in_flight < self.theirs.window:
            self._written += 1
            frame = self._kept[self._written]
            self._in_flight += len(frame)
            frames.append(frame)
        return frames

    @property
    def is_written(self) -> bool:
        """Whether no frame waits to be written."""
        return self._written == self.tx

    @property
    def is_held_up(self) -> bool:
        """Whether frames wait for the window, or none more could be written or kept."""
        return (
            self._written < self.tx
            or self._in_flight >= self.theirs.window
            or self.kept_bytes - self._begun_bytes >= REPLAY_BYTES
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

    def go_on_at(self, rx: int) -> None:
        """There is a new socket: all frames above ``rx`` are to be written again, and stay as they were."""
        self._written = rx
        self._in_flight = sum(len(self._kept[seq]) for seq in range(self.acked + 1, rx + 1))

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
        """Frames that were not taken: number, messages that have arrived up to its end, bytes."""
        self._taken_bytes = 0  # of frames that the peer was not told of
        self._waiting_bytes = 0
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
        if self._waiting_bytes + self._taken_bytes > self.ours.window:
            raise BadFrame(TOO_BIG, f"more than the window of {self.ours.window} bytes is not acknowledged")
        messages = self._open(frame)
        self.rx = frame.seq
        self._arrived += len(messages)
        self._waiting.append((frame.seq, self._arrived, size))
        self._waiting_bytes += size
        return messages

    def _open(self, frame: Data | Compressed | Part) -> list[Content]:
        if isinstance(frame, Part):
            return self._join(frame)
        if self._pieces is not None:
            raise BadFrame(BAD_FRAME, "a message in the middle of another that comes in parts")
        messages = unpack(frame.messages) if isinstance(frame, Data) else self._decompress(frame)
        if self.ours.max_message < self.ours.max_frame:
            for message in messages:
                self._check_size(len(message.encode() if isinstance(message, str) else message))
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
            self._waiting_bytes -= size
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


def limits_of(peer: Hello | Welcome) -> Limits:
    """What a peer takes.

    Raises:
        BadFrame: its limits make no sense.
    """
    try:
        return Limits(peer.max_frame, peer.window, peer.max_message)
    except ValueError as exc:
        raise BadFrame(BAD_FRAME, str(exc)) from exc


def choose_codec(offered: int, taken: Codec) -> Codec | None:
    """The better one of those that both ends know."""
    common = Codec(offered & taken.value)
    return next((codec for codec in (Codec.ZSTD, Codec.ZLIB) if codec in common), None)


def limits_within(max_size: int | None) -> Limits | None:
    """What an end takes whose messages and frames have ``max_size`` bytes at most; None if those are too few."""
    if max_size is None:
        return Limits(max_frame=2**24, max_message=MAX_INTEGER)
    return Limits(max_frame=max_size, max_message=max_size) if max_size >= LEAST_FRAME else None
