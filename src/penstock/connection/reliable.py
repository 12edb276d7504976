"""A connection whose messages are numbered, acknowledged, and sent again after a break."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from threading import get_ident
from typing import Any

from penstock.batch.policy import BatchConfig
from penstock.connection.connection import Connection
from penstock.connection.fragments import send_fragments
from penstock.connection.gate import LONE
from penstock.connection.many import CHUNK
from penstock.connection.messages import DataLike, Fragments, is_whole, refused, utf8
from penstock.connection.numbering import WHOLE
from penstock.connection.outbox import Outbox
from penstock.connection.session import SessionTransport
from penstock.errors import MessageTypeError, SerializationError
from penstock.transport.base import State
from penstock.wire.envelope import size_of
from penstock.wire.outgoing import REPLAY_BYTES

_OBJECT = 64
"""Bytes that a message takes in memory beside its payload."""


class SessionOutbox(Outbox):
    """Gathers messages as they are, ``str`` or ``bytes``: an envelope has room for both."""

    transport: SessionTransport

    def __init__(self, transport: SessionTransport, config: BatchConfig, *, gather: bool) -> None:
        super().__init__(transport, config, gather=gather)
        self.first = WHOLE
        self.size_of = size_of
        self._settle()

    @property
    def max_message(self) -> int:
        """Bytes that a message may have for the peer."""
        return self.transport.session.outgoing.theirs.max_message

    def _set_limits(self) -> None:
        super()._set_limits()
        self.max_size = min(self.max_size, self.max_message)

    def take_unasked(self, frame: bytes, first: int, payload: bytes) -> None:
        """See `Outbox.take_unasked`. A peer that is so far behind that no more can be kept loses its session."""
        if self.size + _OBJECT * len(self.run) > REPLAY_BYTES:
            self.transport.fail(1013, "too far behind for a broadcast")
        else:
            super().take_unasked(frame, WHOLE, whole(payload, text=first & 0x0F == 1, max_message=self.max_message))

    def number(self) -> None:
        """Number what has gathered, though it may have to wait for the peer, or for a socket."""
        if self.run:
            self.write_out()
        self._let_through()

    async def numbered(self) -> None:
        """Wait until what has been accepted has a number, which it gets as soon as more can be kept."""
        writes = self.writes
        while self.run and self.writes == writes:
            if self.transport.session.outgoing.is_full:
                await self.changed.wait()
            else:
                self.number()

    async def drain(self) -> None:
        """See `Outbox.drain`. What has a number is the session's, which sees to it that it is written."""
        self.ending = True
        self._settle()
        while not self.ended:
            self.number()
            if not self.busy:
                return
            await self.changed.wait()


class ReliableConnection(Connection):
    """A connection over a session; made by `connect` and `serve` where both ends speak the envelope."""

    outbox: SessionOutbox

    _transport: SessionTransport

    def _gather(self, batch: BatchConfig, *, optimize: bool) -> SessionOutbox:
        return SessionOutbox(self._transport, batch, gather=optimize)

    async def send(self, message: DataLike | Fragments, *, text: bool | None = None) -> None:
        """See `Connection.send`; and a message that the peer's limits exclude raises SerializationError."""
        outbox = self.outbox
        if text is None and get_ident() == outbox.thread:
            # Nearly every message ends here: what is spared here is spared a million times.
            kind = message.__class__
            if (kind is str and message.isascii()) or kind is bytes:  # type: ignore[union-attr]
                size = outbox.size + len(message)  # type: ignore[arg-type]
                if outbox.quick:
                    run = outbox.run
                    if size < outbox.max_size and len(run) < outbox.room:
                        outbox.size = size
                        run.append(message)
                        return
                elif outbox.gate is LONE and size <= outbox.max_message:
                    outbox.begin(WHOLE, message)
                    return
        if is_whole(message):
            await outbox.accept(WHOLE, whole(message, text, outbox.max_message))
        else:
            await send_fragments(outbox, message, text)

    async def send_many(self, messages: Iterable[DataLike]) -> None:
        outbox = self.outbox
        if is_whole(messages):
            raise MessageTypeError(
                f"send_many takes an iterable of messages, not one {type(messages).__name__}",
                "use send for one message",
            )
        outbox.check_loop()
        iterator = iter(messages)
        while chunk := list(islice(iterator, CHUNK)):
            outbox.expect_more()
            for message in chunk:
                await self.send(message)

    def offer(self, texts: Sequence[str]) -> int:
        outbox = self.outbox
        outbox.check_loop()
        outbox.expect_more()
        for taken, text in enumerate(texts):
            size = outbox.size + len(text)
            if not (outbox.spare and text.isascii() and size < outbox.max_size):
                return taken
            outbox.size = size
            outbox.run.append(text)
        return len(texts)

    @property
    def is_reliable(self) -> bool:
        return True

    @property
    def is_detached(self) -> bool:
        return not (self._transport.is_attached or self._transport.state is State.CLOSED)

    def watch(
        self,
        *,
        on_end: Callable[[], None],
        on_full: Callable[[], bool],
        on_detached: Callable[[], None] | None = None,
    ) -> None:
        super().watch(on_end=on_end, on_full=on_full)
        self._transport.on_lost_socket = on_detached

    async def delivered(self) -> None:
        self.outbox.check_loop()
        await self.outbox.numbered()
        await self._transport.delivered()

    async def _written(self) -> None:
        # Messages may wait for the peer's application, and a ping asks after its socket: the transport waits for that.
        self.outbox.check_loop()


def whole(message: Any, text: bool | None, max_message: int) -> Any:
    """A message as it goes into an envelope.

    Raises:
        SerializationError: text that is not Unicode, or a message that is too big for the peer.
        MessageTypeError: neither text nor bytes.
    """
    if isinstance(message, str):
        data = utf8(message)
        content: str | bytes = data
        if text is not False:  # of a class of its own, the encoder would not know it
            content = message if message.__class__ is str else data.decode()
    elif isinstance(message, bytes | bytearray | memoryview):
        content = data = bytes(message)
        if text:
            try:
                content = data.decode()
            except UnicodeDecodeError as exc:
                raise SerializationError(
                    f"bytes to be sent as text are not UTF-8: {exc.reason} at position {exc.start}",
                    "send them as binary",
                ) from exc
    else:
        raise refused(message)
    if len(data) > max_message:
        raise SerializationError(
            f"a message of {len(data)} bytes, of which the peer takes {max_message} at most", "send it in several"
        )
    return content
