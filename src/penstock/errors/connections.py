"""What goes wrong with connections, and with who lends them."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from penstock.errors.root import PerformanceError
from penstock.errors.urls import shown_text, shown_url


class ConnectionFailed(PerformanceError, OSError):  # noqa: N818 - the specification's name
    """The peer could not be reached, or refused; the cause is chained. It is shown without the secrets of its URL."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"cannot connect to {shown_url(self.url)}: {shown_text(self.reason)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({shown_url(self.url)!r}, {shown_text(self.reason)!r})"


class CertificateRefused(ConnectionFailed, ssl.SSLCertVerificationError):
    """The certificate that the peer showed is not trusted."""

    def __str__(self) -> str:
        return (
            f"cannot connect to {shown_url(self.url)}: its TLS certificate was refused ({shown_text(self.reason)}); "
            "pass ssl=ssl.create_default_context(cafile=...) with the authority that signed it"
        )


class ConnectionDenied(ConnectionFailed):
    """The peer refused for good: what it was told is wrong, and another attempt would be refused as well.

    Raise it in an ``on_connect`` hook when the server rejects a password, so that the pool does not go on trying it.
    """


class PoolExhausted(PerformanceError, TimeoutError):  # noqa: N818 - the specification's name
    """No connection became free in time; if an attempt to open one has failed, that is the cause.

    Times are seconds: ``retry_in`` for which the server is left alone, ``timeout`` as the caller allowed.
    """

    def __init__(
        self,
        waited: float,
        in_use: int,
        opening: int,
        size: int,
        waiting: int,
        closing: int = 0,
        retry_in: float = 0.0,
        timeout: float | None = None,
    ) -> None:
        super().__init__(waited, in_use, opening, size, waiting, closing, retry_in, timeout)
        self.waited, self.in_use, self.opening, self.size, self.waiting = waited, in_use, opening, size, waiting
        self.closing, self.retry_in, self.timeout = closing, retry_in, timeout

    def __str__(self) -> str:
        return (
            f"no connection free after {self.waited:.3f} s: {self.in_use} in use, {self.opening} being opened, "
            f"{self.closing} being closed, {self.size} to all URLs, {self.waiting} others waiting; {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        if self.in_use:
            return "return connections sooner, or raise max_connections or max_total"
        if self.retry_in > 0:
            return (
                f"the server asked to be left alone, or failed, and is tried again in {self.retry_in:.1f} s: "
                "ask less of it, or raise acquire_timeout"
            )
        if self.timeout is not None and self.timeout <= 0:
            return "timeout=0 opens none: allow some time, or call warm_up(url) before"
        if self.opening:
            return "the server does not answer: look at it, or raise acquire_timeout"
        if self.closing:
            return "the server does not answer what closes them: look at it, or raise max_connections"
        return "return connections sooner, or raise max_connections or max_total"


class PoolClosed(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """The pool is closed, or closing, and lends no more."""

    def __str__(self) -> str:
        return "the pool is closed; make another"


class LeaseReturned(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """A pooled connection belongs to the pool again once it was returned; another caller may have it now."""

    def __str__(self) -> str:
        return (
            "this connection was returned, and others may use it; get another with get_connection(url) of the pool, "
            "or connection(url) of the middleware"
        )


class EnvelopeRefused(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """The peer does not speak the envelope protocol, so nothing tells what it has taken."""

    def __str__(self) -> str:
        return (
            "the peer does not acknowledge messages; use penstock at both ends, without reliable=False, or do without "
            "reliable=True and delivered()"
        )


class DeliveryUnknown(PerformanceError):  # noqa: N818 - as its siblings
    """The peer closed in order before it told that it had taken everything."""

    def __init__(self, unacknowledged: Sequence[str | bytes]) -> None:
        super().__init__(unacknowledged)
        self.unacknowledged = unacknowledged
        """The messages of which it is not known whether its application has had them."""

    def __str__(self) -> str:
        return f"the peer closed, and may not have taken the last {len(self.unacknowledged)} messages"


class SessionLost(PerformanceError, ConnectionClosedError):  # noqa: N818 - as its siblings
    """The connection broke and could not be resumed."""

    def __init__(
        self,
        reason: str,
        unacknowledged: Sequence[str | bytes],
        rcvd: Close | None = None,
        sent: Close | None = None,
    ) -> None:
        ConnectionClosedError.__init__(self, rcvd, sent, None if rcvd is None or sent is None else True)
        self.args = (reason, unacknowledged, rcvd, sent)
        self.why = reason
        self.unacknowledged = unacknowledged
        """The messages of which it is not known whether the peer's application has had them."""

    def __str__(self) -> str:
        return (
            f"session lost: {self.why}; {len(self.unacknowledged)} messages may not have arrived, see .unacknowledged"
        )
