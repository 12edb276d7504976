"""Certificates made for a test run, and contexts that use them."""

from __future__ import annotations

import ssl
from functools import cache

import trustme


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def server_tls(*names: str) -> ssl.SSLContext:
    """A server's context whose certificate is for ``names``, or for loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*(names or ("127.0.0.1", "localhost", "::1"))).configure_cert(context)
    return context


@cache
def trusting() -> ssl.SSLContext:
    """A client's context that trusts the authority of `server_tls`."""
    context = ssl.create_default_context()
    authority().configure_trust(context)
    return context
