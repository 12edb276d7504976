"""Every exception of penstock's own, in one tree.

::

    PerformanceError
    ├── ConnectionFailed (OSError)                  the peer could not be reached
    │   ├── CertificateRefused (ssl.SSLCertVerificationError)
    │   └── ConnectionDenied                        the peer said no, and would say so again
    ├── PoolExhausted (TimeoutError)                no connection became free in time
    ├── PoolClosed (RuntimeError)                   the pool lends no more
    ├── LeaseReturned (RuntimeError)                a connection used after it was returned
    ├── SerializationError (ValueError)             a message that no frame can carry
    ├── MessageTypeError (TypeError)                a message that is neither text nor bytes
    └── WrongLoop (RuntimeError)                    a connection used outside its event loop

What goes wrong *on* a connection raises the exceptions of the ``websockets`` library (``ConnectionClosed`` and its
siblings), because a program that moves over already handles them.
"""

from __future__ import annotations

import ssl


class PerformanceError(Exception):
    """The root: ``except PerformanceError`` catches all that penstock itself raises."""


class ConnectionFailed(PerformanceError, OSError):  # noqa: N818 - the specification's name
    """The peer could not be reached, or refused; the cause is chained."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"cannot connect to {self.url}: {self.reason}"


class CertificateRefused(ConnectionFailed, ssl.SSLCertVerificationError):
    """The certificate that the peer showed is not trusted."""

    def __str__(self) -> str:
        return (
            f"cannot connect to {self.url}: its TLS certificate was refused ({self.reason}); "
            "pass ssl=ssl.create_default_context(cafile=...) with the authority that signed it"
        )


class ConnectionDenied(ConnectionFailed):
    """The peer refused for good: what it was told is wrong, and another attempt would be refused as well.

    Raise it in an ``on_connect`` hook when the server rejects a password, so that the pool does not go on trying it.
    """


class PoolExhausted(PerformanceError, TimeoutError):  # noqa: N818 - the specification's name
    """No connection became free in time; if an attempt to open one has failed, that is the cause."""

    def __init__(self, waited: float, in_use: int, opening: int, size: int, waiting: int) -> None:
        super().__init__(waited, in_use, opening, size, waiting)
        self.waited, self.in_use, self.opening, self.size, self.waiting = waited, in_use, opening, size, waiting

    def __str__(self) -> str:
        remedy = "return connections sooner, or raise max_connections or max_total"
        if self.opening and not self.in_use:
            remedy = "the server does not answer: look at it, or raise acquire_timeout"
        return (
            f"no connection free after {self.waited:.3f} s: {self.in_use} in use, {self.opening} being opened, "
            f"{self.size} to all URLs, {self.waiting} others waiting; {remedy}"
        )


class PoolClosed(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """The pool is closed, or closing, and lends no more."""

    def __str__(self) -> str:
        return "the pool is closed; make another"


class LeaseReturned(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """A pooled connection belongs to the pool again once it was returned; another caller may have it now."""

    def __str__(self) -> str:
        return "this connection was returned to its pool; get another with pool.get_connection(url)"


class SerializationError(PerformanceError, ValueError):
    """A message that no WebSocket frame can carry; nothing of it was sent."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


class MessageTypeError(PerformanceError, TypeError):
    """A message of a type that WebSocket does not know; nothing of it was sent."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what, self.remedy = what, remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


class WrongLoop(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """A connection belongs to the event loop, and so to the thread, that opened it."""

    def __str__(self) -> str:
        return (
            "this connection belongs to another event loop or thread; "
            "call it there, from other threads with asyncio.run_coroutine_threadsafe(conn.send(...), loop)"
        )
