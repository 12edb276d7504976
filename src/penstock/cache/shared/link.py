"""One connection to a Valkey or Redis server, for all commands and for what the server tells of its own accord.

`redis` reads URLs and opens connections: addresses, TLS, users and passwords, databases. After that its socket is ours.
Its own client takes a connection from a pool for each command, and waits for the answer before it sends another on it:
20 times the processor time of commands that share a connection, and answers and invalidations on different connections,
in no common order. `hiredis` parses; an answer that comes in pieces costs it no second look.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from penstock.cache.shared.entries import Command
from penstock.errors import ConnectionFailed

try:
    from hiredis import ProtocolError, PushNotification, Reader, ReplyError, pack_command
    from redis.asyncio.connection import Connection, parse_url
    from redis.exceptions import RedisError
except ImportError as error:
    raise ImportError("the shared tier needs the extra: pip install 'penstock[valkey]'") from error

CLOSED = "closed"
"""The reason of an end that was wanted."""
SILENT = 2
_NOTHING = object()

Changed: TypeAlias = Callable[[list[bytes] | None], object]
"""Takes the names that were changed by others; None if all were."""
Ended: TypeAlias = Callable[["Link", str], object]
"""Takes a link at the moment when it is lost, and the reason."""


class Lost(Exception):  # noqa: N818 - as those of penstock.errors
    """In the place of an answer: the connection was lost first."""


class Link(asyncio.Protocol):
    """A connection whose answers and invalidations are looked at in the order in which they come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, changed: Changed, ended: Ended) -> None:
        self.lost: asyncio.Future[None] = loop.create_future()
        self.is_open = True
        self._loop = loop
        self._changed, self._ended = changed, ended
        self._reader = Reader(notEnoughData=_NOTHING)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._writer: asyncio.StreamWriter | None = None
        """Kept, because it would close the transport when it is freed."""
        self._silent = 0
        """Intervals since something was heard."""
        self._reason = "closed by the server"

    @property
    def pending(self) -> int:
        """Commands that were not answered yet."""
        return len(self._waiting)

    def ask(self, command: Command) -> asyncio.Future[Any]:
        """Send a command. The future's result is the answer; it never has an exception: see `failure`."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        if not self.is_open:
            answer.set_result(Lost(self._reason))
            return answer
        self._waiting.append(answer)
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append(pack_command(command))  # type: ignore[arg-type]  # it takes text and numbers as well
        return answer

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self.is_open and self._writer is not None:
            self._writer.transport.write(b"".join(unsent))

    def look_after(self) -> None:
        """Called at intervals: the server is asked to say something in each, and gone if it is silent for two."""
        if self._silent >= SILENT and self._waiting:
            self.abort("no answer")
            return
        self._silent += 1
        if not self._waiting:
            self.ask(("PING",))

    def abort(self, reason: str) -> None:
        """Drop the connection, and what is on its way."""
        if self.is_open:
            self._reason = reason
            self._end()
            assert self._writer is not None
            self._writer.transport.abort()

    def take_over(self, writer: asyncio.StreamWriter) -> None:
        """Read and write in the place of the streams that opened the connection."""
        self._writer = writer
        writer.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Hand out answers and invalidations."""
        self._silent = 0
        reader = self._reader
        reader.feed(data)
        try:
            while self.is_open and (reply := reader.gets()) is not _NOTHING:
                if isinstance(reply, PushNotification):
                    if reply[0] == b"invalidate":
                        self._changed(reply[1])
                elif not (answer := self._waiting.popleft()).done():
                    answer.set_result(reply)
        except (ProtocolError, IndexError):  # what is no RESP, or answers nothing
            self.abort("it does not speak RESP3")

    def connection_lost(self, error: Exception | None) -> None:
        """The socket is closed."""
        if error is not None and self.is_open:
            self._reason = str(error)
        self._end()

    def _end(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._ended(self, self._reason)  # at once, before anybody reads what may be wrong by now
        if not self.lost.done():
            self.lost.set_result(None)
        waiting, self._waiting = self._waiting, deque()
        for answer in waiting:
            if not answer.done():
                answer.set_result(Lost(self._reason))


def failure(answer: Any) -> str | None:
    """Why an answer is none; None if it is one."""
    return str(answer) if isinstance(answer, Lost | ReplyError) else None


class Address:
    """Where a server is, and how to get in.

    Raises:
        ValueError: the URL is none of ``redis://``, ``rediss://`` and ``unix://``.
        TypeError: there is no such option.
    """

    def __init__(self, url: str, prefix: bytes, options: dict[str, Any]) -> None:
        found: dict[str, Any] = {**parse_url(url), **options}
        self._make = found.pop("connection_class", Connection)
        self._options = {**found, "protocol": 3, "decode_responses": False}
        self._make(**self._options)
        self._prefix = prefix
        self.shown = found.get("path") or f"{found.get('host', 'localhost')}:{found.get('port', 6379)}"
        """Without users and passwords."""

    async def open(self, changed: Changed, ended: Ended, timeout: float) -> Link:
        """A connection whose server tells of changes by others.

        Raises:
            ConnectionFailed: there is none within ``timeout`` seconds.
        """
        loop = asyncio.get_running_loop()
        link = Link(loop, changed, ended)
        try:
            async with asyncio.timeout(timeout):
                connection = self._make(**self._options)
                await connection.connect()
                writer = connection._writer
                connection._reader = connection._writer = None
                link.take_over(writer)
                answer = await link.ask(("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._prefix, "NOLOOP"))
        except (RedisError, OSError) as error:
            if link._writer is not None:
                link.abort("not answered in time")
            raise ConnectionFailed(self.shown, str(error) or "not answered in time") from error
        except asyncio.CancelledError:
            if link._writer is not None:
                link.abort(CLOSED)
            raise
        if (reason := failure(answer)) is not None:
            link.abort(reason)
            raise ConnectionFailed(self.shown, reason)
        return link
