"""Small proxies on loopback: HTTP CONNECT and SOCKS5."""

from __future__ import annotations

import asyncio
import base64
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.peers import Peer, head_of, http, peer


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, reply: bytes) -> None:
    upstream, downstream = await asyncio.open_connection(host, port)
    writer.write(reply)
    try:
        await asyncio.gather(_pipe(reader, downstream), _pipe(upstream, writer))
    finally:
        downstream.transport.abort()


@asynccontextmanager
async def http_proxy(*, user: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """A proxy that tunnels what CONNECT asks for; ``user`` has to be given in the request."""
    wanted = None if user is None else base64.b64encode(":".join(user).encode()).decode()

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await head_of(this, reader)
        method, target, _ = head.split(" ", 2)
        host, _, port = target.rpartition(":")
        if method != "CONNECT":
            writer.write(http("405 Method Not Allowed").encode())
        elif wanted is not None and this.headers("Proxy-Authorization") != [f"Basic {wanted}"]:
            writer.write(http("407 Proxy Authentication Required", "Proxy-Authenticate: Basic").encode())
        else:
            await _join(reader, writer, host.strip("[]"), int(port), b"HTTP/1.1 200 Connection established\r\n\r\n")

    async with peer(talk, tls=tls) as this:
        yield this


@asynccontextmanager
async def socks5_proxy(*, user: tuple[str, str] | None = None, refuse: bool = False) -> AsyncIterator[Peer]:
    """A SOCKS5 proxy (RFC 1928, RFC 1929); `Peer.heads` gets the targets asked for."""

    async def talk(this: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        method = 0 if user is None else 2
        if method not in methods:
            writer.write(b"\x05\xff")
            return
        writer.write(bytes((5, method)))
        if user is not None:
            await reader.readexactly(1)
            given = tuple([(await _string(reader)).decode() for _ in range(2)])
            writer.write(b"\x01\x00" if given == user else b"\x01\x01")
            if given != user:
                return
        _, _, _, kind = await reader.readexactly(4)
        host = ".".join(map(str, await reader.readexactly(4))) if kind == 1 else (await _string(reader)).decode()
        [port] = struct.unpack("!H", await reader.readexactly(2))
        this.heads.append(f"{host}:{port}")
        bound = b"\x00\x01\x7f\x00\x00\x01\x00\x00"
        if refuse:
            writer.write(b"\x05\x05" + bound)
        else:
            await _join(reader, writer, host, port, b"\x05\x00" + bound)

    async with peer(talk) as this:
        yield this


async def _string(reader: asyncio.StreamReader) -> bytes:
    [size] = await reader.readexactly(1)
    return await reader.readexactly(size)
