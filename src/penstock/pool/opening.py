"""Opening connections: where to, how many at a time, how often, and what a failure means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from penstock.connection.accelerate import accelerate
from penstock.connection.connect import connect as open_connection
from penstock.connection.connection import Connection
from penstock.errors import ConnectionFailed
from penstock.metrics.histogram import Histogram
from penstock.pool.breaker import Breaker
from penstock.pool.config import ConnectionPoolConfig
from penstock.pool.endpoints import Endpoint, choose
from penstock.pool.failures import Denied, RetryAfter, judge, judge_close
from penstock.pool.rate import RateLimit
from penstock.pool.slots import Key
from penstock.pool.target import options_of, url_of
from penstock.transport.base import parse_uri

Connect = Callable[..., Awaitable[Any]]
Prepare = Callable[[Endpoint, Connection], Awaitable[None]]


class Host:
    """What limits the opening of connections to one host, for whatever URL."""

    def __init__(self, config: ConnectionPoolConfig) -> None:
        self.gate = asyncio.Semaphore(config.max_connecting)
        self.rate = RateLimit(config.connect_rate, config.max_connecting)


class Opener:
    """Opens connections for a pool, and remembers how its servers behave.

    Args:
        connect: as `ConnectionPool` has it.
        weights: endpoints of a URL that has several, with their weights.
        random: uniform in [0, 1).
        before_connect: see `ConnectionPool`.
    """

    def __init__(
        self,
        config: ConnectionPoolConfig,
        connect: Connect,
        weights: Mapping[str, Sequence[tuple[str, float]]],
        random: Callable[[], float],
        before_connect: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.seconds = Histogram()
        """That opening took, where it succeeded."""
        self._config, self._connect, self._weights, self._random = config, connect, weights, random
        self._before_connect = before_connect
        self._breakers: dict[tuple[Key, str], Breaker] = {}
        """Of all endpoints that are used or in trouble: what one identity is refused does not stop another."""
        self._endpoints: dict[Key, list[Endpoint]] = {}
        self._unused: set[tuple[Key, str]] = set()
        self._hosts: dict[tuple[str, int], Host] = {}

    def is_spread(self, key: Key) -> bool:
        """Whether a key has several endpoints."""
        return len(self._weights.get(url_of(key), ())) > 1

    def endpoints(self, key: Key) -> list[Endpoint]:
        """Where the connections of a key may lead to."""
        found = self._endpoints.get(key)
        if found is None:
            url = url_of(key)
            found = self._endpoints[key] = [
                Endpoint(one, weight, self._breakers.setdefault((key, one), Breaker(self._random)))
                for one, weight in self._weights.get(url, [(url, 1.0)])
            ]
        return found

    def forget(self, key: Key) -> None:
        """Nobody uses a key any more."""
        self._unused.update((key, endpoint.url) for endpoint in self._endpoints.pop(key, ()))

    def prune(self, now: float) -> None:
        """Forget servers that nobody uses any more, once their trouble is long past."""
        if self._unused:
            self._unused = {place for place in self._unused if place[0] not in self._endpoints}
            for place in [place for place in self._unused if not self._breakers[place].remembers(now)]:
                self._unused.remove(place)
                del self._breakers[place]
            hosts = {_place(url) for _, url in self._breakers}
            self._hosts = {place: host for place, host in self._hosts.items() if place in hosts}

    def trouble(self, key: Key) -> Exception | None:
        """Why the last attempt to open a connection failed, if it did."""
        return next((one.breaker.cause for one in self._endpoints.get(key, ()) if one.breaker.cause is not None), None)

    def retry_in(self, key: Key, now: float) -> float:
        """Seconds for which the servers of a key are left alone, because they asked for it or failed."""
        return max(0.0, min((one.breaker.retry_at for one in self._endpoints.get(key, ())), default=now) - now)

    def is_quiet(self, key: Key, now: float) -> bool:
        """Whether a connection may be opened that nobody has asked for."""
        return any(endpoint.breaker.quiet(now) for endpoint in self.endpoints(key))

    async def open(self, key: Key, prepare: Prepare) -> tuple[Endpoint, Connection]:
        """Open a connection, and have it prepared. Cancelling closes the socket.

        Where one endpoint of several fails, those that may be tried now are, before anybody is told.

        Raises:
            ConnectionFailed: it was not worth trying, could not be opened, or could not be prepared.
        """
        now = asyncio.get_running_loop().time
        left = list(self.endpoints(key))
        while True:
            endpoint = choose(left, now(), self._random)
            left.remove(endpoint)
            endpoint.open += 1
            endpoint.attempts += 1
            try:
                return endpoint, await self._open_at(key, endpoint, prepare)
            except BaseException as exc:
                endpoint.open -= 1
                left = [one for one in left if one.breaker.quiet(now())]
                if not (left and isinstance(exc, ConnectionFailed)) or is_being_cancelled():
                    raise
            finally:
                endpoint.attempts -= 1

    async def _open_at(self, key: Key, endpoint: Endpoint, prepare: Prepare) -> Connection:
        """Take turns with others who open connections to the same host, unless it is not worth trying."""
        now, breaker = asyncio.get_running_loop().time, endpoint.breaker
        if breaker.is_open(now()):
            raise _refused(endpoint, now())
        denials = breaker.denials
        await asyncio.sleep(breaker.delay(now()))
        if self._before_connect is not None:
            await self._before_connect()
        host = self._host(endpoint.url)
        async with host.gate:
            if breaker.denials != denials or breaker.refuses(now()):  # others have failed meanwhile
                raise _refused(endpoint, now())
            try:
                await asyncio.sleep(host.rate.reserve(now()))
                return await self._attempt(key, endpoint, prepare)
            except asyncio.CancelledError:
                breaker.abandoned()
                raise

    async def _attempt(self, key: Key, endpoint: Endpoint, prepare: Prepare) -> Connection:
        loop, breaker = asyncio.get_running_loop(), endpoint.breaker
        began = loop.time()
        try:
            async with asyncio.timeout(self._config.connect_timeout) as deadline:
                connection = await self._open(endpoint.url, options_of(key))
                try:
                    await prepare(endpoint, connection)
                except BaseException:
                    connection.abort()
                    raise
        except asyncio.CancelledError as exc:
            if is_being_cancelled():
                raise
            failure = ConnectionFailed(endpoint.url, "something was cancelled that opening it waited for")
            self._note(breaker, failure, loop.time())
            raise failure from exc
        except Exception as exc:
            reason = str(exc) or type(exc).__name__
            if deadline.expired():
                reason = f"not open after connect_timeout={self._config.connect_timeout} s"
            self._note(breaker, exc, loop.time())
            if isinstance(exc, ConnectionFailed):
                raise
            raise ConnectionFailed(endpoint.url, reason) from exc
        breaker.succeeded()
        self.seconds.record(loop.time() - began)
        return connection

    async def _open(self, url: str, options: dict[str, Any]) -> Connection:
        if self._connect is open_connection:
            options["ping_interval"] = None  # the pool asks by itself whether the peer is alive
            options["open_timeout"] = None
        connection = await self._connect(url, **options)
        return connection if isinstance(connection, Connection) else accelerate(connection)

    def _note(self, breaker: Breaker, exc: Exception, now: float) -> None:
        match judge(exc, time.time()):
            case Denied():
                breaker.denied(exc)
            case RetryAfter(seconds):
                breaker.failed(now, exc, rest=seconds)
            case _:
                breaker.failed(now, exc)

    def _host(self, url: str) -> Host:
        place = _place(url)
        host = self._hosts.get(place)
        if host is None:
            host = self._hosts[place] = Host(self._config)
        return host

    def closed(self, endpoint: Endpoint, close_code: int | None, now: float) -> None:
        """A peer closed a connection, and may have asked to be left alone for a while."""
        policy = judge_close(close_code)
        if policy is not None:
            endpoint.breaker.rejected(now, policy=policy)


def _place(url: str) -> tuple[str, int]:
    uri = parse_uri(url)
    return uri.host, uri.port


def is_being_cancelled() -> bool:
    """Whether a ``CancelledError`` is meant for the task that runs, rather than of something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_hopeless(exc: Exception) -> bool:
    """Whether the server would answer another attempt in the same way."""
    return isinstance(judge(exc, time.time()), Denied)


def _refused(endpoint: Endpoint, now: float) -> ConnectionFailed:
    cause = endpoint.breaker.cause
    seconds = max(0.0, endpoint.breaker.retry_at - now)
    error = ConnectionFailed(endpoint.url, f"it failed before ({cause}); to be tried again in {seconds:.1f} s")
    error.__cause__ = cause
    return error
