"""What a connection is opened to; two callers share connections if it is the same for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ssl import SSLContext
from typing import Any

from penstock.errors.urls import shown_url
from penstock.pool.slots import Key
from penstock.transport.base import Headers, HeadersLike, InvalidURI, Subprotocol, parse_uri


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, and what is said to the server beside it."""

    url: str
    headers: tuple[tuple[str, str], ...]
    subprotocols: tuple[Subprotocol, ...]
    ssl: SSLContext | None


def target_of(
    url: str, headers: HeadersLike | None, subprotocols: Sequence[Subprotocol] | None, ssl: SSLContext | None
) -> Key:
    """The pool's key: the URL alone where nothing else is asked for."""
    if not (headers or subprotocols or ssl):
        return url
    pairs = sorted((name.lower(), value) for name, value in Headers(headers or ()).raw_items())
    return Target(url, tuple(pairs), tuple(subprotocols or ()), ssl)


def url_of(key: Key) -> str:
    """The URL of a key."""
    return key.url if isinstance(key, Target) else str(key)


def is_kept(key: Key) -> bool:
    """Whether connections may be kept that nobody asks for: not with headers, for the tokens in them age."""
    return not (isinstance(key, Target) and key.headers)


def options_of(key: Key) -> dict[str, Any]:
    """What to open a connection with, beside the URL."""
    if not isinstance(key, Target):
        return {}
    options: dict[str, Any] = {}
    if key.headers:
        options["additional_headers"] = list(key.headers)
    if key.subprotocols:
        options["subprotocols"] = list(key.subprotocols)
    if key.ssl is not None:
        options["ssl"] = key.ssl
    return options


def weights_of(endpoints: Mapping[str, Mapping[str, float] | Sequence[str]]) -> dict[str, list[tuple[str, float]]]:
    """The endpoints of each URL that has several, with their weights.

    Raises:
        ValueError: a URL has none, or one that is no WebSocket URL, or a weight that is not above 0.
    """
    weights: dict[str, list[tuple[str, float]]] = {}
    for url, several in endpoints.items():
        pairs = several.items() if isinstance(several, Mapping) else [(one, 1.0) for one in several]
        weights[url] = [(one, float(weight)) for one, weight in pairs]
        if not weights[url]:
            raise ValueError(f"endpoints[{shown_url(url)!r}]={several!r}: must name at least one")
        for one, weight in weights[url]:
            check_url(one)
            if not weight > 0:
                raise ValueError(f"endpoints[{shown_url(url)!r}][{shown_url(one)!r}]={weight!r}: must be more than 0")
    return weights


def check_url(url: str) -> None:
    """Raise ValueError unless ``url`` is ``ws://`` or ``wss://``, and can be connected to."""
    if not isinstance(url, str) or not url.startswith(("ws://", "wss://")):
        shown = shown_url(url) if isinstance(url, str) else url
        raise ValueError(f"url={shown!r}: must begin with ws:// or wss://")
    try:
        parse_uri(url)
    except (InvalidURI, ValueError) as exc:  # which quote what may be secret
        why = exc.msg if isinstance(exc, InvalidURI) else "its host or its port is wrong"
        raise ValueError(f"url={shown_url(url)!r}: must be a WebSocket URL ({why})") from None


def check_weight(weight: int, capacity: int) -> None:
    """Raise ValueError unless a connection of ``capacity`` can carry a part of ``weight``."""
    if not isinstance(weight, int) or not 1 <= weight <= capacity:
        raise ValueError(
            f"weight={weight!r}: must be a whole number of at least 1, and at most shared_capacity={capacity}"
        )
