"""One HTTP request at a time, over a connection of its own: alerts are few."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from penstock.errors import ConnectionDenied, ConnectionFailed
from penstock.errors.urls import shown_url
from penstock.metrics.alerts.requests import request, status_in

_WORTH_RETRYING = {408, 425, 429}
_LONGEST_HEAD = 65_536
"""Bytes of what comes before the body of an answer, which nobody reads."""


async def post_json(url: str, body: Any, *, headers: Mapping[str, str], timeout: float) -> None:
    """POST ``body`` as JSON, in at most ``timeout`` seconds. Cancelling drops the connection.

    Raises:
        ConnectionFailed: the server could not be reached, or could not take it now.
        ConnectionDenied: the server refused it, and would refuse it again.
    """
    shown = shown_url(url)
    try:
        async with asyncio.timeout(timeout) as deadline:
            status = await _status(urlsplit(url), json.dumps(body).encode(), headers)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as exc:
        reason = f"timed out after {timeout:g} s" if deadline.expired() else str(exc) or type(exc).__name__
        raise ConnectionFailed(shown, reason) from exc
    if not 200 <= status < 300:
        final = status < 500 and status not in _WORTH_RETRYING
        raise (ConnectionDenied if final else ConnectionFailed)(shown, f"the server answered with {status}")


async def _status(parts: SplitResult, body: bytes, headers: Mapping[str, str]) -> int:
    """What the server answers, as a number."""
    is_tls = parts.scheme == "https"
    context = await asyncio.to_thread(ssl.create_default_context) if is_tls else None  # it reads many files
    port = parts.port or (443 if is_tls else 80)
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context, limit=_LONGEST_HEAD)
    try:
        writer.write(request(parts, body, headers))
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if not 100 <= (status := status_in(head)) < 200:
                return status
    finally:
        writer.transport.abort()
