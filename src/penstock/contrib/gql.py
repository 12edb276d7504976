"""A transport for `gql <https://gql.readthedocs.io>`_, with the extra ``gql``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

try:
    from gql.graphql_request import GraphQLRequest
    from gql.transport.async_transport import AsyncTransport
    from gql.transport.exceptions import (
        TransportAlreadyConnected,
        TransportClosed,
        TransportConnectionFailed,
        TransportProtocolError,
        TransportQueryError,
        TransportServerError,
    )
    from graphql import ExecutionResult
except ImportError as error:
    raise ImportError("PenstockTransport needs the extra: pip install 'penstock[gql]'") from error

from penstock.contrib.clients import opened, tell
from penstock.errors import CallLost, CallTimeout, GraphQLClosed, GraphQLError, InvalidReply, PoolClosed, RpcClosed
from penstock.errors.urls import shown_text
from penstock.protocols.documents import Kind, kind_of
from penstock.rpc.consumer import Gap
from penstock.rpc.graphql import GraphQLRpc
from penstock.rpc.opening import connect, over
from penstock.rpc.sources import Lends
from penstock.transport.base import InvalidHandshake, InvalidURI


class PenstockTransport(AsyncTransport):
    """Takes the place of gql's ``WebsocketsTransport``, for servers that speak ``graphql-transport-ws``.

    ::

        async with Client(transport=PenstockTransport("ws://localhost:4000/graphql")) as session:
            await session.execute(gql("{ hello }"))

    A connection that is lost is opened anew. Queries are sent again then, and subscriptions are made again. Cancelling
    is safe. How long an operation may take is for the ``execute_timeout`` of gql's ``Client`` to say.

    Args:
        url: of the server.
        pool: where connections come from, shared with others; by default there is one connection of its own.
        init: the payload of ``connection_init``: a dict, or a function that gives one for each connection.
        on_gap: called with the request of a subscription wherever events may be missing, which are else told of in the
            log. What it raises is logged.
        options: of `GraphQLRpc`, such as ``cache``, or of `penstock.rpc.connect` where there is no pool.

    Operations raise:

    Raises:
        TransportQueryError: the server refused an operation; likewise, from gql, if its result has errors.
        TransportServerError: the server closed the connection with a code of the protocol, which is its ``code``.
        TransportConnectionFailed: there is no connection, or it was lost and a mutation may have been done; the cause
            tells which.
        TransportProtocolError: a result that is none.
        TransportClosed: it is not connected.
        TooManyCalls: too many wait.
        ConsumerTooSlow: a subscription ended because its events were not taken.
    """

    def __init__(
        self,
        url: str,
        *,
        pool: Lends | None = None,
        init: Mapping[str, Any] | Callable[[], Mapping[str, Any]] | None = None,
        on_gap: Callable[[GraphQLRequest, Gap], object] | None = None,
        **options: Any,
    ) -> None:
        self.url = url
        self._pool, self._on_gap = pool, on_gap
        self._options = {"init": init, **options}
        self._rpc: GraphQLRpc | None = None

    @property
    def rpc(self) -> GraphQLRpc:
        """The client, of which there is another after each ``connect``.

        Raises:
            TransportClosed: it is not connected.
        """
        if self._rpc is None:
            raise TransportClosed("Transport is not connected")
        return self._rpc

    async def connect(self) -> None:
        """Open a connection, or borrow one.

        Raises:
            TransportAlreadyConnected: it is connected.
            TransportConnectionFailed, TransportServerError: as operations.
        """
        if self._rpc is not None:
            raise TransportAlreadyConnected("Transport is already connected")
        with _translated():
            if self._pool is None:
                self._rpc = await connect(self.url, "graphql", **self._options)
            else:
                self._rpc = await opened(over(self._pool, self.url, "graphql", **self._options))

    async def close(self) -> None:
        """End all operations with TransportClosed, then close the connection, or return it. May be called again."""
        rpc, self._rpc = self._rpc, None
        if rpc is not None:
            await rpc.close()

    async def execute(self, request: GraphQLRequest, *, ttl: float | None = None) -> ExecutionResult:
        """The result of a query or mutation.

        Args:
            ttl: seconds for which the result of a query may be kept in the transport's cache, if it has no errors;
                ``session.execute(request, ttl=60)``.

        Raises:
            ValueError: a ``ttl`` for what is no query, or without a cache; or a subscription.
        """
        rpc = self.rpc
        with _translated():
            result = await rpc.execute(**_operation(request), timeout=None, ttl=ttl)
        return _result(result)

    async def subscribe(
        self, request: GraphQLRequest, *, share: bool = False, **options: Any
    ) -> AsyncGenerator[ExecutionResult, None]:
        """The results of a subscription; of a query or mutation the one that there is.

        Args:
            share: as for `GraphQLRpc.subscribe`: the server is asked once for all equal ones.
            options: ``resume``, ``timeout``, ``max_events`` and ``max_event_bytes``, likewise.
        """
        rpc, operation = self.rpc, _operation(request)
        if kind_of(operation["document"], operation["operation_name"]) in {Kind.QUERY, Kind.MUTATION}:
            yield await self.execute(request)
            return
        with _translated():
            async with rpc.subscribe(**operation, whole=True, share=share, **options) as events:
                async for event in events:
                    if isinstance(event, Gap):
                        tell(self._on_gap, request, event)
                    else:
                        yield _result(event)


def _operation(request: GraphQLRequest) -> dict[str, Any]:
    payload = request.payload
    return {
        "document": payload["query"],
        "variables": payload.get("variables"),
        "operation_name": payload.get("operationName"),
        "extensions": payload.get("extensions"),
    }


def _result(result: Any) -> ExecutionResult:
    if not isinstance(result, dict) or not result.keys() & {"data", "errors"}:
        raise TransportProtocolError("the server sent a result with neither data nor errors")
    return ExecutionResult(data=result.get("data"), errors=result.get("errors"), extensions=result.get("extensions"))


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what programs for gql look for."""
    try:
        yield
    except GraphQLError as exc:
        errors = list(exc.errors)
        raise TransportQueryError(str(errors[0] if errors else exc), errors=errors, data=exc.data) from exc
    except GraphQLClosed as exc:
        raise TransportServerError(str(exc), exc.code) from exc
    except RpcClosed as exc:
        raise TransportClosed(str(exc)) from exc
    except CallTimeout:
        raise
    except (OSError, CallLost, InvalidHandshake, InvalidURI, PoolClosed) as exc:
        raise TransportConnectionFailed(shown_text(str(exc))) from exc
    except InvalidReply as exc:
        raise TransportProtocolError(str(exc)) from exc
