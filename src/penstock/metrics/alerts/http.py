"""One HTTP request at a time, in a thread: alerts are few, and must not hold up the event loop."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from penstock.errors import ConnectionDenied, ConnectionFailed

_WORTH_RETRYING = {408, 425, 429}


async def post_json(url: str, body: Any, *, headers: Mapping[str, str], timeout: float) -> None:
    """POST ``body`` as JSON.

    Cancelling ends the waiting; the request itself goes on for up to ``timeout`` seconds for each of its steps.

    Raises:
        ConnectionFailed: the server could not be reached, or could not take it now.
        ConnectionDenied: the server refused it, and would refuse it again.
    """
    await asyncio.to_thread(_post, url, json.dumps(body).encode(), dict(headers), timeout)


def check_url(url: str) -> str:
    """A URL that can be posted to, as it is.

    Raises:
        ValueError: it is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"{_bare(url)!r}: must begin with http:// or https://, and name a host")
    if parts.username is not None:
        raise ValueError(f"{_bare(url)!r}: pass who you are in headers, not in the URL")
    return url


def _bare(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _post(url: str, body: bytes, headers: dict[str, str], timeout: float) -> None:
    parts = urlsplit(url)
    assert parts.hostname is not None, url
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"Content-Type": "application/json", **headers})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as exc:
        raise ConnectionFailed(_bare(url), repr(exc)) from exc
    finally:
        connection.close()
    if not 200 <= status < 300:
        final = status < 500 and status not in _WORTH_RETRYING
        raise (ConnectionDenied if final else ConnectionFailed)(_bare(url), f"the server answered with {status}")
