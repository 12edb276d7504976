"""Connecting through ``picows``."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import picows
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidUpgrade
from websockets.extensions.permessage_deflate import enable_client_permessage_deflate
from websockets.proxy import Proxy, get_proxy, parse_proxy

from penstock.errors import CertificateRefused
from penstock.transport.base import (
    ClientOptions,
    Headers,
    InvalidMessage,
    InvalidStatus,
    Request,
    Response,
    WebSocketURI,
    without_credentials,
)
from penstock.transport.dial import dial
from penstock.transport.endpoint import Endpoint
from penstock.transport.picows.listener import READ_BUFFER_BYTES, Listener, logger, max_frame_size
from penstock.transport.tunnel import tunnel

NETWORK = frozenset(
    (
        "family",
        "host",
        "local_addr",
        "port",
        "server_hostname",
        "sock",
        "ssl",
        "ssl_handshake_timeout",
        "ssl_shutdown_timeout",
    )
)
"""The arguments of ``create_connection`` that this adapter understands."""

_OF_PICOWS = frozenset(("connection", "sec-websocket-key", "sec-websocket-version", "upgrade"))


class HandshakeTooStrict(Exception):  # noqa: N818 - it asks for another transport, and never reaches a user
    """``picows`` refuses a handshake that is valid, or has no such proxies; another transport has to be tried."""


async def connect(uri: WebSocketURI, options: ClientOptions) -> Endpoint:
    """Open one connection. Redirects are not followed, and the caller bounds the time.

    Cancelling closes the socket.

    Raises:
        InvalidHandshake: the peer did not accept, or does not speak WebSocket.
        CertificateRefused: its TLS certificate is not trusted.
        OSError: it could not be reached.
    """
    attempt = _Attempt(uri, options)
    try:
        transport, _ = await picows.ws_connect(
            attempt.accepted,
            without_credentials(uri),
            websocket_handshake_timeout=None,
            logger_name=logger,
            enable_auto_pong=False,
            max_frame_size=max_frame_size(options),
            extra_headers=attempt.headers,
            max_redirects=0,
            read_buffer_init_size=READ_BUFFER_BYTES,
            socket_factory=attempt.socket,
            **attempt.arguments(),
        )
        if transport.is_disconnected:
            raise InvalidMessage("did not receive a valid HTTP response") from EOFError(
                "connection closed while reading HTTP status line"
            )
    except picows.WSHandshakeError as exc:
        attempt.give_up()
        raise attempt.translated(exc) from exc
    except ssl.SSLCertVerificationError as exc:
        raise CertificateRefused(without_credentials(uri), exc.verify_message) from exc
    except BaseException:
        attempt.give_up()
        raise
    return attempt.endpoint


class _Attempt:
    """What one call of ``ws_connect`` needs and leaves behind."""

    def __init__(self, uri: WebSocketURI, options: ClientOptions) -> None:
        self._uri, self._options = uri, options
        self._network = options.network
        self._socket: socket.socket | None = None
        self._proxy = _proxy_for(uri, options)
        if self._proxy is not None and self._proxy.scheme == "https":
            raise HandshakeTooStrict
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
        self.endpoint = Endpoint(self._protocol, options)
        request = self._protocol.connect()
        if options.additional_headers is not None:
            request.headers.update(options.additional_headers)
        if options.user_agent_header is not None:
            request.headers.setdefault("User-Agent", options.user_agent_header)
        self.headers = [pair for pair in request.headers.raw_items() if pair[0].lower() not in _OF_PICOWS]

    def arguments(self) -> dict[str, Any]:
        """What concerns TLS, as ``ws_connect`` wants it."""
        network = self._network
        arguments = {name: network[name] for name in network if name.startswith("ssl_")}
        if self._uri.secure:
            if network.get("server_hostname") is not None:
                arguments["server_hostname"] = network["server_hostname"]
            if isinstance(network.get("ssl"), ssl.SSLContext):
                arguments["ssl_context"] = network["ssl"]
        return arguments

    async def socket(self, target: picows.WSParsedURL) -> socket.socket:
        network = self._network
        way = {name: network[name] for name in ("family", "local_addr") if name in network}
        if network.get("sock") is not None:
            self._socket = network["sock"]
        elif self._proxy is not None:
            self._socket = await tunnel(self._proxy, self._uri, self._options.user_agent_header, **way)
        else:
            self._socket = await dial(network.get("host") or target.host, network.get("port") or target.port, **way)
        assert self._socket is not None
        return self._socket

    def accepted(self, request: picows.WSUpgradeRequest, response: picows.WSUpgradeResponse) -> Listener:
        """The peer has switched protocols: check how, by the rules of ``websockets``."""
        protocol = self._protocol
        self.endpoint.request = Request(request.path.decode(), Headers(request.headers.items()))
        protocol.key = request.headers["Sec-WebSocket-Key"]
        lines = "".join(f"{name}: {value}\r\n" for name, value in response.headers.items())
        protocol.receive_data(f"HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n".encode("latin-1", "surrogateescape"))
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc
        [event] = protocol.events_received()
        assert isinstance(event, Response)
        self.endpoint.response = event
        return Listener(self.endpoint)

    def give_up(self) -> None:
        """Leave nothing open. ``picows`` holds the socket while it waits for an answer: end of stream frees it."""
        if self.endpoint.response is not None and hasattr(self.endpoint, "transport"):
            self.endpoint.abort()
        elif self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already, or never connected
                self._socket.close()

    def translated(self, exc: picows.WSHandshakeError) -> Exception:
        """The exception that ``websockets`` has for the same answer."""
        if isinstance(exc, picows.WSInvalidHeaderError) and exc.name == "Connection":
            tokens = [token.strip().lower() for token in (exc.value or "").split(",")]
            if "upgrade" in tokens and self._network.get("sock") is None:
                return HandshakeTooStrict()
            return InvalidUpgrade("Connection", exc.value)
        if isinstance(exc, picows.WSInvalidStatusError):
            return InvalidStatus(_response(exc))
        protocol = self._protocol
        protocol.receive_data((exc.raw_header or b"") + b"\r\n\r\n" + (exc.raw_body or b""))
        protocol.receive_eof()
        return protocol.handshake_exc or InvalidMessage("did not receive a valid HTTP response")


def _proxy_for(uri: WebSocketURI, options: ClientOptions) -> Proxy | None:
    if options.network.get("sock") is not None:
        return None
    proxy = get_proxy(uri) if options.proxy is True else options.proxy
    return None if proxy is None else parse_proxy(proxy)


def _response(exc: picows.WSInvalidStatusError) -> Response:
    status = exc.response
    assert status is not None
    phrase = (exc.raw_header or b"").partition(b"\r\n")[0].split(b" ", 2)[-1].decode("latin-1")
    return Response(status.status.value, phrase, Headers(status.headers.items()), exc.raw_body or b"")
