"""What a server asks its client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from penstock.errors import InvalidReply, RpcError, SerializationError
from penstock.protocols import messages
from penstock.protocols.calls import Requested, parse
from penstock.protocols.jsonrpc import JsonRpc
from penstock.rpc.link import Link, logger
from penstock.rpc.links import Links

MAX_REQUESTS = 100
"""That are being answered on one connection; a server that asks more is not waited for, and has it closed."""

Handler: TypeAlias = Callable[[str, Any], Awaitable[Any]]


class Answers:
    """Answers requests, each in a task of its own.

    Args:
        handler: gets method and parameters; returns the result, or raises RpcError.
    """

    def __init__(self, links: Links[JsonRpc], handler: Handler | None) -> None:
        self._links, self._handler = links, handler
        self._open: dict[Link[JsonRpc], int] = {}

    def asked(self, link: Link[JsonRpc], request: Requested) -> None:
        """The server asks something."""
        number = self._open.get(link, 0) + 1
        if number > MAX_REQUESTS:
            link.wire.fail(1008, "too many requests at a time")
            return
        self._open[link] = number
        self._links.spawn(self._answer(link, request))

    async def _answer(self, link: Link[JsonRpc], request: Requested) -> None:
        try:
            with self._links.use(link):
                text = await self._text(request)
                if not link.is_lost:
                    await asyncio.wait([link.put(text)])
        finally:
            self._open[link] -= 1
            if not self._open[link]:
                del self._open[link]

    async def _text(self, request: Requested) -> str:
        sent_id = request.id.copy()
        if self._handler is None:
            return messages.unknown_method(sent_id)
        try:
            params = None if request.params is None else parse(request.params)
            return messages.result(sent_id, await self._handler(request.method, params))
        except RpcError as exc:
            error = exc
        except InvalidReply as exc:
            error = RpcError(messages.INVALID_PARAMS, f"Invalid params: {exc.reason}")
        except Exception:  # noqa: BLE001 - the handler's, whatever it is
            logger.exception("on_request failed for %s", request.method)
            error = RpcError(messages.INTERNAL_ERROR, "Internal error")
        try:
            return messages.failure(sent_id, error)
        except SerializationError as exc:
            return messages.failure(sent_id, RpcError(error.code, error.message + f" ({exc.what})"))
