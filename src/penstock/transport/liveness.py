"""How long ago a peer was heard, as the kernel knows it: no message has to be counted for it."""

from __future__ import annotations

import asyncio
import socket
import sys

_LAST_DATA_RECEIVED = 52
"""Where ``tcpi_last_data_recv`` lies in ``struct tcp_info``, whose layout is part of Linux' interface: milliseconds."""


def silence(transport: asyncio.BaseTransport) -> float | None:
    """Seconds since the last byte came from the peer; None where the platform or the socket does not tell."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_RECEIVED + 4)
    except (OSError, ValueError):  # closed, as asyncio and as uvloop put it
        return None
    if len(info) < _LAST_DATA_RECEIVED + 4:
        return None
    return int.from_bytes(info[_LAST_DATA_RECEIVED:], sys.byteorder) / 1000
