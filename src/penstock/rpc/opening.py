"""A client over one connection."""

from __future__ import annotations

from collections.abc import Collection, Generator
from types import TracebackType
from typing import Any

from penstock.cache.cache import MessageCache
from penstock.protocols.batching import Batching
from penstock.protocols.policy import CachePolicy
from penstock.rpc.answering import Handler
from penstock.rpc.client import MAX_CALLS, Rpc
from penstock.rpc.sources import Single


class connect:  # noqa: N801 - as `penstock.connect`
    """Open a client of the server at ``url``, over one connection, which is opened anew when it was lost.

    ::

        async with connect("ws://localhost:8545") as rpc:   # closed at the end
            await rpc.call("eth_blockNumber")

        rpc = await connect("ws://localhost:8545")          # close it yourself

    Calls that are made while there is no connection wait for one, up to their timeouts. Cancelling closes the socket.

    Args:
        protocol: ``"jsonrpc"``.
        idempotent: this and the following are as for `penstock.Rpc`.
        connect_options: those of `penstock.connect`; ``reconnect_delays`` are short ones by default.

    Raises:
        ValueError: as for `penstock.Rpc`.
        Exception: what `penstock.connect` raises.
    """

    def __init__(
        self,
        url: str,
        protocol: str = "jsonrpc",
        *,
        idempotent: Collection[str] = (),
        batching: Batching | None = None,
        cache: MessageCache | None = None,
        policy: CachePolicy | None = None,
        on_request: Handler | None = None,
        max_calls: int = MAX_CALLS,
        **connect_options: Any,
    ) -> None:
        self._rpc = Rpc(
            Single(url, dict(connect_options)),
            url,
            protocol=protocol,
            idempotent=idempotent,
            batching=batching,
            cache=cache,
            policy=policy,
            on_request=on_request,
            max_calls=max_calls,
            **connect_options,
        )

    def __await__(self) -> Generator[Any, None, Rpc]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> Rpc:
        try:
            return await self._rpc.open()
        except BaseException:
            await self._rpc.close()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._rpc.close()
