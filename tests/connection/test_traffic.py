"""What connections count: exactly what their applications sent and received, however it travelled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets

import penstock
from penstock import broadcast
from penstock.metrics import catalogue as m
from penstock.metrics.catalogue import Metric
from penstock.metrics.samples import Reading
from penstock.metrics.traffic import traffic_samples
from penstock.server.asgi_transport import AsgiTransport
from penstock.server.sessions import SessionConfig
from support.ends import ends, within
from support.servers import each_transport, serving, url_of
from support.sessions import meeting, numbers, take, until

pytestmark = pytest.mark.timeout(30)

BOTH_WAYS = pytest.mark.parametrize("reliable", [False, True], ids=["plain", "reliable"])


class Counted:
    """What has been counted since it was made."""

    def __init__(self) -> None:
        self._before = self._read()

    def _read(self) -> Any:
        reading = Reading()
        reading.add(traffic_samples())
        return reading.snapshot(0.0)

    def __call__(self, metric: Metric, **labels: str) -> float:
        return float((self._read().value(metric, **labels) or 0) - (self._before.value(metric, **labels) or 0))

    def messages(self, role: str) -> tuple[float, float]:
        """Sent and received."""
        return tuple(self(m.MESSAGES, role=role, direction=direction) for direction in ("sent", "received"))  # type: ignore[return-value]

    def payload(self, role: str) -> tuple[float, float]:
        return tuple(self(m.MESSAGE_BYTES, role=role, direction=direction) for direction in ("sent", "received"))  # type: ignore[return-value]


@asynccontextmanager
async def meet(transport: Any, *, reliable: bool, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A client and the server's end of its connection, open and with nothing said yet."""
    far: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handle(conn: Any) -> None:
        far.set_result(conn)
        await conn.wait_closed()

    shared = {"ping_interval": None, **options}
    async with (
        penstock.serve(handle, "127.0.0.1", 0, transport=transport, **shared) as server,
        penstock.connect(url_of(server), transport=transport, reliable=reliable, **shared) as client,
    ):
        yield client, await within(far)


@each_transport
@BOTH_WAYS
async def test_messages_count_with_their_bytes_however_they_are_sent(transport: Any, reliable: bool) -> None:
    counted = Counted()
    async with meet(transport, reliable=reliable) as (client, far):
        for message in ("é", b"abc", bytearray(b"four")):  # one is written at once, the rest gathers
            await client.send(message)
        await client.send_many(["12345", "ü" * 3])
        await take(far, 5)
        assert counted.messages("client") == (5, 0)
        assert counted.payload("client") == (2 + 3 + 4 + 5 + 6, 0)
        assert counted.messages("server") == (0, 5)
        assert counted.payload("server")[1] == pytest.approx(20, abs=20 if reliable else 0)
        await far.send("answer")
        assert await client.recv() == "answer"
        assert counted.messages("client") == (5, 1)
        assert counted.payload("client")[1] == counted.payload("server")[0] == 6


@BOTH_WAYS
@pytest.mark.parametrize("optimize", [True, False])
async def test_full_batches_count_whole(reliable: bool, optimize: bool) -> None:
    counted = Counted()
    async with meet("picows", reliable=reliable, optimize=optimize) as (client, far):
        messages = [b"x" * 50, "y" * 50] * 2500
        sending = asyncio.create_task(client.send_many(messages))
        assert await take(far, 5000) == messages
        await sending
        assert counted.messages("client") == (5000, 0)
        assert counted.payload("client") == (250_000, 0)
        assert counted.messages("server") == (0, 5000)
        received = counted.payload("server")[1]
        assert 250_000 <= received <= (265_100 if reliable and optimize else 260_000 if reliable else 250_000)


async def test_a_lone_message_over_the_envelope_counts_what_it_is() -> None:
    counted = Counted()
    async with meet("picows", reliable=True) as (client, far):
        for message in ("a", "é", b"\x00" * 1000):
            await client.send(message)
            assert await far.recv() == message
        assert counted.payload("server") == (0, 1003)


async def test_a_large_message_over_the_envelope_counts_once() -> None:
    counted = Counted()
    async with meet("picows", reliable=True) as (client, far):
        await client.send("é" * 400_000)
        await far.recv()
        assert counted.messages("client") == (1, 0)
        assert counted.messages("server") == (0, 1)
        assert counted.payload("client")[0] == counted.payload("server")[1] == 800_000


@each_transport
@BOTH_WAYS
async def test_a_message_in_fragments_counts_once(transport: Any, reliable: bool) -> None:
    counted = Counted()
    async with meet(transport, reliable=reliable) as (client, far):
        await client.send(["12", "345", "é"])
        assert await far.recv() == "12345é"
        assert counted.messages("client") == (1, 0)
        assert counted.messages("server") == (0, 1)
        assert counted.payload("client") == (7, 0)
        assert counted.payload("server") == (0, 7)


@each_transport
async def test_payload_counts_as_it_is_before_it_is_compressed(transport: Any) -> None:
    counted = Counted()
    async with meet(transport, reliable=False, compression="deflate") as (client, far):
        await client.send_many(["z" * 1000] * 3)
        await client.send("z" * 1000)
        await take(far, 4)
        assert counted.messages("client") == (4, 0)
        assert counted.messages("server") == (0, 4)
        assert counted.payload("client")[0] == counted.payload("server")[1] == 4000
        assert 0 < counted(m.WIRE_BYTES, role="client") < 400


@each_transport
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_a_broadcast_counts_for_every_connection(transport: Any, compression: Any) -> None:
    counted = Counted()
    far: set[Any] = set()

    async def handle(conn: Any) -> None:
        far.add(conn)
        await conn.wait_closed()

    options = {"transport": transport, "compression": compression}
    async with (
        penstock.serve(handle, "127.0.0.1", 0, **options) as server,
        penstock.connect(url_of(server), reliable=False, **options) as one,
        penstock.connect(url_of(server), reliable=False, **options) as two,
        penstock.connect(url_of(server), reliable=True, **options) as three,
    ):
        await until(lambda: len(far) == 3)
        for _ in range(2):  # the first is written at once, the second gathers
            broadcast(far, "news")
        for conn in (one, two, three):
            assert await take(conn, 2) == ["news"] * 2
        assert counted.messages("server") == (6, 0)
        assert counted.payload("server") == (24, 0)
        assert counted.messages("client") == (0, 6)


@each_transport
async def test_all_that_is_written_counts_with_its_frames(transport: Any) -> None:
    counted = Counted()
    async with meet(transport, reliable=False) as (client, far):
        await client.send_many(["1234"] * 10)
        await far.send_many(["1234"] * 10)
        await take(far, 10)
        await take(client, 10)
        assert counted(m.WIRE_BYTES, role="client") == 10 * (2 + 4 + 4)
        assert counted(m.WIRE_BYTES, role="server") == 10 * (2 + 4)
        await (await client.ping(b"ping"))
    assert counted(m.WIRE_BYTES, role="client") == 10 * 10 + (2 + 4 + 4) + (2 + 4 + 2)
    assert counted(m.WIRE_BYTES, role="server") == 10 * 6 + (2 + 4) + (2 + 2)
    assert counted(m.WIRE_BYTES, direction="received") == 0


async def test_acknowledgements_are_written_and_are_no_messages() -> None:
    counted = Counted()
    async with meet("picows", reliable=True) as (client, far):
        before = counted(m.WIRE_BYTES, role="server")
        assert before > 0  # WELCOME
        await client.send("x")
        await far.recv()
        await client.delivered()
        assert counted(m.WIRE_BYTES, role="server") > before
        assert counted.messages("server") == (0, 1)


@each_transport
@BOTH_WAYS
async def test_round_trips_of_pings_count(transport: Any, reliable: bool) -> None:
    counted = Counted()
    async with meet(transport, reliable=reliable) as (client, far):
        for _ in range(3):
            await (await client.ping())
        await (await far.ping())
        await client.pong(b"nobody asked")
        await (await far.ping())
        assert counted(m.PING_RTT, role="client") == 3
        assert counted(m.PING_RTT, role="server") == 2


@each_transport
@BOTH_WAYS
async def test_a_connection_that_ends_in_order_counts_by_its_code(transport: Any, reliable: bool) -> None:
    counted = Counted()
    async with meet(transport, reliable=reliable) as (client, _):
        assert counted(m.CLOSES) == counted(m.CONNECTION_DURATION) == 0
        await client.close(1001)
    for role in ("client", "server"):
        assert counted(m.CLOSES, role=role, code="1001") == counted(m.CLOSES, role=role) == 1
        assert counted(m.CONNECTION_DURATION, role=role) == 1
    assert counted(m.ERRORS) == counted(m.SESSION_LOST) == 0


@each_transport
async def test_a_connection_that_ends_otherwise_is_an_error(transport: Any) -> None:
    counted = Counted()
    async with meet(transport, reliable=False) as (client, far):
        await far.close(4000, "no more")
        await client.wait_closed()
    assert counted(m.CLOSES, role="client", code="4000") == 1
    assert counted(m.ERRORS, role="client") == counted(m.ERRORS, role="server") == 1


@each_transport
async def test_a_connection_that_breaks_is_an_error_without_a_code(transport: Any) -> None:
    counted = Counted()
    async with meet(transport, reliable=False) as (client, far):
        client.abort()
        await far.wait_closed()
    assert counted(m.CLOSES, code="1006") == counted(m.CLOSES) == 2
    assert counted(m.ERRORS) == counted(m.CONNECTION_DURATION) == 2


async def test_a_duration_is_as_long_as_the_connection_was_open(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0
    loop = asyncio.get_running_loop()
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + seconds)
    read = Counted()._read
    before = read().histogram(m.CONNECTION_DURATION, role="client")
    async with ends() as both:
        seconds = 1000.0
        await both.client.close()
    assert read().histogram(m.CONNECTION_DURATION, role="client").since(before).sum == pytest.approx(1000, abs=30)


@each_transport
async def test_a_session_that_goes_on_counts_at_both_ends_with_what_is_written_again(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.client.send("arrives")
        await both.far.recv()
        both.relay.pause()
        counted = Counted()
        await both.client.send_many(numbers(5))
        await both.client.flush()
        assert counted.messages("client") == (5, 0)
        both.relay.cut()
        both.relay.go_on()
        assert await take(both.far, 5) == numbers(5)
        await both.back()
        assert counted(m.SESSION_RESUMES) == 2
        assert counted(m.REDELIVERED) == 5
        assert counted.messages("client") == (5, 0)
        assert counted.messages("server") == (0, 5)
        assert counted(m.SESSION_LOST) == 0
        assert counted(m.CLOSES, role="client") == counted(m.ERRORS, role="client") == 1


async def test_a_session_that_cannot_go_on_counts_as_lost() -> None:
    counted = Counted()
    async with meeting() as both:
        await both.away()
        both.client.abort()
        await both.client.wait_closed()
        assert counted(m.SESSION_LOST) == 1
        assert counted(m.SESSION_RESUMES) == 0


async def test_a_session_that_begins_again_counts_as_lost_with_what_is_sent_again() -> None:
    forgetful = {"sessions": SessionConfig(ttl=5, max_detached=0)}
    async with meeting(on_session_lost="resend", server=forgetful) as both:
        both.relay.pause()
        counted = Counted()
        await both.client.send_many(numbers(4))
        await both.client.flush()
        await both.cut()
        both.relay.go_on()
        assert await take_from_last(both, 4) == numbers(4)
        assert counted(m.SESSION_RESUMES) == 0
        assert counted(m.SESSION_LOST) == 2  # at each end
        assert counted(m.REDELIVERED) == 4


async def take_from_last(both: Any, count: int) -> list[Any]:
    """From the session that was begun last."""
    await until(lambda: len(both.handled) == 2)
    return await take(both.far, count)


@pytest.mark.parametrize("kind", ["penstock-picows", "penstock-websockets"])
async def test_a_client_that_only_seems_to_speak_the_envelope_sends_messages(kind: str) -> None:
    counted = Counted()
    async with (
        serving(kind) as server,
        websockets.connect(url_of(server), additional_headers={"Penstock": "v1"}) as client,
    ):
        await client.send("first")
        assert await client.recv() == "first"
        await client.send("and second")
        assert await client.recv() == "and second"
        assert counted.messages("server") == (2, 2)
        assert counted.payload("server") == (15, 15)


async def test_a_connection_that_was_taken_over_counts() -> None:
    counted = Counted()
    async with serving("websockets") as server, websockets.connect(url_of(server)) as ws:
        conn = penstock.accelerate(ws)
        await conn.send_many(["one", "two"])
        assert await take(conn, 2) == ["one", "two"]
        assert counted.messages("client") == (2, 2)
        assert counted.payload("client") == (6, 6)
        await conn.close()
    assert counted(m.CLOSES, role="client", code="1000") == 1


async def test_a_socket_of_an_asgi_server_counts_when_it_ends() -> None:
    counted = Counted()
    AsgiTransport({"type": "websocket"}).abort()
    assert counted(m.CLOSES, role="server", code="1006") == counted(m.ERRORS, role="server") == 1
    assert counted(m.CONNECTION_DURATION, role="server") == 1


def test_connections_of_several_threads_are_counted_together() -> None:
    counted = Counted()
    together = threading.Barrier(3)

    async def talk() -> None:
        async with ends() as both:
            together.wait()  # nobody has ended: each has a block of its own
            await both.server.send_many(["123"] * 100)
            await take(both.client, 100)

    threads = [threading.Thread(target=asyncio.run, args=(talk(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert counted.messages("server") == (300, 0)
    assert counted.messages("client") == (0, 300)
    assert counted.payload("client") == (0, 900)
    assert counted(m.CLOSES) == 6
