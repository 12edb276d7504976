"""A connected TCP socket, tried address by address."""

from __future__ import annotations

import asyncio
import socket
from typing import Any


async def dial(
    host: str,
    port: int,
    *,
    family: int = 0,
    local_addr: tuple[str, int] | None = None,
) -> socket.socket:
    """Connect to the first address of ``host`` that accepts.

    Cancelling closes the socket.

    Raises:
        OSError: none accepted, or the name is not known.
    """
    loop = asyncio.get_running_loop()
    addresses = _literal(host, port)
    if addresses is None:
        infos = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        addresses = [(info[0], info[4]) for info in infos]
    errors: list[OSError] = []
    for kind, address in addresses:
        try:
            return await _connect(loop, kind, address, local_addr)
        except OSError as exc:
            errors.append(exc)
    if len({str(error) for error in errors}) == 1:
        raise errors[0]
    raise OSError(f"none of the addresses of {host} accepted: {'; '.join(map(str, errors))}")


def _literal(host: str, port: int) -> list[tuple[int, Any]] | None:
    """The address that ``host`` spells out, which needs no resolver."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [(family, (host, port))]
    return None


async def _connect(
    loop: asyncio.AbstractEventLoop, family: int, address: Any, local_addr: tuple[str, int] | None
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if local_addr is not None:
            sock.bind(local_addr)
        await loop.sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock
