"""What goes wrong with calls and their answers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from websockets.exceptions import ConnectionClosedError
from websockets.frames import Close

from penstock.errors.root import PerformanceError


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
    """The server has answered an operation with ``errors``, as GraphQL lists them; ``data`` is what came with them."""

    def __init__(self, errors: Sequence[Any], data: Any = None) -> None:
        super().__init__(errors, data)
        self.errors, self.data = errors, data

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
