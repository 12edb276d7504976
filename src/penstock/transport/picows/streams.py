"""The byte stream to a server: a socket, through a proxy where there is one, with TLS where it is asked for."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import aiofastnet
from websockets.asyncio.client import HTTPProxyConnection, connect_socks_proxy
from websockets.proxy import Proxy, get_proxy, parse_proxy

from penstock.transport.base import ClientOptions, WebSocketURI

Factory = Callable[[], asyncio.BaseProtocol]


async def open_stream(make_protocol: Factory, uri: WebSocketURI, options: ClientOptions) -> None:
    """Connect a protocol to the server of ``uri``.

    Cancelling closes the socket.

    Raises:
        OSError: the server, or the proxy, could not be reached.
        ProxyError: the proxy refused, or is none.
        ssl.SSLCertVerificationError: a certificate is not trusted.
    """
    loop = asyncio.get_running_loop()
    arguments = dict(options.network)
    if uri.secure:
        arguments.setdefault("ssl", True)
        arguments.setdefault("server_hostname", uri.host)
    if arguments.pop("unix", False):
        await aiofastnet.create_unix_connection(loop, make_protocol, **arguments)
        return
    proxy = _proxy_for(uri, options)
    if proxy is None:
        if arguments.get("sock") is None:
            arguments.setdefault("host", uri.host)
            arguments.setdefault("port", uri.port)
        await aiofastnet.create_connection(loop, make_protocol, **arguments)
    elif proxy.scheme.startswith("socks"):
        sock = await connect_socks_proxy(proxy, uri, local_addr=arguments.pop("local_addr", None))
        await aiofastnet.create_connection(loop, make_protocol, sock=sock, **arguments)
    else:
        await _through_http(make_protocol, proxy, uri, options.user_agent_header, arguments)


def _proxy_for(uri: WebSocketURI, options: ClientOptions) -> Proxy | None:
    if options.network.get("sock") is not None:
        return None
    proxy = get_proxy(uri) if options.proxy is True else options.proxy
    return None if proxy is None else parse_proxy(proxy)


async def _through_http(
    make_protocol: Factory, proxy: Proxy, uri: WebSocketURI, user_agent: str | None, arguments: dict[str, Any]
) -> None:
    loop = asyncio.get_running_loop()
    ends = {name: arguments.pop(name) for name in list(arguments) if name.startswith("ssl")}
    ends["server_hostname"] = arguments.pop("server_hostname", None)
    context = ends.pop("ssl", None)
    to_proxy = {name.removeprefix("proxy_"): value for name, value in arguments.items()}
    if proxy.scheme == "https":
        to_proxy.setdefault("ssl", True)
        if to_proxy["ssl"] is None:
            raise ValueError("proxy_ssl=None is incompatible with an https:// proxy")
    elif to_proxy.get("ssl") is not None:
        raise ValueError("proxy_ssl argument is incompatible with an http:// proxy")
    transport, tunnel = await aiofastnet.create_connection(
        loop, lambda: HTTPProxyConnection(uri, proxy, user_agent), proxy.host, proxy.port, **to_proxy
    )
    try:
        await tunnel.response
        protocol = make_protocol()
        transport.set_protocol(protocol)
        if context is not None:
            context = ssl.create_default_context() if context is True else context
            transport = await aiofastnet.start_tls(loop, transport, protocol, context, **ends)
        protocol.connection_made(transport)
    except BaseException:
        transport.abort()
        raise
