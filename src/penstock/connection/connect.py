"""Opening connections."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import traceback
import urllib.parse
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import replace
from functools import cache
from inspect import signature
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from penstock.backoff import backoff
from penstock.batch.policy import BatchConfig
from penstock.connection.connection import Connection
from penstock.connection.failure import explained
from penstock.connection.options import refuse_unknown
from penstock.connection.reliable import ReliableConnection
from penstock.connection.resume import ClientSession, OnSessionLost, Resumption, codecs_of, speaks
from penstock.connection.session import SessionTransport
from penstock.errors import EnvelopeRefused
from penstock.errors.urls import shown_url
from penstock.transport.base import (
    ClientOptions,
    Headers,
    HeadersLike,
    InvalidHandshake,
    InvalidStatus,
    SecurityError,
    State,
    Transport,
    WebSocketURI,
    is_transient,
    parse_uri,
    validate_subprotocols,
    without_credentials,
)
from penstock.wire.envelope import HEADER, VERSION, BadFrame
from penstock.wire.limits import LEAST_FRAME, Limits, limits_within

MAX_REDIRECTS = 10

_REDIRECTS = frozenset((300, 301, 302, 303, 307, 308))
_CREDENTIALS = frozenset(("authorization", "cookie", "proxy-authorization"))
_MORE_NETWORK = {"unix", "all_errors", "ssl_incoming_bio_size", "ssl_outgoing_bio_size"}
"""What the event loop's ``create_connection`` does not take, or not in all versions."""
_logger = logging.getLogger("penstock.client")


class connect:  # noqa: N801 - a name of the websockets library
    """Open a connection to the WebSocket server at ``uri``: a drop-in for ``websockets.connect``.

    ::

        async with connect("ws://localhost:8765") as conn:   # closed at the end
            await conn.send("hello")

        conn = await connect("ws://localhost:8765")          # close it yourself

        async for conn in connect("ws://localhost:8765"):    # connects again, for ever
            try:
                async for message in conn:
                    ...
            except websockets.ConnectionClosed:
                continue

    Args:
        uri: ``ws://`` or ``wss://``.
        optimize: False gives plain behaviour: one write for each message.
        transport: what reads frames below: ``"picows"`` (fast) or ``"websockets"``.
        batch: how outgoing messages gather.
        process_exception: gets an exception of an attempt to reconnect; returns None to try again, or what to raise.
        reconnect_delays: makes the series of delays between attempts, in seconds; jittered by default.
        reliable: messages are acknowledged, and survive a break: where the server speaks the envelope (None), always
            (True), or never (False).
        resume: False: a break raises at once, though the server speaks the envelope.
        on_resume: called when a connection goes on after a break.
        on_session_lost: when a server has forgotten the session: ``"raise"`` `SessionLost`, or ``"resend"`` what was
            not acknowledged, which may have arrived.
        send_timeout: seconds that ``send`` may wait; then it raises TimeoutError, and nothing was sent. Where some
            fragments of a message have been sent, it holds for each, and closes the connection.
        compression: ``"deflate"`` offers permessage-deflate, and compresses batches where the server speaks the
            envelope. Nothing is compressed otherwise.
        options: all others of ``websockets.connect``, with its names, meanings and defaults.

    Cancelling closes the socket.

    Raises:
        TypeError: an argument that does not exist.
        ValueError: the port or the host of ``uri`` is none, or an option is out of bounds.
        InvalidURI: ``uri`` is not one.
        CertificateRefused: the peer's TLS certificate is not trusted.
        OSError: the TCP connection failed.
        InvalidHandshake: the peer did not accept, or does not speak WebSocket.
        TimeoutError: it took longer than ``open_timeout``.
        EnvelopeRefused: ``reliable=True``, and the server does not speak the envelope.
    """

    def __init__(
        self,
        uri: str,
        *,
        optimize: bool = True,
        transport: Literal["picows", "websockets"] = "picows",
        batch: BatchConfig | None = None,
        reliable: bool | None = None,
        resume: bool = True,
        on_resume: Callable[[], None] | None = None,
        on_session_lost: OnSessionLost = "raise",
        send_timeout: float | None = None,
        process_exception: Callable[[Exception], Exception | None] = is_transient,
        reconnect_delays: Callable[[], Iterator[float]] = lambda: backoff(random.random),
        **options: Any,
    ) -> None:
        if transport not in ("picows", "websockets"):
            raise ValueError(f"transport={transport!r}: must be 'picows' or 'websockets'")
        self._uri = uri
        self._parsed = _parsed(uri)
        self._optimize = optimize
        self._transport = transport
        self._batch = BatchConfig() if batch is None else batch
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._options = _client_options(self._parsed, options)
        if on_session_lost not in ("raise", "resend"):
            raise ValueError(f"on_session_lost={on_session_lost!r}: must be 'raise' or 'resend'")
        if send_timeout is not None and not send_timeout > 0:
            raise ValueError(f"send_timeout={send_timeout!r}: must be more than 0 seconds, or None for no limit")
        self._send_timeout = send_timeout
        self._limits = None if reliable is False else limits_within(self._options.max_frame)
        if reliable and self._limits is None:
            raise ValueError(f"max_size={self._options.max_size!r}: must be at least {LEAST_FRAME} with reliable=True")
        self._reliable, self._resume = reliable, resume
        self._on_resume, self._on_session_lost = on_resume, on_session_lost
        self._connection: Connection | None = None

    if not TYPE_CHECKING:  # which would take it for leave to use any name

        def __getattr__(self, name: str) -> NoReturn:
            what = f"'connect' object has no attribute {name!r}"
            if hasattr(Connection, name):
                what += ": await it, as `conn = await connect(url)`, or use `async with connect(url) as conn`"
            raise AttributeError(what, name=name, obj=self)

    def __await__(self) -> Generator[Any, None, Connection]:
        return self._open().__await__()

    async def __aenter__(self) -> Connection:
        if self._connection is not None:
            raise RuntimeError("connect() isn't reentrant: make another for a second connection at the same time")
        self._connection = await self
        return self._connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        await connection.__aexit__(exc_type, exc_value, traceback)

    async def __aiter__(self) -> AsyncIterator[Connection]:
        """Connect, and connect again whenever the loop goes round; transient failures are waited out."""
        delays: Iterator[float] | None = None
        while True:
            try:
                async with self as connection:
                    yield connection
            except Exception as exc:  # noqa: BLE001 - process_exception decides about every one
                await self._wait_out(exc, delays := delays or self._reconnect_delays())
            else:
                delays = None

    async def _wait_out(self, exc: Exception, delays: Iterator[float]) -> None:
        try:
            verdict = self._process_exception(exc)
        except Exception as raised:  # noqa: BLE001 - raising instead of returning is a frequent mistake, and clear enough
            verdict = raised
        if verdict is exc:
            raise exc
        if verdict is not None:
            raise verdict from exc
        delay = next(delays)
        reason = traceback.format_exception_only(exc)[0].strip()
        self._log.info("connect failed; reconnecting in %.1f seconds: %s", delay, reason)
        await asyncio.sleep(delay)

    @property
    def _log(self) -> Any:
        return self._options.logger or _logger

    # Opening

    async def _open(self) -> Connection:
        try:
            async with asyncio.timeout(self._options.open_timeout) as deadline:
                return await self._open_once()
        except TimeoutError as exc:
            if not deadline.expired():
                raise  # the operating system's own, which says more
            raise TimeoutError(
                f"timed out during opening handshake with {without_credentials(self._parsed)} after "
                f"open_timeout={self._options.open_timeout} s"
            ) from exc

    async def _open_once(self) -> Connection:
        inner = await self._follow(None if self._limits is None else VERSION)
        if self._limits is not None and speaks(inner.response):
            connection: Connection = ReliableConnection(
                await self._begin(inner, self._limits), self._batch, optimize=self._optimize
            )
        elif self._reliable:
            inner.abort()
            raise EnvelopeRefused
        else:
            connection = Connection(inner, self._batch, optimize=self._optimize)
        connection.outbox.send_timeout = self._send_timeout
        if connection.state is not State.OPEN:  # the peer was quick
            connection.outbox.closing()
        return connection

    async def _begin(self, inner: Transport, limits: Limits) -> SessionTransport:
        try:
            return await ClientSession(self._resumption(limits)).begin(inner)
        except BadFrame as exc:
            raise InvalidHandshake(f"the server does not speak the envelope as it says: {exc}") from exc

    async def _open_again(self, offer: str) -> Transport:
        async with asyncio.timeout(self._options.open_timeout):
            return await self._follow(offer)

    def _resumption(self, limits: Limits) -> Resumption:
        return Resumption(
            open=self._open_again,
            delays=self._reconnect_delays,
            limits=limits,
            codecs=codecs_of(self._options.compression),
            enabled=self._resume and self._options.network.get("sock") is None,  # which serves once
            on_resume=self._on_resume,
            on_session_lost=self._on_session_lost,
            logger=self._log,
        )

    async def _follow(self, offer: str | None) -> Transport:
        """Open a connection, and offer the envelope on the way."""
        uri, options = self._uri, self._options
        if offer is not None:
            options = replace(options, additional_headers=_with_header(options.additional_headers, HEADER, offer))
        for _ in range(MAX_REDIRECTS):
            try:
                return await self._attempt(uri, options)
            except InvalidStatus as exc:
                location = exc.response.headers.get("Location")
                if exc.response.status_code not in _REDIRECTS or location is None:
                    raise
                uri, options = _redirected(uri, location, options, exc)
        raise SecurityError(f"more than {MAX_REDIRECTS} redirects")

    async def _attempt(self, uri: str, options: ClientOptions) -> Transport:
        try:
            if self._transport == "picows":
                from penstock.transport.picows import client as picows  # noqa: PLC0415 - loaded when it is used

                return await picows.connect(parse_uri(uri), options)
            from penstock.transport import websockets  # noqa: PLC0415 - loaded when it is used

            return await websockets.connect(uri, options)
        except OSError as exc:
            told = explained(exc, uri, options.network.get("path"))
            if told is exc:
                raise
            raise told from None  # it was empty


def unix_connect(path: str | os.PathLike[str] | None = None, uri: str | None = None, **options: Any) -> connect:
    """Open a connection to a WebSocket server that listens on a Unix socket.

    Args:
        path: of the socket.
        uri: ``ws://localhost/`` by default, ``wss://localhost/`` when ``ssl`` is given.
        options: those of `connect`.
    """
    if uri is None:
        uri = "ws://localhost/" if options.get("ssl") is None else "wss://localhost/"
    return connect(uri, unix=True, path=path, **options)


def _parsed(uri: str) -> WebSocketURI:
    """Raises InvalidURI, or, as ``websockets`` does where it cannot be read at all, ValueError."""
    try:
        return parse_uri(uri)
    except ValueError as exc:
        what = "its port must be a whole number up to 65535" if str(exc).startswith("Port") else "its host is none"
        raise ValueError(f"{shown_url(uri)} isn't a valid URI: {what}") from None  # the cause may show a password


@cache
def _known_options() -> frozenset[str]:
    """All names that `connect` takes."""
    own = signature(connect).parameters.keys() | ClientOptions.__dataclass_fields__.keys()
    tcp = signature(asyncio.BaseEventLoop.create_connection).parameters.keys()
    unix = signature(asyncio.AbstractEventLoop.create_unix_connection).parameters.keys()
    network = (tcp | unix | _MORE_NETWORK) - {"self", "protocol_factory"}
    return frozenset(own | network | {f"proxy_{name}" for name in network})


def _client_options(uri: WebSocketURI, given: dict[str, Any]) -> ClientOptions:
    known = {name: given.pop(name) for name in list(given) if name in ClientOptions.__dataclass_fields__}
    if "network" in known:
        raise TypeError("connect() takes arguments of create_connection as they are, not in 'network'")
    if known.get("subprotocols") is not None:
        validate_subprotocols(known["subprotocols"])
    if not uri.secure and given.get("ssl") is not None:
        raise ValueError("ssl argument is incompatible with a ws:// URI")
    if uri.secure and "ssl" in given and given["ssl"] is None:
        raise ValueError("ssl=None is incompatible with a wss:// URI")
    if "create_connection" in given:
        raise TypeError(
            "create_connection is not supported: wrap an open connection with penstock.accelerate(ws) instead"
        )
    if given:
        refuse_unknown("connect", given, _known_options(), {"extra_headers": "additional_headers"})
    return ClientOptions(**known, network=given)


def _with_header(headers: HeadersLike | None, name: str, value: str) -> Headers:
    more = Headers() if headers is None else Headers(headers)
    more[name] = value
    return more


def _redirected(uri: str, location: str, options: ClientOptions, exc: InvalidStatus) -> tuple[str, ClientOptions]:
    """Where to go, and what to tell there; credentials stay with the origin they were given for."""
    target = urllib.parse.urljoin(uri, location)
    old, new = parse_uri(uri), parse_uri(target)
    if options.network.get("sock") is not None:
        raise ValueError(f"cannot follow redirect to {target} with a preexisting socket") from exc
    if old.secure and not new.secure:
        raise SecurityError(f"cannot follow redirect to non-secure URI {target}") from exc
    if (old.secure, old.host, old.port) == (new.secure, new.host, new.port):
        return target, options
    if options.network.get("unix"):
        raise ValueError(f"cannot follow cross-origin redirect to {target} with a Unix socket") from exc
    if options.network.get("host") is not None or options.network.get("port") is not None:
        raise ValueError(f"cannot follow cross-origin redirect to {target} with an explicit host or port") from exc
    if options.additional_headers is None:
        return target, options
    kept = [pair for pair in Headers(options.additional_headers).raw_items() if pair[0].lower() not in _CREDENTIALS]
    return target, replace(options, additional_headers=kept)
