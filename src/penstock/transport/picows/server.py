"""Listening through ``picows``."""

from __future__ import annotations

import asyncio
import http
from typing import Any

import picows
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.server import ServerProtocol

from penstock.transport.base import Headers, Incoming, Request, Response, ServerOptions
from penstock.transport.endpoint import Endpoint
from penstock.transport.picows.listener import READ_BUFFER_BYTES, Listener, logger, max_frame_size

_FAILED = "Failed to open a WebSocket connection.\nSee server log for more information.\n"


async def listen(incoming: Incoming, host: Any, port: int | None, options: ServerOptions) -> asyncio.AbstractServer:
    """Accept connections on ``host`` and ``port``."""

    def accept(request: picows.WSUpgradeRequest) -> picows.WSUpgradeResponseWithListener:
        return _Handshake(incoming, options).answer(request)

    network = dict(options.network)
    if network.get("ssl") is not None:
        network.setdefault("ssl_handshake_timeout", options.open_timeout)
        network.setdefault("ssl_shutdown_timeout", options.close_timeout)
    return await picows.ws_create_server(
        accept,
        host,
        port,
        websocket_handshake_timeout=options.open_timeout,
        logger_name=logger,
        enable_auto_pong=False,
        max_frame_size=max_frame_size(options),
        read_buffer_init_size=READ_BUFFER_BYTES,
        **network,
    )


class _Handshake:
    """One client's request, judged by the rules of ``websockets``."""

    def __init__(self, incoming: Incoming, options: ServerOptions) -> None:
        self._incoming, self._options = incoming, options
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
        self._connection = incoming.connecting(self._endpoint)

    def answer(self, upgrade: picows.WSUpgradeRequest) -> picows.WSUpgradeResponseWithListener:
        response = self._respond(upgrade)
        self._endpoint.response = response
        self._protocol.send_response(response)
        self._protocol.data_to_send()  # picows writes the answer itself
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            return picows.WSUpgradeResponseWithListener(_as_picows(response), None)
        upgrade.headers["Connection"] = "Upgrade"  # browsers say "keep-alive, Upgrade", which picows refuses
        listener = Listener(self._endpoint, lambda: self._incoming.opened(self._connection))
        return picows.WSUpgradeResponseWithListener(_as_picows(response), listener)

    def _respond(self, upgrade: picows.WSUpgradeRequest) -> Response:
        protocol, options = self._protocol, self._options
        lines = "".join(f"{name}: {value}\r\n" for name, value in upgrade.headers.items())
        head = b"%b %b %b\r\n" % (upgrade.method, upgrade.path, upgrade.version)
        protocol.receive_data(head + f"{lines}\r\n".encode("latin-1", "surrogateescape"))
        events = protocol.events_received()
        if not events:
            return protocol.reject(http.HTTPStatus.BAD_REQUEST, f"{protocol.handshake_exc}\n")
        [request] = events
        assert isinstance(request, Request)
        self._endpoint.request = request
        response = self._hook(options.process_request, request)
        if response is None:
            response = protocol.accept(request)
        if options.server_header is not None:
            response.headers["Server"] = options.server_header
        response = self._hook(options.process_response, request, response) or response
        if response.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS and self._incoming.refusing():
            return protocol.reject(http.HTTPStatus.SERVICE_UNAVAILABLE, "Server is shutting down.\n")
        return response

    def _hook(self, hook: Any, *arguments: Any) -> Response | None:
        if hook is None:
            return None
        try:
            response = hook(self._connection, *arguments)
            if response is not None and not isinstance(response, Response):
                close = getattr(response, "close", lambda: None)
                close()
                raise TypeError(
                    f"{hook!r} returned {response!r}; transport='picows' takes a Response or None from a plain "
                    "function: for a coroutine use transport='websockets'"
                )
        except Exception as exc:
            self._protocol.handshake_exc = exc
            self._protocol.logger.exception("%s failed", getattr(hook, "__name__", hook))
            return self._protocol.reject(http.HTTPStatus.INTERNAL_SERVER_ERROR, _FAILED)
        return response


def _as_picows(response: Response) -> picows.WSUpgradeResponse:
    answer: picows.WSUpgradeResponse = picows.WSUpgradeResponse.create_101_response()
    answer.status = http.HTTPStatus(response.status_code)
    answer.headers.clear()
    for name, value in Headers(response.headers).raw_items():
        if name.lower() != "content-length":  # picows counts the body itself
            answer.headers.add(name, value)
    answer.body = bytes(response.body) if response.body else None
    return answer
