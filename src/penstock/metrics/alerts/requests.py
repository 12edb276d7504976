"""Requests that post JSON, and what is answered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from penstock.errors.urls import shown_url


def check_url(url: str) -> str:
    """A URL that can be posted to, as it is.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # which quotes what may be secret
        is_one = False
    if not is_one:
        raise ValueError(f"{shown_url(url)!r}: must begin with http:// or https://, and name a host")
    if parts.username is not None:
        raise ValueError(f"{shown_url(url)!r}: pass who you are in headers, not in the URL")
    if not (url.isascii() and url.isprintable()) or " " in url:
        raise ValueError(f"{shown_url(url)!r}: must be ASCII without spaces; write others as %20")
    return url


def check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Headers that can be sent, as they are.

    Raises:
        ValueError: one cannot; the message has no value, which may be a secret.
    """
    for name, value in headers.items():
        if not (name + value).isprintable() or not (name + value).isascii():
            raise ValueError(f"headers[{name!r}]: must be printable ASCII; is there a line break at its end?")
    return headers


def request(parts: SplitResult, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The bytes that ask for it; the server is to close the connection then."""
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    fields = {"Host": parts.netloc, "Content-Type": "application/json", **headers}
    fields |= {"Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def status_in(head: bytes) -> int:
    """What a server answers, as a number, from what comes before the body.

    Raises:
        ValueError: it is not HTTP.
    """
    version, _, rest = head.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise ValueError("the answer is not HTTP")
    return int(rest[:3])
