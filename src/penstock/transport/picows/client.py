"""Connecting through ``picows``."""

from __future__ import annotations

import asyncio
import ssl

from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate

from penstock.errors import CertificateRefused
from penstock.transport.base import ClientOptions, Response, WebSocketURI, without_credentials
from penstock.transport.endpoint import Endpoint
from penstock.transport.head import Head
from penstock.transport.picows.listener import attach
from penstock.transport.picows.streams import open_stream


async def connect(uri: WebSocketURI, options: ClientOptions) -> Endpoint:
    """Open one connection. Redirects are not followed, and the caller bounds the time.

    Cancelling closes the socket.

    Raises:
        InvalidHandshake: the peer did not accept, or does not speak WebSocket.
        CertificateRefused: its TLS certificate is not trusted.
        OSError: it could not be reached.
    """
    handshake = Handshake(uri, options)
    try:
        await open_stream(lambda: handshake, uri, options)
        return await handshake.opened
    except BaseException as exc:
        handshake.give_up()
        if isinstance(exc, ssl.SSLCertVerificationError):
            raise CertificateRefused(without_credentials(uri), exc.verify_message) from exc
        raise


class Handshake(asyncio.Protocol):
    """Asks a server to switch protocols, and checks its answer by the rules of ``websockets``."""

    def __init__(self, uri: WebSocketURI, options: ClientOptions) -> None:
        self.opened: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        self._options = options
        self._transport: asyncio.Transport | None = None
        self._head = Head()
        extensions = options.extensions
        if options.compression == "deflate":
            extensions = enable_client_permessage_deflate(extensions)
        self._protocol = ClientProtocol(
            uri,
            origin=options.origin,
            extensions=extensions,
            subprotocols=options.subprotocols,
            max_size=options.max_size,
            logger=options.logger,
        )
        self._endpoint = Endpoint(self._protocol, options)
        self._endpoint.request = self._protocol.connect()
        headers = self._endpoint.request.headers
        if options.additional_headers is not None:
            headers.update(options.additional_headers)
        if options.user_agent_header is not None:
            headers.setdefault("User-Agent", options.user_agent_header)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        assert self._endpoint.request is not None
        self._protocol.send_request(self._endpoint.request)
        for data in self._protocol.data_to_send():
            transport.write(data)

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        head, rest = self._head.split(data)
        protocol.receive_data(head)
        events = protocol.events_received()
        if rest and not events and protocol.handshake_exc is None:
            protocol.receive_data(rest)  # the body of an answer that refuses
            events = protocol.events_received()
        if protocol.handshake_exc is None and events:
            assert self._transport is not None
            assert isinstance(events[0], Response)
            self._endpoint.response = events[0]
            attach(self._endpoint, self._transport, self._options, rest)
            if not self.opened.done():
                self.opened.set_result(self._endpoint)
        else:
            self._check()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        self.eof_received()

    def _check(self) -> None:
        if self._protocol.handshake_exc is not None and not self.opened.done():
            self.opened.set_exception(self._protocol.handshake_exc)

    def give_up(self) -> None:
        """Leave nothing open, though the handshake may just have succeeded."""
        self.opened.cancel()
        if self._transport is not None:
            self._transport.abort()
