"""Calls for programs without asyncio: those that threads make at the same time go out together."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from penstock.rpc.consumer import Subscription as AsyncSubscription
from penstock.rpc.stats import RpcStats
from penstock.sync.thread import LoopThread


class Rpc:
    """A client for calls; made by `PerformanceMiddleware.rpc`, with which it is closed.

    Arguments, results and exceptions of each method are those of the asynchronous client: `penstock.Rpc` or, for the
    other protocols, the one of the same name. It has the methods that this has. ``timeout`` is that of the call:
    `CallTimeout` is raised, which is a TimeoutError. KeyboardInterrupt cancels a call.
    """

    def __init__(self, client: Any, thread: LoopThread) -> None:
        self._client, self._thread = client, thread

    def __repr__(self) -> str:
        return f"<sync {self._client!r}>"

    def call(self, *args: Any, **options: Any) -> Any:
        """The result of a call: ``call(method, params=None, *, timeout=10.0, ...)``, or of a GraphQL document."""
        return self._thread.run("call", lambda: self._client.call(*args, **options))

    def batch(self, *args: Any, **options: Any) -> list[Any]:
        """The results of several calls that go out together: ``batch([(method, params), ...])``; JSON-RPC alone."""
        results: list[Any] = self._thread.run("batch", lambda: self._client.batch(*args, **options))
        return results

    def notify(self, *args: Any, **options: Any) -> None:
        """Send what is not answered: ``notify(method, params=None)``; returns when it is accepted for sending."""
        self._thread.run("notify", lambda: self._client.notify(*args, **options))

    def query(self, *args: Any, **options: Any) -> Any:
        """The data of a query: ``query(document, variables=None)``; GraphQL alone."""
        return self._thread.run("query", lambda: self._client.query(*args, **options))

    def execute(self, *args: Any, **options: Any) -> Any:
        """The whole result: ``execute(document, variables=None)``; GraphQL alone."""
        return self._thread.run("execute", lambda: self._client.execute(*args, **options))

    def subscribe(self, *args: Any, **options: Any) -> Subscription:
        """The events of a subscription, to be iterated over: ``subscribe(method, params=None, ...)``."""
        return Subscription(_in_loop(self._thread, "subscribe", self._client.subscribe, *args, **options), self._thread)

    def stats(self) -> RpcStats:
        """What it has, and has done so far."""
        stats: RpcStats = _in_loop(self._thread, "stats", self._client.stats)
        return stats


class Subscription:
    """The events of one subscription; see `penstock.Subscription`.

    ::

        with rpc.subscribe("eth_subscribe", ["newHeads"]) as events:   # confirmed by the server
            for event in events:
                ...
    """

    def __init__(self, events: AsyncSubscription, thread: LoopThread) -> None:
        self._events, self._thread = events, thread

    def __repr__(self) -> str:
        return f"<sync {self._events!r}>"

    def get(self, timeout: float | None = None) -> Any:
        """The next event, or a `Gap` in place of events that may be missing.

        Raises:
            WaitTimeout: none came within ``timeout`` seconds; the next call gets it.
            StopIteration: the subscription has ended, as from ``next``.
            Exception: why it has ended, or what an event says; see `penstock.Subscription`.
        """
        try:
            return self._thread.run("get", self._events.__anext__, timeout)
        except StopAsyncIteration:
            raise StopIteration from None

    def __next__(self) -> Any:
        return self.get()

    def __iter__(self) -> Self:
        return self

    def __enter__(self) -> Self:
        self._thread.run("subscribe", self._events.__aenter__)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._thread.is_foreign:
            self.close()

    def close(self) -> None:
        """Want no more: the server is told, and what waits is dropped. Calling it again does nothing."""
        _in_loop(self._thread, "close", self._events.close)


def _in_loop(thread: LoopThread, name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What an ordinary function gives that has to be called in the loop's thread."""

    async def called() -> Any:
        return function(*args, **options)

    return thread.run(name, called)
