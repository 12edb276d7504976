"""TCP peers that need not speak WebSocket, for clients to survive; and raw requests, for servers to survive."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from support.listening import streams

Talk = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Peer:
    """A TCP server on loopback that does what ``talk`` says with each connection."""

    def __init__(self, talk: Talk) -> None:
        self.heads: list[str] = []
        """Of the HTTP requests that came."""
        self.accepted = 0
        self.port = 0
        self._talk = talk
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/"

    @property
    def open(self) -> int:
        return len(self._tasks)

    def headers(self, name: str, request: int = -1) -> list[str]:
        """The values of a header, in the order of the request."""
        pattern = rf"(?im)^{re.escape(name)}: *([^\r\n]*)"
        return re.findall(pattern, self.heads[request].partition("\r\n")[2])

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._changed.set()
        try:
            await self._talk(self, reader, writer)
            if writer.can_write_eof():
                writer.write_eof()
            await until_gone(reader)
        except (OSError, EOFError):
            pass  # the other end was faster
        finally:
            writer.transport.abort()

    async def wait_accepted(self, count: int = 1) -> None:
        await self._wait(lambda: self.accepted >= count)

    async def wait_gone(self) -> None:
        """Wait until the other ends have closed all connections, of which there was one at least."""
        await self._wait(lambda: self.accepted > 0 and not self._tasks)

    async def _wait(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not reached():
                self._changed.clear()
                await self._changed.wait()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def peer(talk: Talk, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    this = Peer(talk)
    async with streams(this.connected, this.stop, tls=tls) as this.port:
        yield this


async def until_gone(reader: asyncio.StreamReader) -> None:
    """Read to the end of the stream, however it comes."""
    try:
        while await reader.read(65_536):
            pass
    except OSError:
        pass


async def head_of(this: Peer, reader: asyncio.StreamReader) -> str:
    """Read the head of a request or an answer."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError as exc:
        raise ConnectionResetError("no whole request came") from exc
    this.heads.append(head)
    return head


def saying(*answers: str | bytes | Callable[[str], str], hang_up: bool = True) -> Talk:
    """Answer the first request with the first answer and so on; the last one goes on for ever."""
    count = 0

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        answer = answers[min(count, len(answers) - 1)]
        count += 1
        head = await head_of(this, reader)
        data = answer(head) if callable(answer) else answer
        writer.write(data.encode() if isinstance(data, str) else data)
        if not hang_up:
            await until_gone(reader)

    return talk


def silent() -> Talk:
    """Accept, and never say a word."""

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await until_gone(reader)

    return talk


def http(status: str, *lines: str, body: str = "") -> str:
    """An HTTP answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", body])


def accept_of(head: str) -> str:
    """The ``Sec-WebSocket-Accept`` that a request wants."""
    found = re.search(r"(?im)^Sec-WebSocket-Key: *(\S+)", head)
    assert found is not None
    return base64.b64encode(hashlib.sha1((found[1] + _GUID).encode()).digest()).decode()


def switching(
    *lines: str, accept: str | None = None, connection: str | None = "Upgrade", upgrade: str | None = "websocket"
) -> Callable[[str], str]:
    """A 101 answer to a request; None leaves a header out."""

    def answer(head: str) -> str:
        given = {"Upgrade": upgrade, "Connection": connection, "Sec-WebSocket-Accept": accept or accept_of(head)}
        fields = [f"{name}: {value}" for name, value in given.items() if value is not None]
        return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *fields, *lines, "", ""])

    return answer


def request(
    path: str = "/",
    *lines: str,
    method: str = "GET",
    version: str = "HTTP/1.1",
    without: tuple[str, ...] = (),
    **given: str,
) -> bytes:
    """A request for a WebSocket; ``given`` replaces headers, with ``_`` for ``-``."""
    fields = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    fields.update({name.replace("_", "-"): value for name, value in given.items()})
    kept = [f"{name}: {value}" for name, value in fields.items() if name not in without]
    return "\r\n".join([f"{method} {path} {version}", *kept, *lines, "", ""]).encode()


async def ask(port: int, data: bytes, *, seconds: float = 5) -> tuple[int, dict[str, str], bytes]:
    """Send ``data`` to a server, and read its answer to the end: status, headers in lower case, body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        async with asyncio.timeout(seconds):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.split("\r\n")
            pairs = (line.partition(":") for line in lines[1:] if line)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            status = int(lines[0].split()[1])
            body = b"" if status == 101 else await reader.read()
    finally:
        writer.transport.abort()
    return status, headers, body
