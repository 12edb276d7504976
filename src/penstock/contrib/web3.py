"""A provider for `web3.py <https://web3py.readthedocs.io>`_, with the extra ``web3``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from msgspec import Struct, json

try:
    from web3._utils.caching.caching_utils import generate_cache_key
    from web3.exceptions import ProviderConnectionError, TimeExhausted, Web3ValueError
    from web3.providers.persistent import PersistentConnectionProvider
    from web3.types import RPCId, RPCRequest, RPCResponse
except ImportError as error:
    raise ImportError("PenstockProvider needs the extra: pip install 'penstock[web3]'") from error

from penstock.cache.cache import MessageCache
from penstock.contrib.clients import opened, tell
from penstock.errors import (
    CallTimeout,
    CertificateRefused,
    ConnectionDenied,
    PerformanceError,
    PoolClosed,
    RpcClosed,
    RpcError,
)
from penstock.errors.urls import shown_text, shown_url
from penstock.protocols import ethereum
from penstock.protocols.policy import CachePolicy
from penstock.rpc.consumer import Gap, Subscription
from penstock.rpc.jsonrpc import Rpc
from penstock.rpc.opening import connect, over
from penstock.rpc.sources import Lends
from penstock.transport.base import InvalidHandshake, InvalidURI

REQUESTS_KNOWN = 4096
"""Requests and subscriptions that web3 knows the formats of; more than a client lets wait, or answers stay raw."""


class _Asked(Struct):
    """A call that web3 makes, as it writes it."""

    id: int
    method: str
    params: list[Any]


class _Feed(Struct):
    """A subscription, and who takes its events; None until web3 knows its id."""

    events: Subscription
    task: asyncio.Task[None] | None = None


_asked = json.Decoder(_Asked | list[_Asked])


class PenstockProvider(PersistentConnectionProvider):
    """Takes the place of ``web3.WebSocketProvider``: calls, batches and subscriptions over an `Rpc`.

    ::

        async with AsyncWeb3(PenstockProvider("ws://localhost:8545")) as w3:
            await w3.eth.block_number

    Connections that are lost are opened anew. Calls that only read are sent again then, and subscriptions go on under
    the ids that they have. Cancelling a call is safe.

    Args:
        url: of the node.
        pool: where connections come from, shared with others; by default there is one connection of its own.
        cache: where answers are kept, as ``policy`` says; None for none.
        policy: by default ``penstock.protocols.ethereum.policy()``, if there is a cache.
        on_gap: called with a subscription's id wherever events may be missing, which are else told of in the log. It
            comes ahead of those that still wait in web3's queues. What it raises is logged.
        request_timeout: seconds for a call, and for each of a batch.
        request_information_cache_size: as web3 has it; more than the calls and subscriptions at a time.
        rpc_options: of `Rpc`, or of `penstock.rpc.connect` where there is no pool; ``idempotent`` is by default
            ``penstock.protocols.ethereum.READS``.
        web3_options: of web3's ``PersistentConnectionProvider``.

    Calls raise what web3 makes of the node's errors, and:

    Raises:
        ProviderConnectionError: there is no connection; the cause tells why.
        TimeExhausted: a call was not answered in time.
        CallLost: a ``websockets.ConnectionClosed``: the connection was lost, and the call may have been done.
        TooManyCalls: too many wait.

    Who takes the events of a subscription that has failed gets `ConsumerTooSlow`, `CallLost` or `RpcError` in their
    place, after those that came before.
    """

    def __init__(
        self,
        url: str,
        *,
        pool: Lends | None = None,
        cache: MessageCache | None = None,
        policy: CachePolicy | None = None,
        on_gap: Callable[[str, Gap], object] | None = None,
        request_timeout: float = 30.0,
        request_information_cache_size: int = REQUESTS_KNOWN,
        rpc_options: Mapping[str, Any] | None = None,
        **web3_options: Any,
    ) -> None:
        super().__init__(
            request_timeout=request_timeout,
            request_information_cache_size=request_information_cache_size,
            **web3_options,
        )
        self.endpoint_uri = url
        self._pool, self._on_gap = pool, on_gap
        if policy is None and cache is not None:
            policy = ethereum.policy()
        self._options = {"idempotent": ethereum.READS, "cache": cache, "policy": policy, **(rpc_options or {})}
        self._rpc: Rpc | None = None
        self._waiting: dict[RPCId, asyncio.Task[Any]] = {}
        """Calls that nobody has asked for the answers of yet, by their ids; batches by the first."""
        self._feeds: dict[str, _Feed] = {}
        """Subscriptions, by the ids that web3 knows."""
        self._subscribed = 0

    def __str__(self) -> str:
        return f"penstock: {shown_url(self.endpoint_uri)}"

    @property
    def rpc(self) -> Rpc:
        """The client, of which there is another after each ``connect``.

        Raises:
            ProviderConnectionError: it is not connected.
        """
        if self._rpc is None:
            raise ProviderConnectionError(
                "this provider is not connected: use async with AsyncWeb3(provider), or await provider.connect()"
            )
        return self._rpc

    async def is_connected(self, show_traceback: bool = False) -> bool:
        """Whether the node answers; ``show_traceback`` raises ProviderConnectionError if it does not."""
        try:
            await self.rpc.call("web3_clientVersion", [], timeout=self.request_timeout, ttl=0)
        except RpcError:
            return True
        except (PerformanceError, OSError, InvalidHandshake, ProviderConnectionError) as exc:
            if show_traceback:
                raise ProviderConnectionError(f"{shown_url(self.endpoint_uri)} does not answer: {exc}") from exc
            return False
        return True

    # Its connection, as web3 wants it

    async def _provider_specific_connect(self) -> None:
        if self._rpc is not None:
            raise ProviderConnectionError("this provider is connected already")
        url = self.endpoint_uri
        try:
            if self._pool is None:
                self._rpc = await connect(url, **self._options)
            else:
                self._rpc = await opened(over(self._pool, url, **self._options))
        except (CertificateRefused, ConnectionDenied) as exc:  # final; web3 tries the others again
            raise ProviderConnectionError(str(exc)) from exc

    async def _provider_specific_disconnect(self) -> None:
        rpc, self._rpc = self._rpc, None
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            if feed.task is not None:
                feed.task.cancel()
        if rpc is not None:
            await rpc.close()

    async def _message_listener(self) -> None:
        await asyncio.Event().wait()  # the client reads; web3 takes the end of this for that of all subscriptions

    def _message_listener_callback(self, message_listener_task: asyncio.Task[None]) -> None:
        queues = (
            self._request_processor._subscription_response_queue,
            self._request_processor._handler_subscription_queue,
        )
        for queue in queues:
            if queue.full():  # web3 puts the end in without looking
                queue.get_nowait()
        super()._message_listener_callback(message_listener_task)

    # Calls: web3 sends one, and asks for its answer at once or, over `AsyncWeb3.socket`, takes whichever comes

    async def socket_send(self, request_data: bytes) -> None:
        asked = _asked.decode(request_data)
        rpc = self.rpc
        if isinstance(asked, _Asked):
            self._begin(asked.id, asyncio.create_task(self._answer(rpc, asked)))
        elif asked:
            self._begin(asked[0].id, asyncio.create_task(self._answer_all(rpc, asked)))

    async def socket_recv(self) -> RPCResponse:
        raise NotImplementedError("the client reads; take answers with provider.recv_for_request(request)")

    async def recv_for_batch_request(self, _request_dicts: list[RPCRequest]) -> list[RPCResponse]:
        if not _request_dicts:
            return []
        return cast(list[RPCResponse], await self._get_response_for_request_id(_request_dicts[0]["id"]))

    async def _get_response_for_request_id(
        self, request_id: RPCId | list[RPCId], timeout: float | None = None
    ) -> RPCResponse:
        assert not isinstance(request_id, list)
        task = self._waiting.pop(request_id, None)
        if task is not None:
            async with asyncio.timeout(timeout):
                return cast(RPCResponse, await task)
        response = await self._request_processor.pop_raw_response(cache_key=generate_cache_key(request_id))
        if response is None:
            raise Web3ValueError(f"there is no answer to request {request_id!r}, and none to come")
        return cast(RPCResponse, response)

    def _begin(self, id: RPCId, task: asyncio.Task[Any]) -> None:  # noqa: A002 - the protocol's word
        self._waiting[id] = task
        task.add_done_callback(lambda _: self._waiting.pop(id, None))

    async def _answer(self, rpc: Rpc, asked: _Asked) -> RPCResponse:
        outcome: Any
        with _translated():
            try:
                outcome = await self._result(rpc, asked)
            except RpcError as exc:
                outcome = exc
        response = _response(asked, outcome)
        await self._keep_unclaimed(asked, response)
        return response

    async def _answer_all(self, rpc: Rpc, asked: list[_Asked]) -> list[RPCResponse]:
        with _translated():
            outcomes = await rpc.batch([(one.method, one.params) for one in asked], timeout=self.request_timeout)
            for outcome in outcomes:
                if isinstance(outcome, PerformanceError | OSError) and not isinstance(outcome, RpcError):
                    raise outcome
        responses = [_response(one, outcome) for one, outcome in zip(asked, outcomes, strict=True)]
        await self._keep_unclaimed(asked[0], responses)
        return responses

    async def _keep_unclaimed(self, asked: _Asked, response: RPCResponse | list[RPCResponse]) -> None:
        if asked.id in self._waiting:
            await self._request_processor.cache_raw_response(response)

    async def _result(self, rpc: Rpc, asked: _Asked) -> Any:
        if asked.method == "eth_subscribe":
            return await self._subscribe(rpc, asked.params)
        if asked.method == "eth_unsubscribe" and asked.params and asked.params[0] in self._feeds:
            feed = self._feeds.pop(asked.params[0])
            feed.events.close()
            if feed.task is not None:
                feed.task.cancel()
            return True
        return await rpc.call(asked.method, asked.params, timeout=self.request_timeout)

    # Subscriptions

    async def _subscribe(self, rpc: Rpc, params: list[Any]) -> str:
        """An id of its own: the node's is another after each reconnect."""
        events = await rpc.subscribe("eth_subscribe", params, timeout=self.request_timeout).__aenter__()
        self._subscribed += 1
        id = f"0x{self._subscribed:032x}"  # noqa: A001 - the protocol's word
        self._feeds[id] = _Feed(events)
        # web3 drops events of ids that it does not know, and knows this one when who asks for the answer has run; that
        # is on the list of who is told of the answer already, so that it runs first.
        answering = asyncio.current_task()
        assert answering is not None
        answering.add_done_callback(lambda _: self._begin_feed(id))
        return id

    def _begin_feed(self, id: str) -> None:  # noqa: A002
        feed = self._feeds.get(id)
        if feed is not None:
            feed.task = asyncio.create_task(self._feed(id, feed.events))

    async def _feed(self, id: str, events: Subscription) -> None:  # noqa: A002
        processor = self._request_processor
        try:
            async for event in events:
                if isinstance(event, Gap):
                    tell(self._on_gap, id, event)
                    continue
                params = {"subscription": id, "result": event}
                message = {"jsonrpc": "2.0", "method": "eth_subscription", "params": params}
                await processor.cache_raw_response(message, subscription=True)
        except PerformanceError as exc:
            known = processor._subscription_container
            has_handler = known is not None and known.get_handler_subscription_by_id(cast(Any, id)) is not None
            queue: Any = (
                processor._handler_subscription_queue if has_handler else processor._subscription_response_queue
            )
            await queue.put(exc)  # what these queues hold and is an exception is raised by who takes it
        finally:
            events.close()


def _response(asked: _Asked, outcome: Any) -> RPCResponse:
    response = {"jsonrpc": "2.0", "id": asked.id}
    if not isinstance(outcome, RpcError):
        return cast(RPCResponse, response | {"result": outcome})
    error = {"code": outcome.code, "message": outcome.message}
    if outcome.data is not None:
        error["data"] = outcome.data
    return cast(RPCResponse, response | {"error": error})


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what programs for web3 look for."""
    try:
        yield
    except CallTimeout as exc:
        raise TimeExhausted(str(exc)) from exc
    except (OSError, InvalidHandshake, InvalidURI, PoolClosed, RpcClosed) as exc:
        raise ProviderConnectionError(shown_text(str(exc))) from exc
