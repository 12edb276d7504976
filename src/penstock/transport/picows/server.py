"""Listening through ``picows``."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Awaitable
from typing import Any

import aiofastnet
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.server import ServerProtocol

from penstock.transport.base import Incoming, Request, Response, ServerOptions, State
from penstock.transport.endpoint import Endpoint
from penstock.transport.head import Head
from penstock.transport.picows.listener import attach

REFUSAL_SECONDS = 10.0
"""How long a client that was refused may take to hang up, where ``open_timeout`` does not say."""

_FAILED = "Failed to open a WebSocket connection.\nSee server log for more information.\n"


async def listen(incoming: Incoming, host: Any, port: int | None, options: ServerOptions) -> asyncio.AbstractServer:
    """Accept connections on ``host`` and ``port``, or on a Unix socket."""
    loop = asyncio.get_running_loop()
    network = dict(options.network)
    if network.get("ssl") is not None:
        network.setdefault("ssl_handshake_timeout", options.open_timeout)
        network.setdefault("ssl_shutdown_timeout", options.close_timeout)

    def accept() -> Handshake:
        return Handshake(incoming, options)

    if network.pop("unix", False):
        server: asyncio.AbstractServer = await aiofastnet.create_unix_server(loop, accept, **network)
    else:
        server = await aiofastnet.create_server(loop, accept, host, port, **network)
    return server


class Handshake(asyncio.Protocol):
    """One client's request to switch protocols, judged by the rules of ``websockets``."""

    def __init__(self, incoming: Incoming, options: ServerOptions) -> None:
        self._incoming, self._options = incoming, options
        self._head = Head()
        self._rest = b""
        self._refused = False
        self._deciding: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport
        extensions = options.extensions
        if options.compression == "deflate":
            extensions = enable_server_permessage_deflate(extensions)
        select = options.select_subprotocol
        self._protocol = ServerProtocol(
            origins=options.origins,
            extensions=extensions,
            subprotocols=options.subprotocols,
            select_subprotocol=None if select is None else lambda _, offers: select(self._connection, offers),
            max_size=options.max_size,
            logger=options.logger,
        )
        self._endpoint = Endpoint(self._protocol, options)
        self._connection: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = self._endpoint.transport = transport
        self._connection = self._incoming.connecting(self._endpoint)
        if self._options.open_timeout is not None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.call_later(self._options.open_timeout, transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        head, rest = self._head.split(data)
        self._rest += rest
        self._protocol.receive_data(head)
        if self._deciding is not None:
            return
        events = self._protocol.events_received()
        if events:
            assert isinstance(events[0], Request)
            self._transport.pause_reading()  # what comes behind the request can wait
            self._deciding = asyncio.get_running_loop().create_task(self._decide(events[0]))
        elif self._protocol.handshake_exc is not None:
            self._write_out()  # the protocol has answered itself, or has nothing to say to that

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self._deciding is not None:
            self._deciding.cancel()

    async def _decide(self, request: Request) -> None:
        protocol, options = self._protocol, self._options
        self._endpoint.request = request
        response = await self._hook(options.process_request, request)
        if response is None:
            response = protocol.accept(request)
            self._incoming.answering(request, response)
        if options.server_header is not None:
            response.headers["Server"] = options.server_header
        response = await self._hook(options.process_response, request, response) or response
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS and self._incoming.refusing():
            response = protocol.reject(http.HTTPStatus.SERVICE_UNAVAILABLE, "Server is shutting down.\n")
        self._answer(response)

    async def _hook(self, hook: Any, *arguments: Any) -> Response | None:
        if hook is None:
            return None
        try:
            response = hook(self._connection, *arguments)
            if isinstance(response, Awaitable):
                response = await response
            if response is not None and not isinstance(response, Response):
                raise TypeError(f"{hook!r} returned {response!r}; it must return a Response or None")
        except Exception as exc:
            self._protocol.handshake_exc = exc
            self._protocol.logger.exception("%s failed", getattr(hook, "__name__", hook))
            return self._protocol.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, _FAILED)
        return response

    def _answer(self, response: Response) -> None:
        self._endpoint.response = response
        if self._protocol.state is State.CONNECTING:
            self._protocol.send_response(response)
        self._write_out()
        if self._protocol.state is State.OPEN:
            if self._deadline is not None:
                self._deadline.cancel()
            self._deciding = None
            attach(self._endpoint, self._transport, self._options, self._rest)
            self._incoming.opened(self._connection)
        self._transport.resume_reading()

    def _write_out(self) -> None:
        """Write the answer. A client that is refused is no longer listened to, and gone before long."""
        self._refused = self._protocol.state is not State.OPEN
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)
            elif self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()
        if self._refused:
            self._rest = b""
            if self._deadline is None:
                loop = asyncio.get_running_loop()
                self._deadline = loop.call_later(REFUSAL_SECONDS, self._transport.abort)
