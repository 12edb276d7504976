"""A socket that leads to a server through a proxy, by the rules and with the exceptions of ``websockets``."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from websockets.asyncio.client import connect_socks_proxy
from websockets.exceptions import InvalidProxyMessage, InvalidProxyStatus
from websockets.http11 import Response
from websockets.proxy import Proxy, prepare_connect_request
from websockets.streams import StreamReader

from penstock.transport.base import WebSocketURI
from penstock.transport.dial import dial


async def tunnel(proxy: Proxy, uri: WebSocketURI, user_agent: str | None, **arguments: Any) -> socket.socket:
    """Connect to the server of ``uri`` through a SOCKS or an ``http://`` proxy.

    Cancelling closes the socket.

    Args:
        arguments: of `dial`, for the way to the proxy.

    Raises:
        OSError: the proxy could not be reached.
        ProxyError: it refused, or is none.
    """
    if proxy.scheme != "http":
        return await connect_socks_proxy(proxy, uri, local_addr=arguments.get("local_addr"))
    sock = await dial(proxy.host, proxy.port, **arguments)
    try:
        await asyncio.get_running_loop().sock_sendall(sock, prepare_connect_request(proxy, uri, user_agent))
        response = await _answer(sock)
        if not 200 <= response.status_code < 300:
            raise InvalidProxyStatus(response)
    except BaseException:
        sock.close()
        raise
    return sock


async def _answer(sock: socket.socket) -> Response:
    loop, reader = asyncio.get_running_loop(), StreamReader()
    parser = Response.parse(reader.read_line, reader.read_exact, reader.read_to_eof, proxy=True)
    while True:
        try:
            next(parser)
        except StopIteration as whole:
            response: Response = whole.value
            return response
        except Exception as exc:
            raise InvalidProxyMessage("did not receive a valid HTTP response from proxy") from exc
        data = await loop.sock_recv(sock, 1)  # not a byte more: what follows the answer is the server's
        if data:
            reader.feed_data(data)
        else:
            reader.feed_eof()
