"""What may happen to a session, case by case."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
import websockets

import penstock
from penstock import BatchConfig
from penstock.errors import SerializationError, SessionLost, WrongLoop
from penstock.server.sessions import SessionConfig
from penstock.transport.base import ConnectionClosed, ConnectionClosedOK
from penstock.wire.envelope import Ack, Bye, Data, Hello, Welcome, count_of, read, write
from support.ends import steps
from support.servers import each_transport, echo, url_of
from support.sessions import QUICK, meeting, numbers, soon, take, until

pytestmark = pytest.mark.timeout(30)

OFFER = {"Penstock": "v1"}
BIG = "x" * 100_000


async def fill(conn: Any) -> int:
    """Send until nothing more is accepted."""
    count = 0
    try:
        while True:
            async with asyncio.timeout(0.1):
                await conn.send(BIG)
            count += 1
    except TimeoutError:
        return count


class Client:
    """Speaks frame by frame."""

    def __init__(self, ws: Any) -> None:
        self.ws = ws

    @classmethod
    async def open(cls, server: Any) -> Client:
        return cls(await websockets.connect(url_of(server), additional_headers=OFFER, close_timeout=0.2))

    async def greet(self, sid: bytes = b"", rx: int = 0, first: int = 1) -> Welcome:
        await self.ws.send(write(Hello(sid, rx, first, 2**20, 2**20, 0, 2**20)))
        welcome = read(await self.ws.recv())
        assert isinstance(welcome, Welcome)
        return welcome

    async def data(self) -> Data:
        while not isinstance(frame := read(await self.ws.recv()), Data):
            pass
        return frame

    async def say(self, frame: Any) -> None:
        await self.ws.send(write(frame))

    async def abort(self) -> None:
        self.ws.transport.abort()
        await self.ws.wait_closed()


def serve(handler: Any, **options: Any) -> Any:
    return penstock.serve(handler, "127.0.0.1", 0, **{**QUICK, "sessions": SessionConfig(ttl=5), **options})


@each_transport
async def test_case_03_a_send_that_timed_out_was_not_sent_and_a_retry_makes_no_duplicate(transport: Any) -> None:
    async with meeting(transport, send_timeout=0.1, batch=BatchConfig(max_pending_bytes=200_000)) as both:
        count = 0

        async def send() -> None:
            nonlocal count
            while True:
                await both.client.send(f"{count:06d}{BIG}")
                count += 1

        with pytest.raises(TimeoutError):
            await send()
        receiving = asyncio.create_task(take(both.far, count + 1))
        await both.client.send(f"{count:06d}{BIG}")
        assert [int(message[:6]) for message in await receiving] == list(range(count + 1))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await both.far.recv()


@each_transport
async def test_case_04_a_cancelled_send_is_in_or_out_and_which_is_known(transport: Any) -> None:
    async with meeting(transport, batch=BatchConfig(max_pending_bytes=200_000)) as both:
        accepted = [BIG] * await fill(both.client)
        for number in range(12):
            sends = [asyncio.create_task(both.client.send(f"{number}.{index}")) for index in range(6)]
            await steps(number % 4)
            if number == 6:
                await both.cut()
            for victim in sends[number % 3 :: 2]:
                victim.cancel()
            if number % 4 == 3:
                accepted = accepted[len(await both.far.recv_many()) :]
            await asyncio.wait(sends, timeout=0.02)
            for victim in sends:
                victim.cancel()
            await asyncio.wait(sends)
            accepted += [f"{number}.{index}" for index, task in enumerate(sends) if not task.cancelled()]
        await both.back()
        assert await take(both.far, len(accepted)) == accepted


@each_transport
async def test_case_05_an_acknowledgement_in_the_middle_of_a_replay(transport: Any) -> None:
    delivered = asyncio.Event()

    async def handler(conn: Any) -> None:
        for number in range(10):
            await conn.send(str(number))
            await conn.flush()
        await conn.delivered()
        delivered.set()
        await conn.wait_closed()

    async with serve(handler, transport=transport) as server:
        client = await Client.open(server)
        sid = (await client.greet()).sid
        assert [(await client.data()).seq for _ in range(10)] == list(range(1, 11))
        await client.say(Ack(2, 0))
        await client.abort()
        client = await Client.open(server)
        welcome = await client.greet(sid, rx=3)
        assert welcome.first <= 3
        assert (await client.data()).seq == 4
        await client.say(Ack(4, 0))
        assert [(await client.data()).seq for _ in range(6)] == list(range(5, 11))
        await client.say(Ack(1, 0))  # stale
        assert not delivered.is_set()
        await client.say(Ack(10, 0))
        async with asyncio.timeout(5):
            await delivered.wait()
        await client.abort()


@each_transport
async def test_case_06_the_last_acknowledgement_was_lost(transport: Any) -> None:
    delivered = asyncio.Event()

    async def handler(conn: Any) -> None:
        await conn.send("once")
        await conn.delivered()
        delivered.set()
        await conn.wait_closed()

    async with serve(handler, transport=transport) as server:
        client = await Client.open(server)
        sid = (await client.greet()).sid
        await client.data()
        await client.abort()  # taken, and not told
        client = await Client.open(server)
        await client.greet(sid, rx=1)
        frame = read(await client.ws.recv())
        assert isinstance(frame, Ack)
        assert frame.want == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.data()
        await client.say(Ack(1, 0))
        async with asyncio.timeout(5):
            await delivered.wait()
        await client.abort()


@each_transport
async def test_case_07_welcome_is_lost_and_the_same_session_is_tried_again(transport: Any) -> None:
    async with meeting(transport) as both:
        for number in range(40):
            await both.client.send(f"up {number}")
            await both.far.send(f"down {number}")
            await both.cut()
            both.relay.cut_after = 20 + 23 * number  # in the next opening handshake, in HELLO, in WELCOME, behind it
            assert await both.client.recv() == f"down {number}"
            assert await both.far.recv() == f"up {number}"
        assert len(both.handled) == 1
        assert both.relay.accepted > 60


@each_transport
async def test_case_08_a_client_that_comes_back_takes_over_from_its_half_open_socket(transport: Any) -> None:
    async with meeting(transport, ping_interval=0.1, ping_timeout=0.1, server={"close_timeout": 0.2}) as both:
        await both.client.send("before")
        assert await both.far.recv() == "before"
        both.relay.pause_those_that_are_open()
        old = both.far.transport
        await both.client.send("up")
        await both.far.send("down")
        began = time.monotonic()
        assert await both.client.recv() == "down"
        assert time.monotonic() - began < 2.5
        assert await both.far.recv() == "up"
        assert both.far.transport is not old
        await until(old.is_closing)
        assert len(both.handled) == 1


@each_transport
async def test_case_09_cut_before_the_first_message_after_an_idle_while_and_twice_without_traffic(
    transport: Any,
) -> None:
    async with meeting(transport) as both:
        await both.cut()
        await both.back()
        await both.client.send("first")
        assert await both.far.recv() == "first"
        await asyncio.sleep(0.3)
        for _ in range(2):
            await both.cut()
            await both.back()
        await both.far.send("second")
        assert await both.client.recv() == "second"
        assert both.resumed == 3


@each_transport
async def test_case_10_the_server_was_started_again_and_has_forgotten(transport: Any) -> None:
    rounds: list[Any] = []

    async def handler(conn: Any) -> None:
        await conn.send(f"round {len(rounds)}")
        await conn.wait_closed()

    server = await serve(handler, transport=transport)
    options: dict[str, Any] = {**QUICK, "transport": transport, "reconnect_delays": soon, "reliable": True}
    lost: list[SessionLost] = []
    async for conn in penstock.connect(url_of(server), **options):
        try:
            async for message in conn:
                rounds.append(message)
                if len(rounds) == 2:
                    break
                server._sessions._known.clear()  # type: ignore[union-attr]  # as a process that dies forgets
                conn.transport.abort()
        except SessionLost as exc:
            lost.append(exc)
            continue
        break
    await conn.close()
    server.close()
    await server.wait_closed()
    assert rounds == ["round 0", "round 1"]
    assert len(lost) == 1


@each_transport
async def test_case_11_a_full_session_without_a_socket_makes_its_senders_wait_and_no_other(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        if conn.request.path == "/echo":
            await echo(conn)
        else:
            await conn.wait_closed()

    async with meeting(transport, handler=handler) as both:
        far = both.far
        await both.away()
        async with penstock.connect(url_of(both.server, "/echo"), transport=transport, **QUICK) as other:
            counts = await asyncio.gather(fill(far), fill(both.client))
            for number in range(100):
                await other.send(str(number))
                assert await other.recv() == str(number)
            for end, count in zip((far, both.client), counts, strict=True):
                assert count * len(BIG) > 2**20 - len(BIG)
                assert end.outbox.transport.pending_bytes < 6 * 2**20
        both.return_()
        assert await take(both.client, counts[0]) == [BIG] * counts[0]
        assert await take(far, counts[1]) == [BIG] * counts[1]


@each_transport
async def test_case_12_a_backlog_larger_than_the_peers_frames_is_split(transport: Any) -> None:
    messages = [f"{number:05d}".ljust(number % 700) for number in range(2000)]
    async with meeting(transport, max_size=4096) as both:
        await both.away()
        await both.far.send_many(messages)
        both.return_()
        assert await take(both.client, 2000) == messages


@each_transport
async def test_case_13_messages_larger_than_window_frame_and_limit(transport: Any) -> None:
    async with meeting(transport, max_size=None, server={"max_size": None}) as both:
        for size in (3 * 2**20, 20 * 2**20):
            sending = asyncio.create_task(both.client.send("y" * size))
            await asyncio.sleep(0.01)
            await both.cut()
            received = await both.far.recv()
            assert len(received) == size
            assert set(received) == {"y"}
            await sending
    async with meeting(transport, max_size=5000, server={"max_size": 6000}) as both:
        await both.client.send(b"y" * 6000)
        assert await both.far.recv() == b"y" * 6000
        with pytest.raises(SerializationError, match="6001 bytes"):
            await both.client.send(b"y" * 6001)
        with pytest.raises(SerializationError, match="5002 bytes"):
            await both.far.send("é" * 2501)
        await both.client.send("usable")
        assert await both.far.recv() == "usable"


@pytest.mark.parametrize(
    ("poison", "code"),
    [
        (b"\xc1", 4900),
        (b"\x93\x00\x02\x91\xa1x", 4910),
        (b"\x93\x00\x01\x91\xa1\xff", 4907),
        (b"\x93\x00\x01\x90", 4900),
        (b"\x93\x03\x05\x00", 4900),
        (b"\x95\x01\x01\x01\xce\x7f\xff\xff\xff\xc4\x01x", 4913),
        ("text", 4900),
        (write(Hello(b"", 0, 1, 4096, 1, 0, 0)), 4900),
    ],
    ids=str,
)
@each_transport
async def test_case_14_a_poisoned_frame_ends_the_session_and_makes_no_loop(
    transport: Any, poison: Any, code: int
) -> None:
    closed: list[int | None] = []
    accepted = 0

    async def evil(ws: Any) -> None:
        nonlocal accepted
        accepted += 1
        await ws.recv()
        await ws.send(write(Welcome(b"s" * 32, 0, 0, 1, 2**20, 2**20, 0, 5000, 2**20, "")))
        await ws.send(poison)
        await ws.wait_closed()
        closed.append(ws.close_code)

    def promise(ws: Any, request: Any, response: Any) -> None:
        response.headers["Penstock"] = "v1"

    async with websockets.serve(evil, "127.0.0.1", 0, process_response=promise) as server:
        conn = await penstock.connect(url_of(server), transport=transport, reconnect_delays=soon, **QUICK)
        with pytest.raises(SessionLost):
            await conn.recv()
        await until(lambda: closed)
        await asyncio.sleep(0.05)
    assert closed == [code]
    assert accepted == 1


@each_transport
async def test_case_16_empty_messages_survive_and_an_empty_batch_is_never_sent(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        await conn.send_many([])
        await conn.flush()
        await conn.send_many(["", b""])
        await conn.send("")
        await conn.send(b"")
        await conn.flush()

    async with serve(handler, transport=transport) as server:
        client = await Client.open(server)
        await client.greet()
        counts, frame = [], read(await client.ws.recv())
        while not isinstance(frame, Bye):
            if isinstance(frame, Data):
                counts.append(count_of(frame.messages))
            frame = read(await client.ws.recv())
        assert sum(counts) == 4
        assert 0 not in counts
        await client.abort()
    async with meeting(transport) as both:
        await both.cut()
        await both.client.send_many(["", b"", "", b""])
        assert await take(both.far, 4) == ["", b"", "", b""]


@each_transport
async def test_case_17_a_lone_surrogate_raises_at_the_sender(transport: Any) -> None:
    async with meeting(transport) as both:
        for _ in range(2):  # as the first of its loop iteration, and behind another
            with pytest.raises(SerializationError):
                await both.client.send("bad \ud800")
            await both.client.send("good")
            with pytest.raises(SerializationError):
                await both.client.send_many(["fine", "bad \udfff", "never"])
        assert await take(both.far, 4) == ["good", "fine", "good", "fine"]


@each_transport
@pytest.mark.parametrize("hours", [-1, 1])
async def test_case_18_a_wall_clock_that_is_set_changes_nothing(
    transport: Any, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meeting(transport) as both:
        await both.away()
        set_to = time.time() + 3600 * hours
        monkeypatch.setattr(time, "time", lambda: set_to)
        await both.client.send("up")
        both.return_()
        assert await both.far.recv() == "up"
        await both.client.delivered()
        assert both.resumed == 1


@each_transport
async def test_case_19_flush_while_lingering_disconnected_and_closing(transport: Any) -> None:
    async with meeting(transport, batch=BatchConfig(batch_timeout=60)) as both:
        await both.client.send("lingering")
        await both.client.flush()
        assert await both.far.recv() == "lingering"
        await both.away()
        await both.client.send("kept")
        flushing = asyncio.create_task(both.client.flush())
        await asyncio.sleep(0.05)
        assert not flushing.done()
        both.return_()
        await flushing
        assert await both.far.recv() == "kept"
        await both.client.send("last")
        closing = asyncio.create_task(both.client.close())
        await steps(2)
        with pytest.raises(ConnectionClosed):
            await both.client.flush()
        await closing
        assert await both.far.recv() == "last"
        with pytest.raises(ConnectionClosedOK):
            await both.far.recv()


@each_transport
@pytest.mark.parametrize("detached", [False, True])
async def test_case_20_closing_while_a_send_is_blocked_loses_nothing(transport: Any, detached: bool) -> None:
    async with meeting(transport, batch=BatchConfig(max_pending_bytes=200_000), close_timeout=5) as both:
        if detached:
            await both.away()
        count = await fill(both.client)
        sending = [asyncio.create_task(both.client.send(f"{number}".ljust(90_000))) for number in range(20)]
        await steps(3)
        assert not sending[-1].done()
        closing = asyncio.create_task(both.client.close(4321, "done"))
        await asyncio.sleep(0.05)
        assert not closing.done()
        both.return_()
        assert await take(both.far, count) == [BIG] * count
        assert [int(message) for message in await take(both.far, 20)] == list(range(20))
        with pytest.raises(ConnectionClosed):
            await both.far.recv()
        assert both.far.close_code == 4321
        await closing
        await asyncio.gather(*sending)
        await both.client.delivered()


@each_transport
async def test_case_21_used_from_another_thread_it_says_so(transport: Any) -> None:
    async with meeting(transport) as both:
        failures: list[BaseException] = []

        def elsewhere() -> None:
            for call in (both.client.send("x"), both.client.send_many(["x"]), both.client.delivered()):
                try:
                    asyncio.run(call)
                except WrongLoop as exc:
                    failures.append(exc)

        for state in ("attached", "detached"):
            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.to_thread(thread.join)
            assert len(failures) == 3, state
            failures.clear()
            await both.away()


@each_transport
async def test_case_22_a_full_batch_behind_a_linger_goes_at_once(transport: Any) -> None:
    async with meeting(transport, batch=BatchConfig(batch_timeout=60, batch_bytes=50_000)) as both:
        await both.client.send("small")
        await both.client.send(BIG)
        async with asyncio.timeout(2):
            assert await take(both.far, 2) == ["small", BIG]


@each_transport
@pytest.mark.parametrize("seconds", [1.0, pytest.param(5.0, marks=pytest.mark.load)])
async def test_case_23_a_loop_that_is_held_up_declares_nothing_dead(transport: Any, seconds: float) -> None:
    short = {"ping_interval": 0.1, "ping_timeout": 0.1}
    async with meeting(transport, server=short, **short) as both:
        await both.client.send_many(numbers(100))
        await asyncio.sleep(0.12)
        time.sleep(seconds)  # noqa: ASYNC251 - the fault
        assert await take(both.far, 100) == numbers(100)
        await both.client.delivered()
        await asyncio.sleep(0.3)
        assert both.relay.accepted == 1
        await both.away()
        time.sleep(min(seconds, 4))  # noqa: ASYNC251 - the fault, while it is away
        both.return_()
        await both.far.send("still here")
        assert await both.client.recv() == "still here"
        assert len(both.handled) == 1
