"""Whether a client and a server speak the envelope with each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from penstock.transport.base import (
    Data,
    NegotiationError,
    Request,
    Response,
    Subprotocol,
    Transport,
)
from penstock.wire.envelope import HEADER, SUBPROTOCOL, VERSION, BadFrame, Hello, read

HELLO_TIMEOUT = 2.0
"""Seconds of silence after which a client that offered the envelope is taken not to speak it."""

Select = Callable[[Any, Sequence[Subprotocol]], Subprotocol | None]


def offers(request: Request) -> bool:
    """Whether a client offers the envelope by its header."""
    return any(value.split(";")[0].strip() == VERSION for value in request.headers.get_all(HEADER))


def is_outer(subprotocol: str) -> bool:
    """Whether a subprotocol is the envelope's, perhaps with an application's in it."""
    return subprotocol == SUBPROTOCOL or subprotocol.startswith(SUBPROTOCOL + "+")


def agreed(request: Request | None, response: Response | None, subprotocol: str | None) -> bool:
    """Whether the envelope was offered and accepted, by the header or, from a browser, by a subprotocol."""
    if subprotocol is not None and is_outer(subprotocol):
        return True
    return request is not None and response is not None and offers(request) and HEADER in response.headers


def selecting(select: Select | None, subprotocols: Sequence[Subprotocol] | None) -> Select:
    """Choose a subprotocol as the application would, beneath the envelope where that is offered by one."""

    def choose(connection: Any, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        outer = [name for name in offered if is_outer(name)]
        if not outer:
            return plainly(connection, offered)
        inner = plainly(
            connection, [Subprotocol(name.removeprefix(SUBPROTOCOL + "+")) for name in outer if "+" in name]
        )
        name = Subprotocol(SUBPROTOCOL if inner is None else f"{SUBPROTOCOL}+{inner}")
        return name if name in outer else None

    def plainly(connection: Any, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        if select is not None:
            return select(connection, offered)
        if subprotocols is None:
            return None
        for name in subprotocols:
            if name in offered:
                return name
        raise NegotiationError(
            "missing subprotocol" if not offered else "invalid subprotocol; expected one of " + ", ".join(subprotocols)
        )

    return choose


async def greeting(inner: Transport) -> Hello | None:
    """The HELLO with which a client begins to speak the envelope; None from one that does not.

    Raises:
        TimeoutError: it said nothing.
        ConnectionClosed: it said nothing, and is gone.
    """
    try:
        async with asyncio.timeout(HELLO_TIMEOUT):
            message = await inner.recv()
    except TimeoutError:
        if not inner.reader.items:
            raise
        message = await inner.recv()  # it came while the event loop was held up
    hello = hello_of(message)
    if hello is None:
        inner.put_back(message)
    return hello


def hello_of(message: Data) -> Hello | None:
    """The HELLO in a message, if it is one."""
    try:
        frame = read(message)
    except BadFrame:
        return None
    return frame if isinstance(frame, Hello) else None
