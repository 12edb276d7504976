"""What is said of an attempt to connect that failed."""

from __future__ import annotations

import errno
import ssl

from penstock.errors import PerformanceError
from penstock.errors.urls import shown_url

_PLAIN_ANSWERS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")
"""What OpenSSL makes of an answer in plain text."""


def explained(exc: OSError, uri: str, path: object = None) -> OSError:
    """The same error, or one of its class, with a note that says where, and a text where it had none.

    Args:
        path: of the Unix socket, if it is one.
    """
    if isinstance(exc, PerformanceError):  # which says all that itself
        return exc
    if type(exc) is ConnectionResetError and not exc.args:
        exc = ConnectionResetError(
            errno.ECONNRESET,
            "the TLS handshake failed: the server closed the connection; it may not speak TLS (ws://)",
        )
    elif isinstance(exc, ssl.SSLError) and exc.reason in _PLAIN_ANSWERS:
        exc.strerror = f"{exc.strerror}; the TLS handshake failed: the server may not speak TLS (ws://)"
    exc.add_note(f"while connecting to {shown_url(uri)}" + ("" if path is None else f" at {path}"))
    return exc
