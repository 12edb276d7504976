"""Who asks: answers and subscriptions are shared by equal ones alone."""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from penstock.protocols import keys
from penstock.transport.base import Headers

_contexts: WeakKeyDictionary[ssl.SSLContext, str] = WeakKeyDictionary()
"""A certificate in one may be what a server knows a client by, and there is no looking."""


def identity_of(url: str, options: Mapping[str, Any], given: str, init: Any = None) -> str:
    """The identity of a client, by the options of its connections.

    Args:
        given: what the client says of itself; it then stands for its certificate, too.
        init: what it says to the server before its first call.
    """
    headers = list(Headers(options.get("additional_headers") or ()).raw_items())
    context = options.get("ssl")
    if isinstance(context, ssl.SSLContext) and not given:
        given = _contexts.setdefault(context, secrets.token_hex(16))
    own = [("", given), ("", str(options.get("origin") or ""))]
    return keys.identity(url, ",".join(options.get("subprotocols") or ()), [*headers, *own], init)
