"""Clients of every library, behind one small interface; each is imported only in the process that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol


class Client(Protocol):
    """An open connection, used as its library's users would."""

    async def send_all(self, messages: Sequence[str]) -> None:
        """Send them one after the other."""

    async def recv(self) -> Any:
        """Receive one message."""

    async def round_trip(self, message: str) -> Any:
        """Send one and receive one."""

    async def ping(self) -> None:
        """Wait until the peer has read all that was sent, as its pong tells."""

    async def close(self) -> None: ...
    def socket(self) -> Any:
        """What ``getsockopt`` can be asked of; None where the library does not show it."""


class LikeWebsockets:
    """A client whose library has the interface of ``websockets``."""

    def __init__(self, ws: Any) -> None:
        self._ws = ws
        self.recv = ws.recv
        self.close = ws.close

    async def send_all(self, messages: Sequence[str]) -> None:
        send = self._ws.send
        for message in messages:
            await send(message)

    async def round_trip(self, message: str) -> Any:
        await self._ws.send(message)
        return await self._ws.recv()

    async def ping(self) -> None:
        await (await self._ws.ping())

    def socket(self) -> Any:
        transport = getattr(self._ws, "transport", None)  # the compatible class of picows hides its own
        return None if transport is None else transport.get_extra_info("socket")


class Acknowledged(LikeWebsockets):
    """A client that waits, where it waits for an answer, until all that it sent was taken as well."""

    async def round_trip(self, message: str) -> Any:
        answer = await super().round_trip(message)
        await self._ws.delivered()
        return answer


class Kept(Acknowledged):
    """A client whose connection comes from a middleware that is closed with it."""

    def __init__(self, ws: Any, pipe: Any, let_go: Callable[[], Awaitable[object] | None]) -> None:
        super().__init__(ws)
        self._pipe, self._let_go = pipe, let_go
        self.close = self._close

    async def _close(self) -> None:
        waiting = self._let_go()
        if waiting is not None:
            await waiting
        await self._pipe.close()


class Sending:
    """``send`` of a middleware, which has the connection: where it waits for an answer, it drains as well."""

    def __init__(self, url: str) -> None:
        from penstock import PerformanceMiddleware

        self._url = url
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._pipe = PerformanceMiddleware(on_message=lambda _, message: self._answers.put_nowait(message))
        self.recv = self._answers.get
        self.close = self._pipe.close

    async def send_all(self, messages: Sequence[str]) -> None:
        send, url = self._pipe.send, self._url
        for message in messages:
            await send(url, message)

    async def round_trip(self, message: str) -> Any:
        await self._pipe.send(self._url, message)
        answer = await self.recv()
        await self.ping()
        return answer

    async def ping(self) -> None:
        await self._pipe.drain(self._url)

    def socket(self) -> None:
        """It is not shown."""


class PicowsCore:
    """The core API of ``picows``, a message to a call, minding back-pressure."""

    def __init__(self, transport: Any, listener: Any) -> None:
        self._transport, self._listener = transport, listener

    async def send_all(self, messages: Sequence[str]) -> None:
        from picows import WSMsgType

        text, listener = WSMsgType.TEXT, self._listener
        send = self._transport.send
        for message in messages:
            send(text, message.encode())
            if listener.paused:
                await listener.writable.wait()

    async def recv(self) -> Any:
        return await self._listener.arrived.get()

    async def round_trip(self, message: str) -> Any:
        await self.send_all([message])
        return await self.recv()

    async def ping(self) -> None:
        pong = self._listener.pong = asyncio.Event()
        self._transport.send_ping(b"done")
        await pong.wait()

    async def close(self) -> None:
        self._transport.send_close(1000)
        self._transport.disconnect()
        await self._transport.wait_disconnected()

    def socket(self) -> Any:
        return self._transport.underlying_transport.get_extra_info("socket")


async def open_websockets(url: str) -> Client:
    """``websockets`` at its defaults but for permessage-deflate."""
    import websockets

    return LikeWebsockets(await websockets.connect(url, compression=None))


async def open_picows_websockets(url: str) -> Client:
    """The class of ``picows`` that is compatible with ``websockets``."""
    from picows import websockets

    return LikeWebsockets(await websockets.connect(url, compression=None))


async def open_picows(url: str) -> Client:
    """The core API of ``picows``."""
    import picows

    class Listener(picows.WSListener):
        def __init__(self) -> None:
            self.arrived: asyncio.Queue[str] = asyncio.Queue()
            self.writable = asyncio.Event()
            self.pong = asyncio.Event()
            self.paused = False

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type is picows.WSMsgType.PONG:
                self.pong.set()
            elif frame.msg_type is not picows.WSMsgType.CLOSE:
                self.arrived.put_nowait(frame.get_payload_as_utf8_text())

        def pause_writing(self) -> None:
            self.paused = True
            self.writable.clear()

        def resume_writing(self) -> None:
            self.paused = False
            self.writable.set()

    return PicowsCore(*await picows.ws_connect(Listener, url))


async def open_penstock(url: str) -> Client:
    """Penstock at its defaults."""
    import penstock

    return LikeWebsockets(await penstock.connect(url))


async def open_penstock_acknowledged(url: str) -> Client:
    """Penstock with the envelope at both ends, and everything acknowledged."""
    import penstock

    return Acknowledged(await penstock.connect(url, reliable=True))


async def open_penstock_compressed(url: str) -> Client:
    """The same, with batches compressed."""
    import penstock

    return Acknowledged(await penstock.connect(url, reliable=True, compression="deflate"))


async def open_penstock_frames(url: str) -> Client:
    """Penstock without the envelope, though the server speaks it."""
    import penstock

    return LikeWebsockets(await penstock.connect(url, reliable=False))


async def open_through_pool(url: str) -> Client:
    """A connection borrowed from a middleware at its defaults."""
    import penstock

    pipe = penstock.PerformanceMiddleware()
    conn = await pipe.connection(url)
    return Kept(conn, pipe, conn.release)


async def open_sending(url: str) -> Client:
    """Messages given to a middleware at its defaults, which looks for a connection."""
    return Sending(url)


async def open_measured(url: str, *, enabled: bool) -> Client:
    """A connection of one's own beside a middleware that measures, or does not."""
    import penstock

    pipe = penstock.PerformanceMiddleware(penstock.PerformanceConfig(metrics=penstock.MetricsConfig(enabled=enabled)))
    conn = await pipe.connect(url, reliable=True)
    return Kept(conn, pipe, conn.close)


async def open_websockets_deflate(url: str) -> Client:
    """``websockets`` at its defaults: permessage-deflate."""
    import websockets

    return LikeWebsockets(await websockets.connect(url))


async def open_penstock_plain(url: str) -> Client:
    """Penstock with ``optimize=False``: a write for each message."""
    import penstock

    return LikeWebsockets(await penstock.connect(url, optimize=False))


async def open_accelerated(url: str) -> Client:
    """A connection of ``websockets``, accelerated once it is open."""
    import websockets

    import penstock

    return LikeWebsockets(penstock.accelerate(await websockets.connect(url, compression=None)))


@asynccontextmanager
async def broadcast_with_websockets() -> AsyncIterator[tuple[int, Callable[[str], None]]]:
    """A server on ``websockets``: its port, and what sends a message to all its connections."""
    import websockets

    async with websockets.serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield port, lambda message: websockets.broadcast(server.connections, message)


@asynccontextmanager
async def broadcast_with_penstock() -> AsyncIterator[tuple[int, Callable[[str], None]]]:
    """A server on penstock, likewise."""
    import penstock

    async with penstock.serve(lambda conn: conn.wait_closed(), "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], lambda message: penstock.broadcast(server.connections, message)


BROADCASTERS: dict[str, Callable[[], Any]] = {
    "websockets": broadcast_with_websockets,
    "penstock": broadcast_with_penstock,
}
LIBRARIES: dict[str, Callable[[str], Awaitable[Client]]] = {
    "websockets": open_websockets,
    "websockets, deflate": open_websockets_deflate,
    "picows": open_picows,
    "picows.websockets": open_picows_websockets,
    "penstock": open_penstock,
    "penstock, acknowledged": open_penstock_acknowledged,
    "penstock, compressed": open_penstock_compressed,
    "penstock reliable=False": open_penstock_frames,
    "penstock optimize=False": open_penstock_plain,
    "penstock, metrics off": partial(open_measured, enabled=False),
    "penstock, metrics on": partial(open_measured, enabled=True),
    "penstock, pipe.connection": open_through_pool,
    "penstock, pipe.send": open_sending,
    "penstock.accelerate": open_accelerated,
}
