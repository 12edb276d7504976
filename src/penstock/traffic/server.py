"""The embedded servers: ``/echo`` sends every message back, ``/sink`` counts, ``/ledger`` notes each; asked, they tell.

It runs in a process of its own, on a port of the system's choosing that it prints, until its standard input ends. It is
written on the libraries as they are, none of penstock's code in the way of a message.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

import picows
import picows.websockets
import websockets

from penstock.traffic.answering import serve_calls
from penstock.traffic.audience import serve_audience
from penstock.traffic.jobs import ASK
from penstock.traffic.loop import pin, run
from penstock.traffic.resources import allow_descriptors

MOST_DESCRIPTORS = 10_500
"""What the largest crowd of connections needs."""


class Count:
    """How many messages a sink took, and what processor time that cost."""

    def __init__(self) -> None:
        self.messages = 0
        self._since = time.process_time()

    def tell(self) -> str:
        """A JSON object with ``messages`` and ``cpu`` (seconds); counting begins anew."""
        now = time.process_time()
        told = json.dumps({"messages": self.messages, "cpu": now - self._since})
        self.messages, self._since = 0, now
        return told


class Ledger:
    """Which numbers have arrived, on whatever connection, and how often."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}

    def enter(self, message: str) -> None:
        """Note one."""
        self._times[message] = self._times.get(message, 0) + 1

    def tell(self) -> str:
        """A JSON object with ``distinct`` and ``doubled``; it begins anew."""
        times, self._times = self._times, {}
        return json.dumps({"distinct": len(times), "doubled": sum(times.values()) - len(times)})


_ledger = Ledger()


class _Listener(picows.WSListener):
    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport


class Echo(_Listener):
    """Sends back what arrives."""

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type is not picows.WSMsgType.PONG:
            transport.send(frame.msg_type, frame.get_payload_as_bytes(), frame.fin)


class Sink(_Listener):
    """Counts what arrives."""

    def __init__(self) -> None:
        self.count = Count()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.payload_size == len(ASK) and frame.get_payload_as_bytes() == ASK.encode():
            transport.send(picows.WSMsgType.TEXT, self.count.tell().encode())
        elif frame.msg_type is picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        else:
            self.count.messages += 1


@asynccontextmanager
async def serve_picows(tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serve on the core of ``picows``."""

    def accept(request: picows.WSUpgradeRequest) -> Any:
        return Echo() if request.path == b"/echo" else Sink()

    server = await picows.ws_create_server(accept, "127.0.0.1", 0, ssl=tls, enable_auto_pong=True)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def answer(conn: Any) -> None:
    """Serve one connection of a library with the interface of ``websockets``."""
    if conn.request.path == "/echo":
        async for message in conn:
            await conn.send(message)
        return
    if conn.request.path == "/ledger":
        async for message in conn:
            if message == ASK:
                await conn.send(_ledger.tell())
            else:
                _ledger.enter(message)
        return
    count = Count()
    async for message in conn:
        if message == ASK:
            await conn.send(count.tell())
        else:
            count.messages += 1


@asynccontextmanager
async def serve_websockets(compression: Literal["deflate"] | None = None) -> AsyncIterator[int]:
    """Serve on ``websockets``."""
    async with websockets.serve(answer, "127.0.0.1", 0, compression=compression) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def serve_picows_websockets() -> AsyncIterator[int]:
    """Serve on the class of ``picows`` that is compatible with ``websockets``, without compression."""
    async with picows.websockets.serve(answer, "127.0.0.1", 0, compression=None) as server:
        yield next(iter(server.sockets)).getsockname()[1]


@asynccontextmanager
async def serve_penstock() -> AsyncIterator[int]:
    """Serve on penstock."""
    import penstock  # noqa: PLC0415 - the other servers are written without it

    async with penstock.serve(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def make_tls() -> ssl.SSLContext:
    """A context with a certificate for loopback, made now."""
    import trustme  # noqa: PLC0415 - it comes with the extra of benchmarks

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return context


SERVERS: dict[str, Callable[[], Any]] = {
    "audience": serve_audience,
    "jsonrpc": serve_calls,
    "picows": serve_picows,
    "penstock": serve_penstock,
    "picows-tls": lambda: serve_picows(make_tls()),
    "picows.websockets": serve_picows_websockets,
    "websockets": serve_websockets,
    "websockets, deflate": lambda: serve_websockets("deflate"),
}


async def serve_until_eof(kind: str) -> None:
    """Print the port, and serve until standard input ends: until the parent is gone."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    async with SERVERS[kind]() as port:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await ended.wait()


def main(kind: str, core: str) -> None:
    """``python -m penstock.traffic.server KIND CORE``; an empty CORE pins to none."""
    pin(int(core) if core else None)
    with suppress(OSError):  # clients that need more than there are say so
        allow_descriptors(MOST_DESCRIPTORS)
    run(serve_until_eof(kind))


if __name__ == "__main__":
    main(*sys.argv[1:])
