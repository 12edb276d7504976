"""A client's side of a session: opening it, and finding back to it after a break."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from penstock.connection.numbering import WHOLE
from penstock.connection.session import SessionTransport
from penstock.metrics.traffic import Arrivals
from penstock.transport.base import CloseCode, ConnectionClosed, LoggerLike, Response, State, Transport, is_transient
from penstock.wire.compression import AVAILABLE, Codec
from penstock.wire.envelope import (
    BAD_FRAME,
    ENDED,
    HEADER,
    NEW,
    RESUMED,
    VERSION,
    BadFrame,
    Bye,
    Hello,
    Welcome,
    is_node,
    read,
    write,
)
from penstock.wire.limits import Limits, limits_of
from penstock.wire.session import Session

WELCOME_TIMEOUT = 10.0
"""Seconds that a server may take to answer HELLO."""

ATTEMPTS = 10
"""At least, within the time for which the server keeps a session; delays are cut to that."""

OnSessionLost = Literal["raise", "resend"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """How a client's session goes on.

    Args:
        open: opens a socket, with its opening handshake done; gets the value of the header that offers the envelope.
        delays: makes the series of seconds between attempts.
        enabled: a break is waited out; else it raises at once.
        on_resume: called when the session goes on, over another socket.
        on_session_lost: what happens when the server has forgotten the session: raise `SessionLost`, or send again what
            was not acknowledged, on a new session (at least once then, not exactly once).
    """

    open: Callable[[str], Awaitable[Transport]]
    delays: Callable[[], Iterator[float]]
    limits: Limits
    codecs: Codec
    enabled: bool
    on_resume: Callable[[], None] | None
    on_session_lost: OnSessionLost
    logger: LoggerLike


class ClientSession:
    """Opens a session, and opens further sockets for it."""

    def __init__(self, how: Resumption) -> None:
        self._how = how
        self._sid = b""
        self._node = ""
        self._ttl = 0.0
        self._reconnecting: asyncio.Task[None] | None = None

    async def begin(self, inner: Transport) -> SessionTransport:
        """Begin a session on a socket whose server speaks the envelope.

        Raises:
            ConnectionClosed: the server closed instead.
            BadFrame: it answered something else.
            TimeoutError: it did not answer.
        """
        try:
            welcome = await self._greet(inner, Session(self._how.limits, Limits()))
            if welcome.status != NEW:
                raise BadFrame(BAD_FRAME, f"a new session was asked for, and status {welcome.status} answered")
            session = Session(self._how.limits, limits_of(welcome), _codec_of(welcome))
            self._remember(welcome)
        except BadFrame as exc:
            inner.fail(exc.code, exc.reason)
            raise
        except BaseException:
            inner.abort()
            raise
        transport = SessionTransport(
            session, inner, on_detached=self._detached if self._how.enabled else None, on_ended=self._ended
        )
        transport.attach(inner)
        return transport

    async def _greet(self, inner: Transport, session: Session) -> Welcome:
        """Say HELLO, and wait for the answer."""
        if inner.state is not State.OPEN:  # gone since its opening handshake
            await inner.wait_closed()
            raise inner.close_exc
        ours = self._how.limits
        hello = Hello(
            self._sid,
            session.incoming.rx,
            session.first,
            ours.max_frame,
            ours.window,
            self._how.codecs.value,
            ours.max_message,
        )
        inner.arrived = Arrivals()  # frames of the envelope are no messages
        inner.write(inner.frames.one(WHOLE, write(hello)))
        async with asyncio.timeout(WELCOME_TIMEOUT):
            frame = read(await inner.recv())
        if not isinstance(frame, Welcome):
            raise BadFrame(BAD_FRAME, f"{type(frame).__name__} before the handshake")
        return frame

    def _remember(self, welcome: Welcome) -> None:
        if not is_node(welcome.node):
            raise BadFrame(BAD_FRAME, "a node that no header can carry")
        self._sid, self._node, self._ttl = welcome.sid, welcome.node, welcome.ttl / 1000

    # After a break

    def _detached(self, transport: SessionTransport) -> None:
        self._reconnecting = transport.loop.create_task(self._reconnect(transport))

    def _ended(self) -> None:
        if self._reconnecting is not None and self._reconnecting is not asyncio.current_task():
            self._reconnecting.cancel()

    async def _reconnect(self, transport: SessionTransport) -> None:
        """Try until there is a socket, the session is lost, or its time is over."""
        delays = self._how.delays()
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self._ttl):
                while True:
                    try:
                        await self._try(transport)
                        return
                    except Exception as exc:  # noqa: BLE001 - whatever it is, the session's user is told
                        failure = exc
                    if not _is_worth_another_try(failure):
                        transport.give_up(f"the server refused to go on: {failure}", failure)
                        return
                    delay = next(delays, None)
                    if delay is None:
                        transport.give_up(f"the server could not be reached, and no delay is left: {failure}", failure)
                        return
                    reason = traceback.format_exception_only(failure)[0].strip()
                    delay = min(delay, self._ttl / ATTEMPTS)
                    self._how.logger.info("resuming failed; trying again in %.1f seconds: %s", delay, reason)
                    await asyncio.sleep(delay)
        except TimeoutError:
            transport.give_up(f"the server could not be reached within {self._ttl} s", failure)

    async def _try(self, transport: SessionTransport) -> None:
        inner = await self._how.open(f"{VERSION}; node={self._node}")
        try:
            if not speaks(inner.response):
                raise BadFrame(BAD_FRAME, "it does not speak the envelope any more")
            is_back = await self._go_on(transport, inner)
        except BadFrame as exc:
            inner.fail(exc.code, exc.reason)
            raise
        except BaseException:
            inner.abort()
            raise
        if is_back and self._how.on_resume is not None:
            try:
                self._how.on_resume()
            except Exception:
                self._how.logger.exception("on_resume failed")

    async def _go_on(self, transport: SessionTransport, inner: Transport) -> bool:
        """Greet the server; whether the session goes on."""
        welcome = await self._greet(inner, transport.session)
        if welcome.status == RESUMED and welcome.sid == self._sid and transport.session.may_resume(welcome):
            transport.resume(welcome, inner)
            return True
        if welcome.status == ENDED:
            transport.end_in_order()
            await inner.close()
            return False
        if (
            self._how.on_session_lost == "resend"
            and welcome.status != RESUMED
            and transport.begin_again(limits_of(welcome), _codec_of(welcome))
        ):
            self._remember(welcome)
            transport.attach(inner)
            return True
        await _decline(inner)
        transport.give_up("the server has forgotten it")
        return False


def speaks(response: Response | None) -> bool:
    """Whether a server has answered that it speaks the envelope."""
    return response is not None and response.headers.get(HEADER, "").split(";")[0].strip() == VERSION


async def _decline(inner: Transport) -> None:
    """A new session was offered that nobody wants."""
    if inner.state is State.OPEN:
        inner.write(inner.frames.one(WHOLE, write(Bye(CloseCode.NORMAL_CLOSURE, "", 0))))
    await inner.close()


def _codec_of(welcome: Welcome) -> Codec | None:
    return Codec(welcome.codec) if welcome.codec in (Codec.ZLIB, Codec.ZSTD) else None


def _is_worth_another_try(exc: Exception) -> bool:
    if isinstance(exc, BadFrame) or (isinstance(exc, ConnectionClosed) and _is_for_good(exc)):
        return False
    return isinstance(exc, ConnectionClosed | TimeoutError) or is_transient(exc) is None


def _is_for_good(exc: ConnectionClosed) -> bool:
    """The server has closed because it did not understand HELLO, or did not like it."""
    return exc.rcvd is not None and 4900 <= exc.rcvd.code < 5000


def codecs_of(compression: str | None) -> Codec:
    """What may be sent compressed, by the option ``compression``."""
    return Codec(0) if compression is None else AVAILABLE
