"""A page in the browser that shows what a middleware does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection
from types import TracebackType
from typing import Self
from urllib.parse import quote

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute
except ImportError as error:
    raise ImportError("the dashboard needs the extra: pip install 'penstock[dashboard]'") from error

from penstock.dashboard.feed import Feed
from penstock.dashboard.files import file_routes
from penstock.dashboard.guard import Guard, is_loopback
from penstock.middleware.middleware import PerformanceMiddleware
from penstock.server.asgi import PenstockASGI
from penstock.server.sessions import SessionConfig

MIN_TOKEN = 16
"""Characters of a token, at least."""
FEED = "/feed"
MAX_SAID_BYTES = 2**16
"""Of what a viewer says at a time."""
AWAY = 10.0
"""Seconds for which a viewer is expected back whose connection broke; later it begins anew."""
SHUTDOWN_TIMEOUT = 3
"""Seconds that viewers may take to notice the end."""


class Dashboard:
    """A page in the browser that shows, live, what a middleware does; it changes nothing.

    ::

        async with PerformanceMiddleware() as pipe, Dashboard(pipe, port=8080) as board:
            print(board.url)

    Use it in the middleware's event loop. It may be opened and closed again. Programs on this machine may look at it
    without a token unless there is one; everybody else needs it. Needs the extra ``dashboard``.

    Args:
        host: where to listen.
        port: 0 takes one that is free.
        token: what viewers have to know; `url` has it. ``secrets.token_urlsafe()`` makes one.
        names: host names by which it is reached, where that is neither ``host``, an address nor ``localhost``.
        patience: seconds after which a viewer is dropped that does not take what it is told.

    Raises:
        ValueError: ``host`` is reached from elsewhere and there is no token, or the token is short.
    """

    def __init__(
        self,
        pipe: PerformanceMiddleware,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        *,
        names: Collection[str] = (),
        patience: float = 30.0,
    ) -> None:
        if token is None and not is_loopback(host):
            raise ValueError(f"host={host!r}: is reached from other machines, so a token is needed")
        if token is not None and len(token) < MIN_TOKEN:
            raise ValueError(f"token: must have at least {MIN_TOKEN} characters")
        self._pipe, self._host, self._port, self._token = pipe, host, port, token
        self._names, self._patience = names, patience
        self._socket: socket.socket | None = None

    @property
    def url(self) -> str:
        """Where the page is, with the token; browsers send that part to nobody.

        Raises:
            RuntimeError: it is not open.
        """
        if self._socket is None:
            raise RuntimeError("the dashboard is not open: use it with 'async with'")
        host = f"[{self._host}]" if ":" in self._host else self._host
        fragment = "" if self._token is None else f"#token={quote(self._token, safe='')}"
        return f"http://{host}:{self._socket.getsockname()[1]}/{fragment}"

    async def __aenter__(self) -> Self:
        if self._socket is not None:
            raise RuntimeError("the dashboard is open")
        self._socket = await _listen(self._host, self._port)
        self._feed = Feed(self._pipe, self._token, patience=self._patience)
        pages = Starlette(routes=[*file_routes(), WebSocketRoute(FEED, self._feed.watch)])
        self._sessions = PenstockASGI(pages, sessions=SessionConfig(ttl=AWAY), max_size=MAX_SAID_BYTES)
        self._server = _server(Guard(self._sessions, self._host, self._names))
        await self._server.startup([self._socket])
        self._feed.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._socket is not None
        self._feed.stop()
        ending = asyncio.create_task(self._sessions.close())
        try:
            await asyncio.wait({ending}, timeout=SHUTDOWN_TIMEOUT)
        finally:
            await self._server.shutdown([self._socket])
            self._socket = None
        await ending


async def _listen(host: str, port: int) -> socket.socket:
    """Bind the first address that ``host`` has."""
    loop = asyncio.get_running_loop()
    family, _, _, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
    return socket.create_server(address[:2], family=family)


def _server(app: Guard) -> uvicorn.Server:
    """A server that takes neither signals nor the configuration of logging, and sleeps while nobody asks."""
    config = uvicorn.Config(
        app,
        ws="websockets-sansio",
        ws_max_size=2**20,
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT,
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    return server
