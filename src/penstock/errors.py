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
    ├── EnvelopeRefused (RuntimeError)              acknowledgement was asked for, and the peer cannot give it
    ├── DeliveryUnknown                             the peer closed before it told that it had taken everything
    ├── SessionLost (websockets.ConnectionClosedError)
    │                                               a connection that broke, and could not be resumed
    ├── BatcherFull (RuntimeError)                  a message refused because too many wait to be batched
    ├── BatcherClosed (RuntimeError)                the batcher takes no more
    ├── MessageDropped                              a message that was accepted, and will not be delivered
    │   └── DeliveryFailed                          ... because each attempt to deliver it failed
    ├── RpcError                                    the server has answered a call with an error
    ├── CallTimeout (TimeoutError)                  a call was not answered in time
    ├── CallLost (websockets.ConnectionClosedError) the connection was lost before a call was answered
    ├── TooManyCalls (RuntimeError)                 a call refused because too many wait for their answers
    ├── ConsumerTooSlow                             a subscription ended because its events were not taken
    ├── RpcClosed (RuntimeError)                    the client takes no more calls
    ├── GraphQLError                                ... or a GraphQL operation
    ├── GraphQLClosed                               the server closed because GraphQL's protocol was not kept to
    ├── InvalidReply (ValueError)                   an answer that Python cannot hold
    ├── LoadCycle (RuntimeError)                    a loader that waits for itself
    └── WrongLoop (RuntimeError)                    a connection, pool or batcher used outside its event loop

What goes wrong *on* a connection raises the exceptions of the ``websockets`` library (``ConnectionClosed`` and its
siblings), because a program that moves over already handles them.
"""

from __future__ import annotations

import ssl
from collections.abc import Hashable, Sequence
from typing import Any

from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close


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


class BatcherFull(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """Too many messages wait to be batched, and the batcher is set to raise; the message was not added."""

    def __init__(self, messages: int, size: int) -> None:
        super().__init__(messages, size)
        self.messages, self.size = messages, size

    def __str__(self) -> str:
        return (
            f"{self.messages} messages of {self.size} bytes wait to be delivered; "
            'add fewer, raise max_pending_messages or max_pending_bytes, or let add_message wait with overflow="block"'
        )


class BatcherClosed(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """The batcher is closed, or closing, and takes no more messages."""

    def __str__(self) -> str:
        return "the batcher is closed; make another"


class MessageDropped(PerformanceError):  # noqa: N818 - as its siblings
    """A message that was accepted, and will not be delivered.

    ``reason``: ``"expired"``, ``"overflow"``, ``"failed"`` or ``"closed"``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        why = {
            "expired": "it expired before it left; raise ttl, or lower batch_timeout",
            "overflow": 'too many waited; add fewer, or let add_message wait with overflow="block"',
            "closed": "the batcher was closed before it was delivered; raise the timeout of close",
        }
        return f"the message was dropped: {why.get(self.reason, self.reason)}"


class DeliveryFailed(MessageDropped):
    """A message that will not be delivered because ``deliver`` failed each time; what it raised last is the cause."""

    def __init__(self, attempts: int) -> None:
        super().__init__("failed")
        self.args = (attempts,)  # the arguments themselves, so that it pickles
        self.attempts = attempts

    def __str__(self) -> str:
        return (
            f"the message was dropped: deliver failed {self.attempts} times; see what it raised, or raise max_attempts"
        )


class RpcError(PerformanceError):
    """The server has answered a call with an error.

    ``code``, ``message`` and ``data`` are as it gave them; the code is 0 if it gave no integer.
    """

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(code, message, data)
        self.code, self.message, self.data = code, message, data

    def __str__(self) -> str:
        data = "" if self.data is None else "; see .data"
        return f"the server answered with error {self.code}: {self.message}{data}"


class CallTimeout(PerformanceError, TimeoutError):  # noqa: N818 - as its siblings
    """A call was not answered in time; an answer that still comes is dropped. ``timeout`` is seconds."""

    def __init__(self, method: str, timeout: float) -> None:
        super().__init__(method, timeout)
        self.method, self.timeout = method, timeout

    def __str__(self) -> str:
        return f"{self.method} was not answered within {self.timeout:g} s; raise timeout, or look at the server"


class CallLost(PerformanceError, ConnectionClosedError):  # noqa: N818 - as its siblings
    """The connection was lost before a call was answered, and the call may not be sent again.

    ``written``: it may have reached the server; if not, it certainly has not.
    """

    def __init__(self, method: str, written: bool, rcvd: Close | None = None, sent: Close | None = None) -> None:
        ConnectionClosedError.__init__(self, rcvd, sent, None if rcvd is None or sent is None else True)
        self.args = (method, written, rcvd, sent)
        self.method, self.written = method, written

    def __str__(self) -> str:
        if not self.written:
            return f"the connection was lost, and {self.method} was not sent; call again"
        return (
            f"the connection was lost before {self.method} was answered, and the server may have done it; "
            "pass idempotent=True for what may be done twice"
        )


class TooManyCalls(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """Too many calls wait for their answers; this one was not sent."""

    def __init__(self, pending: int, limit: int) -> None:
        super().__init__(pending, limit)
        self.pending, self.limit = pending, limit

    def __str__(self) -> str:
        return f"{self.pending} calls wait for their answers; call less at a time, or raise max_calls={self.limit}"


class ConsumerTooSlow(PerformanceError):  # noqa: N818 - as its siblings
    """A subscription was ended because its events came faster than they were taken."""

    def __init__(self, method: str, events: int, size: int) -> None:
        super().__init__(method, events, size)
        self.method, self.events, self.size = method, events, size

    def __str__(self) -> str:
        return (
            f"{self.events} events of {self.size} bytes from {self.method} waited to be taken; "
            "take them faster, or raise max_events or max_event_bytes"
        )


class RpcClosed(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """The client is closed, and makes no more calls; what was pending may have reached the server."""

    def __str__(self) -> str:
        return "the client is closed; make another"


class GraphQLError(PerformanceError):
    """The server has answered an operation with ``errors``, as GraphQL lists them."""

    def __init__(self, errors: Sequence[Any]) -> None:
        super().__init__(errors)
        self.errors = errors

    def __str__(self) -> str:
        first = self.errors[0] if self.errors else None
        message = first.get("message") if isinstance(first, dict) else None
        more = f", and {len(self.errors) - 1} more" if len(self.errors) > 1 else ""
        return f"the server refused the operation: {message or 'it does not say why'}{more}; see .errors"


class GraphQLClosed(PerformanceError):  # noqa: N818 - as its siblings
    """The server closed the connection with a code of ``graphql-transport-ws``."""

    _REMEDIES = {  # noqa: RUF012 - of no instance
        4400: "it did not understand a message; it may speak another version of the protocol",
        4401: "an operation came before it had accepted the connection",
        4403: "it refused the payload of connection_init; change it",
        4406: "it does not speak the subprotocol graphql-transport-ws; ask for the one that it speaks",
        4408: "it waited for connection_init for too long; open the connection later, or raise its time",
        4409: "an operation's id was in use",
        4429: "it was initialised twice",
        4500: "it failed; look at its log",
        4504: "it did not accept the connection in time; raise the timeout",
    }

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    @property
    def is_final(self) -> bool:
        """Whether another attempt would be refused as well."""
        return self.code in {4400, 4403, 4406}

    def __str__(self) -> str:
        remedy = self._REMEDIES.get(self.code, "see what its reason says")
        return f"the server closed with {self.code} ({self.reason or 'no reason'}): {remedy}"


class InvalidReply(PerformanceError, ValueError):  # noqa: N818 - as its siblings
    """An answer that Python cannot hold: a number out of range, or arrays nested too deep."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"the server's answer cannot be read: {self.reason}; take it as it is, from .raw"


class LoadCycle(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """A cache's loader asked for the key that it loads, directly or through others: it would wait for itself."""

    def __init__(self, key: Hashable) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        return (
            f"the loader of {self.key!r} asked the cache for that key, and would wait for itself; "
            "let a loader call the source"
        )


class WrongLoop(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """A connection belongs to the event loop, and so to the thread, that opened it; pools and batchers to their first.

    None of them belongs to a child process.
    """

    def __init__(self, what: str = "connection", call: str = "conn.send(...)") -> None:
        super().__init__(what, call)
        self.what, self.call = what, call

    def __str__(self) -> str:
        return (
            f"this {self.what} belongs to another event loop or thread, or to the parent process; "
            f"call it there, from other threads with asyncio.run_coroutine_threadsafe({self.call}, loop), "
            "or make another after a fork"
        )
