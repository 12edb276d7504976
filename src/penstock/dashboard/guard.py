"""Who may ask: pages of other sites may not, by whatever name they reach the dashboard."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Collection
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger("penstock.dashboard")

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)

FIXED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""What browsers are told with every answer, beside the policy of what a page may load."""


class Guard:
    """Lets through what comes to a name that the dashboard has, and no WebSocket that another site's page opens.

    The name is checked because a page may have its own name resolved to this machine; then a browser takes the
    dashboard for a part of that site. Addresses cannot be resolved to anything else.

    Args:
        host: where it listens.
        names: by which it is reached as well.
    """

    def __init__(self, app: ASGIApp, host: str, names: Collection[str] = ()) -> None:
        self._app = app
        self._names = {"localhost", host.lower(), *(name.lower() for name in names)}
        self._only_loopback = is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host = self._host_in(headers)
        if host is None:
            await self._refuse(scope, receive, send, HTTPStatus.MISDIRECTED_REQUEST, "the dashboard has no such name")
        elif scope["type"] == "http":
            await self._app(scope, receive, self._told(send, host))
        elif not _is_own(headers.getlist("origin"), host):
            await self._refuse(scope, receive, send, HTTPStatus.FORBIDDEN, "another site's page asks")
        else:
            await self._app(scope, receive, send)

    def _host_in(self, headers: Headers) -> str | None:
        """The header ``Host``, if it is a name of the dashboard, with any port: that may be forwarded."""
        given = headers.getlist("host")
        found = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        return given[0].lower() if found is not None and self._has(found[1].lower().strip("[]")) else None

    def _has(self, name: str) -> bool:
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._only_loopback

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, status: HTTPStatus, why: str) -> None:
        logger.warning("refused %s from %s: %s", scope["type"], scope.get("client"), why)
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: 403
            return
        await PlainTextResponse(f"{why}\n", status)(scope, receive, self._told(send, ""))

    def _told(self, send: Send, host: str) -> Send:
        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=_with_headers(message))
                headers["Content-Security-Policy"] = _policy(host)
                for name, value in FIXED.items():
                    headers[name] = value
            await send(message)

        return tell


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach it there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_own(origins: list[str], host: str) -> bool:
    """Whether the dashboard's page opens a WebSocket, or a program does, which has no origin."""
    return not origins or (len(origins) == 1 and origins[0].lower() in (f"http://{host}", f"https://{host}"))


def _policy(host: str) -> str:
    """What the page may load: its own files; and its feed, which not all browsers count among them."""
    feed = f" ws://{host} wss://{host}" if host else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'{feed}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _with_headers(message: Message) -> dict[str, Any]:
    message["headers"] = list(message.get("headers", ()))
    return message  # type: ignore[return-value]
