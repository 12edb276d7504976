"""The asyncio connection of ``websockets`` as a transport: opening one, accepting them, and taking one over."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import Any

from websockets.asyncio import client, server
from websockets.asyncio.connection import Connection as WebsocketsConnection

from penstock.errors import CertificateRefused
from penstock.transport.base import (
    ClientOptions,
    Incoming,
    Options,
    Request,
    Response,
    ServerOptions,
    without_credentials,
)
from penstock.transport.websockets_transport import WebsocketsTransport

__all__ = ["WebsocketsConnection", "WebsocketsTransport", "adopt", "connect", "listen"]


def adopt(ws: WebsocketsConnection) -> WebsocketsTransport:
    """Take over a connection that is open, its keepalive included.

    Raises:
        TypeError: it is not an asyncio connection of ``websockets``.
    """
    if not isinstance(ws, WebsocketsConnection):
        raise TypeError(
            f"accelerate() takes an open connection of websockets.asyncio, not {type(ws).__module__}."
            f"{type(ws).__qualname__}; open others with penstock.connect(url)"
        )
    transport = WebsocketsTransport(ws, compress=False)
    interval = None
    if ws.keepalive_task is not None:
        ws.keepalive_task.cancel()
        ws.keepalive_task = None
        interval = ws.ping_interval
    transport.opened(interval, ws.ping_timeout)
    return transport


def _shared_arguments(options: Options) -> dict[str, Any]:
    return {
        "compression": options.compression,
        "extensions": options.extensions,
        "subprotocols": options.subprotocols,
        "open_timeout": options.open_timeout,
        "ping_interval": None,
        "ping_timeout": options.ping_timeout,
        "close_timeout": options.close_timeout,
        "max_size": options.max_size,
        "max_queue": options.max_queue,
        "write_limit": options.write_limit,
        "logger": options.logger,
        **options.network,
    }


async def connect(url: str, options: ClientOptions) -> WebsocketsTransport:
    """Open one connection; redirects are followed.

    Raises:
        InvalidHandshake: the peer did not accept, or does not speak WebSocket.
        CertificateRefused: its TLS certificate is not trusted.
        OSError: it could not be reached.
    """
    attempt = client.connect(
        url,
        origin=options.origin,
        additional_headers=options.additional_headers,
        user_agent_header=options.user_agent_header,
        proxy=options.proxy,
        **{**_shared_arguments(options), "open_timeout": None},  # the caller's, who says more when it is over
    )
    try:
        ws = await attempt
    except ssl.SSLCertVerificationError as exc:
        there = without_credentials(attempt.ws_uri)  # after redirects another than url
        raise CertificateRefused(there, exc.verify_message) from exc
    transport = WebsocketsTransport(ws, compress=options.asked_for_extensions)
    transport.opened(options.ping_interval, options.ping_timeout)
    return transport


async def listen(incoming: Incoming, host: Any, port: int | None, options: ServerOptions) -> server.Server:
    """Accept connections on ``host`` and ``port``."""

    class Accepted(server.ServerConnection):
        """Knows the penstock connection that it carries, from before the handshake."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.carried = WebsocketsTransport(self, compress=options.asked_for_extensions)
            self.connection = incoming.connecting(self.carried)

    def for_penstock(hook: Any) -> Any:
        return None if hook is None else lambda ws, *arguments: hook(ws.connection, *arguments)

    def answer(ws: server.ServerConnection, request: Request, response: Response) -> Any:
        assert isinstance(ws, Accepted)
        incoming.answering(request, response)
        return None if options.process_response is None else options.process_response(ws.connection, request, response)

    async def handle(ws: server.ServerConnection) -> None:
        assert isinstance(ws, Accepted)
        ws.carried.opened(options.ping_interval, options.ping_timeout)
        await incoming.opened(ws.connection)

    listening = await server.serve(
        handle,
        host,
        port,
        origins=options.origins,
        select_subprotocol=for_penstock(options.select_subprotocol),
        process_request=for_penstock(options.process_request),
        process_response=answer,
        server_header=options.server_header,
        create_connection=Accepted,
        **_shared_arguments(options),
    )
    # Whoever listens closes the connections, after what they have accepted was written.
    listening.close = partial(listening.close, close_connections=False)  # type: ignore[method-assign]
    return listening
