"""``async for conn in connect(...)``: what is waited out, what is raised, and how long the delays are."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets import ConnectionClosed, InvalidHeader, InvalidMessage, InvalidStatus

import penstock
from support.certificates import server_tls
from support.peers import http, peer, saying, silent, switching
from support.servers import each_transport, serving, url_of

pytestmark = pytest.mark.timeout(20)


class Delays:
    """Delays without length, which remember how often they were asked for."""

    def __init__(self, *delays: float) -> None:
        self.series = 0
        self.taken: list[int] = []
        self._delays = delays or (0.0,) * 100

    def __call__(self) -> Iterator[float]:
        self.series += 1
        self.taken.append(0)
        for delay in self._delays:
            self.taken[-1] += 1
            yield delay


async def first(url: str, transport: Any, delays: Callable[[], Iterator[float]], **options: Any) -> None:
    """Connect until it works once."""
    async for conn in penstock.connect(url, transport=transport, reconnect_delays=delays, **options):
        await conn.close()
        return


def ok() -> Any:
    return switching()


@each_transport
async def test_the_loop_connects_again_when_the_connection_was_closed(transport: Any) -> None:
    async def handler(ws: Any) -> None:
        await ws.send("one message each")

    delays, received = Delays(), []
    async with serving(handler=handler) as server:
        async for conn in penstock.connect(url_of(server), transport=transport, reconnect_delays=delays):
            try:
                received += [message async for message in conn]
                await conn.recv()
            except ConnectionClosed:
                if len(received) == 3:
                    break
                continue
    assert received == ["one message each"] * 3
    assert delays.series == 0, "a connection that worked costs no delay"


@each_transport
async def test_each_iteration_closes_its_connection(transport: Any) -> None:
    seen: list[Any] = []
    async with serving() as server:
        async for conn in penstock.connect(url_of(server), transport=transport):
            seen.append(conn)
            if len(seen) == 2:
                break
        assert seen[0].close_code == 1000
        await seen[1].wait_closed()


@pytest.mark.parametrize("status", ["500 Oops", "502 Bad Gateway", "503 Unavailable", "504 Gateway Timeout"])
@each_transport
async def test_a_server_in_trouble_is_tried_again(transport: Any, status: str) -> None:
    delays = Delays()
    async with peer(saying(http(status), http(status), ok())) as server:
        await first(server.url, transport, delays, close_timeout=0.1)
        assert server.accepted == 3
    assert delays.taken == [2]


@each_transport
async def test_a_peer_that_hangs_up_is_tried_again(transport: Any) -> None:
    delays = Delays()
    async with peer(saying("", ok())) as server:
        await first(server.url, transport, delays, close_timeout=0.1)
    assert delays.taken == [1]


@each_transport
async def test_a_port_where_nobody_listens_is_tried_again(transport: Any) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    delays = Delays(0.0, 0.0)
    with pytest.raises(RuntimeError) as caught:  # the series ends, which ends the loop as in websockets
        await first(f"ws://127.0.0.1:{port}/", transport, delays)
    assert isinstance(caught.value.__cause__, StopIteration)
    assert delays.taken == [2]


@each_transport
async def test_a_timeout_is_tried_again(transport: Any) -> None:
    answers = iter([silent(), saying(ok())])

    async def talk(*arguments: Any) -> None:
        await next(answers)(*arguments)

    delays = Delays()
    async with peer(talk) as server:
        await first(server.url, transport, delays, open_timeout=0.1, close_timeout=0.1)
    assert delays.taken == [1]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http("401 Unauthorized"), InvalidStatus),
        (http("404 Not Found"), InvalidStatus),
        (http("501 Not Implemented"), InvalidStatus),
        (switching(accept="wrong"), InvalidHeader),
        ("NONSENSE\r\n\r\n", InvalidMessage),
    ],
    ids=["401", "404", "501", "accept", "nonsense"],
)
@each_transport
async def test_what_will_not_get_better_is_raised_at_once(transport: Any, answer: Any, kind: type[Exception]) -> None:
    delays = Delays()
    async with peer(saying(answer)) as server:
        with pytest.raises(kind):
            await first(server.url, transport, delays)
        assert server.accepted == 1
    assert delays.series == 0


@each_transport
async def test_process_exception_that_returns_none_tries_again(transport: Any) -> None:
    seen: list[Exception] = []

    def patient(exc: Exception) -> None:
        seen.append(exc)

    async with peer(saying(http("401 Unauthorized"), ok())) as server:
        await first(server.url, transport, Delays(), process_exception=patient, close_timeout=0.1)
    assert [type(exc) for exc in seen] == [InvalidStatus]


@each_transport
async def test_process_exception_that_returns_its_argument_raises_it(transport: Any) -> None:
    async with peer(saying(http("503 Unavailable"))) as server:
        with pytest.raises(InvalidStatus, match="503"):
            await first(server.url, transport, Delays(), process_exception=lambda exc: exc)
        assert server.accepted == 1


@pytest.mark.parametrize("raises", [True, False], ids=["raised", "returned"])
@each_transport
async def test_another_exception_of_process_exception_is_raised_from_the_first(transport: Any, raises: bool) -> None:
    def strict(exc: Exception) -> Exception:
        if raises:
            raise KeyError("no patience")
        return KeyError("no patience")

    async with peer(saying(http("503 Unavailable"))) as server:
        with pytest.raises(KeyError) as caught:
            await first(server.url, transport, Delays(), process_exception=strict)
    assert isinstance(caught.value.__cause__, InvalidStatus)


@each_transport
async def test_the_delays_begin_anew_after_a_connection_that_worked(transport: Any) -> None:
    delays = Delays()
    answers = [http("503 x"), http("503 x"), ok(), http("503 x"), ok()]
    rounds = 0
    async with peer(saying(*answers)) as server:
        opener = penstock.connect(server.url, transport=transport, reconnect_delays=delays, close_timeout=0.05)
        async for _ in opener:
            rounds += 1
            if rounds == 2:
                break
    assert delays.taken == [2, 1]


@each_transport
async def test_the_delay_is_waited_and_logged_with_its_reason(transport: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    loop = asyncio.get_running_loop()
    async with peer(saying(http("503 Unavailable"), ok())) as server:
        started = loop.time()
        await first(server.url, transport, Delays(0.15), close_timeout=0.01)
        assert loop.time() - started >= 0.15
    [text] = [record.getMessage() for record in caplog.records if "reconnecting" in record.getMessage()]
    assert "503" in text
    assert "0.1" in text or "0.2" in text


@each_transport
async def test_the_delay_can_be_cancelled(transport: Any) -> None:
    async with peer(saying(http("503 Unavailable"))) as server:
        task = asyncio.create_task(first(server.url, transport, Delays(60.0)))
        await server.wait_accepted()
        await server.wait_gone()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@each_transport
async def test_an_exception_in_the_body_ends_the_loop(transport: Any) -> None:
    """It is thrown where the ``for`` stands, not into the iterator."""

    async def use(url: str) -> None:
        async for conn in penstock.connect(url, transport=transport):
            try:
                raise LookupError
            finally:
                await conn.close()

    async with serving() as server:
        with pytest.raises(LookupError):
            await use(url_of(server))


@each_transport
async def test_a_certificate_that_is_refused_is_tried_again_like_any_oserror(transport: Any) -> None:
    delays = Delays(0.0)
    async with serving(ssl=server_tls()) as server:
        with pytest.raises(RuntimeError) as caught:
            await first(url_of(server, scheme="wss"), transport, delays)
    assert isinstance(caught.value.__cause__, StopIteration)
