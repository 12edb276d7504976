"""A session lives on over one socket after another: on both transports, on both event loops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.utils import accept_key

import penstock
from penstock.errors import DeliveryUnknown, SessionLost
from penstock.server.sessions import SessionConfig
from penstock.transport.base import ConnectionClosedError, ConnectionClosedOK
from support.servers import each_transport
from support.sessions import meeting, numbers, take, until

pytestmark = pytest.mark.timeout(30)

HASTY = {"sessions": SessionConfig(ttl=0.15), "open_timeout": 0.05}
FORGETFUL = {"sessions": SessionConfig(ttl=5, max_detached=0)}


@each_transport
@pytest.mark.parametrize("hard", [False, True])
async def test_a_break_is_a_delay_and_nothing_else(transport: Any, hard: bool) -> None:
    async with meeting(transport) as both:
        client, far = both.client, both.far
        waiting = asyncio.create_task(take(client, 4))
        for number in range(4):
            await client.send(f"up {number}")
            await far.send(f"down {number}")
            await both.cut(hard=hard)
            await both.back()
        assert await waiting == [f"down {number}" for number in range(4)]
        assert await take(far, 4) == [f"up {number}" for number in range(4)]
        await client.delivered()
        assert await (await client.ping()) >= 0
        assert both.client is client
        assert both.handled == [far]
        assert both.resumed == 4
        assert client.state.name == "OPEN"


@each_transport
async def test_what_is_sent_while_there_is_no_socket_arrives_in_order_from_both_ends(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.away()
        for number in range(500):
            await both.client.send(f"up {number}")
            await both.far.send(f"down {number}")
            if number % 50 == 0:
                await asyncio.sleep(0)
        assert both.client.is_detached
        both.return_()
        assert await take(both.far, 500) == [f"up {number}" for number in range(500)]
        assert await take(both.client, 500) == [f"down {number}" for number in range(500)]
        assert not both.client.is_detached


@each_transport
async def test_ping_and_pong_wait_for_a_socket(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.away()
        ping, pong = asyncio.create_task(both.client.ping()), asyncio.create_task(both.client.pong())
        await asyncio.sleep(0.02)
        assert not ping.done()
        assert not pong.done()
        both.return_()
        assert await (await ping) >= 0
        await pong


@each_transport
async def test_iterating_goes_on_over_breaks_and_ends_with_an_orderly_close(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        for number in range(300):
            await conn.send(str(number))
            await asyncio.sleep(0.0005)

    async with meeting(transport, handler=handler) as both:
        received = []
        async for message in both.client:
            received.append(message)
            if len(received) in (50, 100, 101, 200):
                both.relay.cut()
        assert received == numbers(300)
        assert both.client.close_code == 1000
        assert both.resumed >= 1  # two cuts may meet


@each_transport
async def test_delivered_waits_through_breaks_and_tells_the_truth(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.client.send_many(numbers(100))
        receipt = asyncio.create_task(both.client.delivered())
        await both.cut()
        await both.back()
        await asyncio.sleep(0.1)
        assert not receipt.done()
        await take(both.far, 99)
        await asyncio.sleep(0.1)
        assert not receipt.done()
        assert await both.far.recv() == "99"
        await both.cut()
        async with asyncio.timeout(5):
            while not receipt.done():
                await asyncio.sleep(0.01)
        receipt.result()


@each_transport
async def test_a_session_that_the_server_forgot_is_lost_at_both_ends_once(transport: Any) -> None:
    async with meeting(transport, server=HASTY) as both:
        await both.client.send("taken")
        assert await both.far.recv() == "taken"
        await both.client.delivered()
        await both.away()
        await both.client.send_many(["perhaps", b"lost"])
        await both.far.send("down")
        with pytest.raises(SessionLost, match="did not come back") as there:
            await both.far.recv()
        assert list(there.value.unacknowledged) == ["down"]
        receipt = asyncio.create_task(both.client.delivered())
        await asyncio.sleep(0)
        both.return_()
        with pytest.raises(SessionLost) as here:
            await both.client.recv()
        assert isinstance(here.value, ConnectionClosedError)
        assert list(here.value.unacknowledged) == ["perhaps", b"lost"]
        with pytest.raises(SessionLost):
            await receipt
        with pytest.raises(SessionLost):
            await both.client.send("late")
        assert both.client.state.name == "CLOSED"


@each_transport
async def test_resending_keeps_the_object_and_delivers_at_least_once(transport: Any) -> None:
    async with meeting(transport, server=FORGETFUL, on_session_lost="resend") as both:
        first = both.far
        await both.client.send("zero")
        assert await first.recv() == "zero"
        await both.client.delivered()
        both.relay.is_refusing = True
        await both.cut()
        await both.client.send_many(["one", b"two", "three" * 100_000])
        receipt = asyncio.create_task(both.client.delivered())
        both.return_()
        with pytest.raises(SessionLost):
            await first.recv()
        await until(lambda: len(both.handled) == 2)
        assert await take(both.far, 3) == ["one", b"two", "three" * 100_000]
        await receipt
        await both.far.send("hello again")
        assert await both.client.recv() == "hello again"


@each_transport
@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999, 1011])
@pytest.mark.parametrize("end", ["client", "server"])
async def test_code_and_reason_arrive_however_the_socket_fares(transport: Any, end: str, code: int) -> None:
    async with meeting(transport) as both:
        here, there = (both.client, both.far) if end == "client" else (both.far, both.client)
        await here.send("last")
        await both.cut()
        closing = asyncio.create_task(here.close(code, "why"))
        assert await there.recv() == "last"
        with pytest.raises(ConnectionClosedOK if code in (1000, 1001) else ConnectionClosedError) as closed:
            await there.recv()
        assert not isinstance(closed.value, SessionLost)
        await closing
        for conn in (here, there):
            assert (conn.close_code, conn.close_reason) == (code, "why")


@each_transport
async def test_both_may_close_at_once(transport: Any) -> None:
    for _ in range(10):
        async with meeting(transport) as both:
            await both.client.send("up")
            await both.far.send("down")
            await asyncio.gather(both.client.close(), both.far.close())
            assert both.client.close_code == both.far.close_code == 1000
            assert await both.far.recv() == "up"
            with pytest.raises(ConnectionClosedOK):
                await both.far.recv()


@each_transport
async def test_closing_waits_for_what_the_peer_has_not_taken(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.client.send_many(numbers(1000))
        closing = asyncio.create_task(both.client.close())
        await asyncio.sleep(0.05)
        assert [message async for message in both.far] == numbers(1000)
        await closing
        await both.client.delivered()


@each_transport
async def test_a_peer_that_closes_before_it_took_all_leaves_delivery_unknown(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.client.send("one")
        assert await both.far.recv() == "one"
        await both.client.delivered()
        await both.client.send("two")
        receipt = asyncio.create_task(both.client.delivered())
        await asyncio.sleep(0.05)
        await both.far.close()
        with pytest.raises(DeliveryUnknown) as unknown:
            await receipt
        assert list(unknown.value.unacknowledged) == ["two"]
        with pytest.raises(ConnectionClosedOK):
            await both.client.recv()
        with pytest.raises(DeliveryUnknown):
            await both.client.delivered()


@each_transport
async def test_no_resuming_means_that_a_break_raises_at_once(transport: Any) -> None:
    async with meeting(transport, resume=False) as both:
        receiving = asyncio.create_task(both.client.recv())
        await asyncio.sleep(0.01)
        both.relay.cut()
        with pytest.raises(SessionLost):
            await receiving
        assert both.relay.accepted == 1


@each_transport
async def test_a_socket_that_is_gone_right_after_its_handshake_does_not_end_the_session(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hasty = 0
    follow = penstock.connect._follow

    async def follow_and_linger(self: penstock.connect, offer: str | None) -> Any:
        inner = await follow(self, offer)
        await asyncio.sleep(0.01)  # as a loop that has much to do
        return inner

    async def agree_and_hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal hasty
        hasty += 1
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        key = next(
            line.split(":")[1].strip() for line in head.splitlines() if line.lower().startswith("sec-websocket-key")
        )
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nPenstock: v1\r\n"
            b"Sec-WebSocket-Accept: " + accept_key(key.strip()).encode() + b"\r\n\r\n"
        )
        writer.close()

    async with meeting(transport) as both, await asyncio.start_server(agree_and_hang_up, "127.0.0.1", 0) as server:
        target = both.relay.target
        both.relay.target = server.sockets[0].getsockname()[1]
        monkeypatch.setattr(penstock.connect, "_follow", follow_and_linger)
        both.relay.cut()
        await until(lambda: hasty >= 5)
        both.relay.target = target
        await both.client.send("still here")
        assert await both.far.recv() == "still here"
