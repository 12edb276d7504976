"""What goes wrong with messages that are sent."""

from __future__ import annotations

from collections.abc import Sequence

from penstock.errors.root import PerformanceError
from penstock.errors.urls import shown_url


class SerializationError(PerformanceError, ValueError):
    """A message that no WebSocket frame can carry, or a value that no shared cache can; nothing of it was sent."""

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


class BatcherReentered(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """``deliver`` called the batcher that waits for it: it would wait for itself."""

    def __init__(self, call: str) -> None:
        super().__init__(call)
        self.call = call

    def __str__(self) -> str:
        return (
            f"deliver called {self.call} of its own batcher, and would wait for itself; "
            "call it in a task of its own, and do not wait for that"
        )


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


class LimitReached(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """More is pending than all connections together may have."""

    def __init__(self, messages: int, max_messages: int | None, size: int, max_bytes: int | None) -> None:
        super().__init__(messages, max_messages, size, max_bytes)
        self.messages, self.max_messages, self.bytes, self.max_bytes = messages, max_messages, size, max_bytes

    def __str__(self) -> str:
        return (
            f"{self.messages} messages ({self.bytes} bytes) are pending, and limits allow max_pending_messages="
            f"{self.max_messages}, max_pending_bytes={self.max_bytes}: send less, or set limits.on_limit='wait'"
        )


class MiddlewareClosed(PerformanceError, RuntimeError):  # noqa: N818 - as its siblings
    """The middleware is closed, or closing."""

    def __str__(self) -> str:
        return "the middleware is closed; make another"


class SendingFailed(PerformanceError):  # noqa: N818 - as its siblings
    """Messages that ``send`` of `penstock.sync` had queued could not be sent; why is the cause.

    ``messages`` of ``url`` are those, in order: the first that failed, and all that were queued behind it. They can be
    sent again.
    """

    def __init__(self, url: str, messages: Sequence[str | bytes]) -> None:
        super().__init__(url, messages)
        self.url, self.messages = url, messages

    def __str__(self) -> str:
        why = f": {self.__cause__}" if self.__cause__ else ""
        place = shown_url(self.url)
        return f"{len(self.messages)} messages to {place} were not sent, see .messages to send them again{why}"

    def __repr__(self) -> str:
        return f"SendingFailed({shown_url(self.url)!r}, {len(self.messages)} messages)"
