"""Clients, by the name of their protocol."""

from __future__ import annotations

from collections.abc import Generator
from inspect import Parameter, signature
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, overload

from penstock.rpc.client import Client, with_subprotocols
from penstock.rpc.graphql import GraphQLRpc
from penstock.rpc.idjson import IdJsonRpc
from penstock.rpc.jsonrpc import Rpc
from penstock.rpc.sources import Lends, Single

_CLIENTS: dict[str, type[Client[Any]]] = {"jsonrpc": Rpc, "graphql": GraphQLRpc, "idjson": IdJsonRpc}

C = TypeVar("C", bound=Client[Any])


@overload
def over(pool: Lends, url: str, protocol: Literal["jsonrpc"] = ..., **options: Any) -> Rpc: ...
@overload
def over(pool: Lends, url: str, protocol: Literal["graphql"], **options: Any) -> GraphQLRpc: ...
@overload
def over(pool: Lends, url: str, protocol: Literal["idjson"], **options: Any) -> IdJsonRpc: ...
@overload
def over(pool: Lends, url: str, protocol: str, **options: Any) -> Client[Any]: ...
def over(pool: Lends, url: str, protocol: str = "jsonrpc", **options: Any) -> Client[Any]:
    """A client over connections of a pool; opens nothing before the first call.

    Args:
        protocol: ``"jsonrpc"``, ``"graphql"`` or ``"idjson"``.
        options: those of `penstock.Rpc`, `GraphQLRpc` or `IdJsonRpc`.

    Raises:
        ValueError: the protocol is unknown; and as the client does.
    """
    return _client_of(protocol)(pool, url, **options)


class connect(Generic[C]):  # noqa: N801 - as `penstock.connect`
    """Open a client of the server at ``url``, over one connection, which is opened anew when it was lost.

    ::

        async with connect("ws://localhost:8545") as rpc:   # closed at the end
            await rpc.call("eth_blockNumber")

        rpc = await connect("ws://localhost:8545")          # close it yourself

    Calls that are made while there is no connection wait for one, up to their timeouts. Cancelling closes the socket.

    Args:
        protocol: ``"jsonrpc"`` gives a `penstock.Rpc`, ``"graphql"`` a `GraphQLRpc`, ``"idjson"`` an `IdJsonRpc`.
        options: those of the client, but for ``connections``; and those of `penstock.connect`, where
            ``reconnect_delays`` are short ones by default. They are waited between attempts, and before one whose
            predecessor has not lasted five seconds.

    Raises:
        ValueError: the protocol is unknown; and as the client does.
        Exception: what `penstock.connect` raises.
    """

    @overload
    def __init__(self: connect[Rpc], url: str, protocol: Literal["jsonrpc"] = ..., **options: Any) -> None: ...
    @overload
    def __init__(self: connect[GraphQLRpc], url: str, protocol: Literal["graphql"], **options: Any) -> None: ...
    @overload
    def __init__(self: connect[IdJsonRpc], url: str, protocol: Literal["idjson"], **options: Any) -> None: ...
    @overload
    def __init__(self: connect[Client[Any]], url: str, protocol: str, **options: Any) -> None: ...
    def __init__(self, url: str, protocol: str = "jsonrpc", **options: Any) -> None:
        client = _client_of(protocol)
        own = {name: options.pop(name) for name in _own_options(client) & options.keys()}
        self._client: Any = client(
            Single(url, with_subprotocols(client, options)),
            url,
            **own,
            **options,
        )

    def __await__(self) -> Generator[Any, None, C]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> C:
        client: C = self._client
        try:
            return await client.open()
        except BaseException:
            await client.close()
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.close()


def _client_of(protocol: str) -> type[Client[Any]]:
    try:
        return _CLIENTS[protocol]
    except KeyError:
        raise ValueError(f"protocol={protocol!r}: must be one of {', '.join(map(repr, _CLIENTS))}") from None


def _own_options(client: type[Client[Any]]) -> set[str]:
    """The names of a client's own options, which are none of its connection's."""
    parameters = signature(client).parameters.values()
    return {one.name for one in parameters if one.kind is Parameter.KEYWORD_ONLY} - {"connections"}
