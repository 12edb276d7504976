"""A connection for programs without asyncio: that of ``websockets.sync``, over the event loop in the background."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from penstock.connection import connect as opening
from penstock.connection.connection import Connection as AsyncConnection
from penstock.connection.messages import DataLike, is_whole, refused
from penstock.errors import MessageTypeError, WaitTimeout
from penstock.sync.thread import LoopThread, adopt, dismiss
from penstock.transport.base import (
    CloseCode,
    ConnectionClosedOK,
    Data,
    LoggerLike,
    Request,
    Response,
    State,
    Subprotocol,
)

CHUNK = 1024
"""Messages that cross to the loop together."""


class Connection:
    """An open connection; made by ``connect``.

    Methods, properties and exceptions are those of `penstock.Connection`; each method returns when it is done. It may
    be used by several threads at a time, of which one receives.

    ``timeout`` is seconds, None for no limit. A call that takes longer is cancelled and raises `WaitTimeout`, which is
    a TimeoutError; KeyboardInterrupt cancels it as well. What was cancelled has not been done: a message was not sent,
    and the next ``recv`` gets what comes; only KeyboardInterrupt may lose what comes at that very moment. Every method
    raises `BlockingCall` in a thread in which an event loop runs, `InheritedByFork` in a child process, and `LoopEnded`
    where the loop has ended.
    """

    def __init__(self, conn: Any, thread: LoopThread, owner: object = None) -> None:
        self._conn: AsyncConnection = conn
        self._thread = thread
        self._owner = owner
        self._here: deque[Data] = deque()
        """Messages that an iteration has received at once, and not given yet."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.name} {self.id}>"

    # Sending

    def send(
        self, message: DataLike | Iterable[DataLike], *, text: bool | None = None, timeout: float | None = None
    ) -> None:
        """Have a message accepted for sending; see `penstock.Connection.send`.

        For many messages ``send_many`` is much faster, as each call waits for the other thread.

        Raises:
            WaitTimeout: too much waited to be written; it was not sent.
            ConnectionClosed, MessageTypeError, SerializationError: as there.
        """
        whole = message if is_whole(message) else _listed(message)
        self._thread.run("send", lambda: self._conn.send(whole, text=text), timeout)

    def send_many(self, messages: Iterable[DataLike], *, timeout: float | None = None) -> None:
        """Have messages accepted for sending, in order; the iterable is used up here, in parts.

        Raises:
            WaitTimeout: it took longer; as many as its ``accepted`` says are sent.
            ConnectionClosed, MessageTypeError, SerializationError: those before were accepted.
        """
        if is_whole(messages):
            kind = type(messages).__name__
            raise MessageTypeError(
                f"send_many takes an iterable of messages, not one {kind}", "use send for one message"
            )
        iterator = iter(messages)
        if timeout is None:
            while chunk := list(islice(iterator, CHUNK)):
                self._thread.run("send_many", partial(self._conn.send_many, chunk))
            return
        deadline = time.monotonic() + timeout
        accepted: list[int] = [0]
        while chunk := list(islice(iterator, CHUNK)):
            try:
                self._thread.run("send_many", partial(self._send_counted, chunk, accepted), deadline - time.monotonic())
            except WaitTimeout:
                raise WaitTimeout("send_many", timeout, accepted[0]) from None

    async def _send_counted(self, chunk: list[DataLike], accepted: list[int]) -> None:
        for message in chunk:
            if not is_whole(message):
                raise refused(message)
            await self._conn.send(message)
            accepted[0] += 1

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything accepted so far is written to the socket."""
        self._thread.run("flush", self._conn.flush, timeout)

    @property
    def is_reliable(self) -> bool:
        """Whether both ends speak the envelope, so that messages are acknowledged, and survive a break."""
        return self._conn.is_reliable

    def delivered(self, timeout: float | None = None) -> None:
        """Wait until the peer's application has taken everything accepted so far; see `penstock.Connection`."""
        self._thread.run("delivered", self._conn.delivered, timeout)

    # Receiving

    def recv(self, timeout: float | None = None, decode: bool | None = None) -> Data:
        """Receive the next message: ``str`` if it is text, ``bytes`` if binary, or what ``decode`` asks for.

        Raises:
            WaitTimeout: none came.
            ConnectionClosed: nothing is left, and the connection is closed.
            ConcurrencyError: another thread is receiving.
        """
        if self._here:
            return _decoded(self._here.popleft(), decode)
        return self._thread.run("recv", lambda: self._conn.recv(decode), timeout)

    def recv_many(self, max: int | None = None, timeout: float | None = None) -> list[Data]:  # noqa: A002
        """Receive what is here, one message at least, at most ``max``; waits only for the first."""
        if self._here:
            return [self._here.popleft() for _ in range(min(len(self._here), max or len(self._here)))]
        return self._thread.run("recv_many", lambda: self._conn.recv_many(max), timeout)

    def __iter__(self) -> Iterator[Data]:
        """Receive messages until the connection is closed in order; raise ConnectionClosedError if otherwise.

        What is here is received at once, for ``delivered`` of the peer as well; what the iteration leaves, ``recv``
        still gets.
        """
        while True:
            if not self._here:
                try:
                    self._here.extend(self.recv_many())
                except ConnectionClosedOK:
                    return
            yield self._here.popleft()

    @property
    def unread(self) -> int:
        """Messages that have arrived, and wait to be received; or their frames."""
        return len(self._here) + self._conn.unread

    # Control

    def ping(self, data: DataLike | None = None, timeout: float | None = None) -> float:
        """Send a ping behind all messages accepted so far, and wait for its pong: seconds that it took."""

        async def ping() -> float:
            return await (await self._conn.ping(data))

        return self._thread.run("ping", ping, timeout)

    def pong(self, data: DataLike = b"", timeout: float | None = None) -> None:
        """Send a pong that nobody asked for, behind all messages accepted so far."""
        self._thread.run("pong", lambda: self._conn.pong(data), timeout)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Write what was accepted, then do the closing handshake; at the latest after twice ``close_timeout``.

        What has arrived can be received until this is called. Calling it again does nothing, and so does calling it in
        a child process. KeyboardInterrupt drops the connection.
        """
        if self._thread.is_foreign or (self._owner is not None and self._owner not in self._thread.closers):
            return
        try:
            self._thread.run("close", lambda: self._conn.close(code, reason))
        finally:
            if self._owner is not None and self._conn.state is not State.OPEN:
                dismiss(self._owner, self._thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    # What it is

    @property
    def id(self) -> UUID:
        """Unique; in log records."""
        return self._conn.id

    @property
    def logger(self) -> LoggerLike:
        """Where the connection logs."""
        return self._conn.logger

    @property
    def request(self) -> Request | None:
        """The opening handshake's request."""
        return self._conn.request

    @property
    def response(self) -> Response | None:
        """The opening handshake's response."""
        return self._conn.response

    @property
    def subprotocol(self) -> Subprotocol | None:
        """What was negotiated, if anything."""
        return self._conn.subprotocol

    @property
    def state(self) -> State:
        """Of the closing handshake, as RFC 6455 names it."""
        return self._conn.state

    @property
    def latency(self) -> float:
        """Seconds that the last answered ping took; 0 before the first."""
        return self._conn.latency

    @property
    def local_address(self) -> Any:
        """As the socket's ``getsockname`` gives it."""
        return self._address("local_address")

    @property
    def remote_address(self) -> Any:
        """As the socket's ``getpeername`` gives it."""
        return self._address("remote_address")

    def _address(self, name: str) -> Any:
        async def address() -> Any:
            return getattr(self._conn, name)  # the socket tells the loop's thread alone

        return self._thread.run(name, address)

    @property
    def close_code(self) -> int | None:
        """What the peer closed with; 1006 without a CLOSE frame, None while open."""
        return self._conn.close_code

    @property
    def close_reason(self) -> str | None:
        """What the peer gave as its reason; None while open."""
        return self._conn.close_reason


def connect(uri: str, **options: Any) -> Connection:
    """Open a connection to the WebSocket server at ``uri``: as ``websockets.sync.client.connect``.

    ::

        with connect("ws://localhost:8765") as conn:   # closed at the end
            conn.send("hello")
            print(conn.recv(timeout=10))

    Close it, with ``with`` or `Connection.close`; the loop in the background runs for as long as it is open.

    Args:
        options: those of `penstock.connect`, ``open_timeout`` among them. Functions among them are called in the loop's
            thread, and must not block.

    KeyboardInterrupt closes the socket. Raises as `penstock.connect`; `BlockingCall` where an event loop runs.
    """
    return opened(lambda: opening.connect(uri, **options))


def opened(open_it: Callable[[], Awaitable[AsyncConnection]]) -> Connection:
    """The connection that a function opens in the loop, which runs until it is closed."""
    owner = object()
    thread = adopt(owner, _nothing)
    try:
        conn = thread.run("connect", open_it)
        adopt(owner, conn.close)
    except BaseException:
        dismiss(owner, thread)
        raise
    return Connection(conn, thread, owner)


async def _nothing() -> None:
    """Nothing is open yet."""


def _listed(fragments: Any) -> Any:
    """Fragments as a list, so that the loop does not wait for whoever makes them."""
    if isinstance(fragments, Mapping) or not isinstance(fragments, Iterable):
        raise refused(fragments)
    return list(fragments)


def _decoded(message: Data, decode: bool | None) -> Data:
    if decode is True and isinstance(message, bytes):
        return message.decode()
    if decode is False and isinstance(message, str):
        return message.encode()
    return message
