"""Sessions at the edges: waiting, cancelling, watching, giving up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import penstock
from penstock import BatchConfig
from penstock.errors import DeliveryUnknown, SessionLost
from penstock.server.sessions import SessionConfig
from penstock.transport.base import ConnectionClosed, ConnectionClosedOK
from support.ends import cancelled, steps
from support.resources import Resources
from support.servers import each_transport, serving, url_of
from support.sessions import meeting, numbers, take, until

pytestmark = pytest.mark.timeout(30)

BIG = "x" * 100_000


@each_transport
async def test_two_ends_that_only_send_are_parted_by_send_timeout(transport: Any) -> None:
    async def push(conn: Any) -> int:
        count = 0
        try:
            while True:
                await conn.send(f"{count:06d}{BIG}")
                count += 1
        except TimeoutError:
            return count

    async with meeting(transport, send_timeout=0.2) as both:
        both.far.outbox.send_timeout = 0.2
        up, down = await asyncio.gather(push(both.client), push(both.far))
        assert [int(message[:6]) for message in await take(both.far, up)] == list(range(up))
        assert [int(message[:6]) for message in await take(both.client, down)] == list(range(down))


@each_transport
async def test_who_watches_is_told_of_each_detachment_and_once_of_the_end(transport: Any) -> None:
    told: list[str] = []
    async with meeting(transport) as both:
        both.client.watch(
            on_end=lambda: told.append("end"), on_full=lambda: True, on_detached=lambda: told.append("detached")
        )
        assert not both.client.is_detached
        await both.away()
        assert both.client.is_detached
        assert told == ["detached"]
        both.return_()
        await both.back()
        await both.cut()
        await both.back()
        assert told == ["detached", "detached"]
        await both.client.close()
        assert not both.client.is_detached
        assert told == ["detached", "detached", "end"]


async def test_a_plain_connection_is_never_detached() -> None:
    async with serving() as server, penstock.connect(url_of(server)) as conn:
        conn.watch(on_end=lambda: None, on_full=lambda: True, on_detached=lambda: None)
        assert not conn.is_detached


@each_transport
async def test_an_on_resume_that_raises_harms_nothing_and_is_logged(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise LookupError

    async with meeting(transport, on_resume=broken) as both:
        await both.away()
        both.return_()
        await both.back()
        await both.client.send("x")
        assert await both.far.recv() == "x"
    assert "on_resume failed" in caplog.text


@each_transport
async def test_delays_that_end_end_the_attempts(transport: Any) -> None:
    async with meeting(transport, reconnect_delays=lambda: iter([0.01])) as both:
        both.relay.is_refusing = True
        both.relay.cut()
        with pytest.raises(SessionLost, match="no delay is left"):
            await both.client.recv()
        assert both.relay.accepted == 3


@each_transport
async def test_a_cancelled_delivered_leaves_the_others_waiting(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.client.send("one")
        first = asyncio.create_task(both.client.delivered())
        await steps(3)
        await both.client.send("two")
        second, third = asyncio.create_task(both.client.delivered()), asyncio.create_task(both.client.delivered())
        await steps(3)
        assert await cancelled(second)
        assert await take(both.far, 2) == ["one", "two"]
        receiving = asyncio.create_task(both.far.recv())
        async with asyncio.timeout(0.04):  # sooner than acknowledgements come by themselves
            await asyncio.gather(first, third)
        assert await cancelled(receiving)


@each_transport
async def test_closing_without_a_socket_ends_in_time_and_tells_what_was_not_delivered(transport: Any) -> None:
    async with meeting(transport, close_timeout=0.2) as both:
        await both.away()
        await both.client.send("never")
        receipt = asyncio.create_task(both.client.delivered())
        await steps(2)
        began = asyncio.get_running_loop().time()
        await both.client.close()
        assert asyncio.get_running_loop().time() - began < 0.5
        with pytest.raises(SessionLost) as lost:
            await receipt
        assert list(lost.value.unacknowledged) == ["never"]


@each_transport
async def test_closing_a_session_with_frames_that_the_window_holds_back_sends_them_first(transport: Any) -> None:
    """BYE goes behind the last frame, though that has to wait until the peer has taken others."""
    messages = [f"{number:03d}{BIG}" for number in range(40)]
    async with meeting(transport, batch=BatchConfig(max_pending_bytes=5_000_000), close_timeout=5) as both:
        await both.client.send_many(messages)
        closing = asyncio.create_task(both.client.close())
        await asyncio.sleep(0.05)
        await both.cut()
        assert [message async for message in both.far] == messages
        await closing
        assert both.client.close_code == both.far.close_code == 1000
        await both.client.delivered()


@each_transport
async def test_a_peer_that_never_has_room_loses_the_session_when_close_gives_up(transport: Any) -> None:
    async with meeting(transport, batch=BatchConfig(max_pending_bytes=5_000_000), close_timeout=0.2) as both:
        await both.client.send_many([BIG] * 40)
        await both.client.close()
        with pytest.raises(SessionLost) as lost:
            await both.client.delivered()
        assert len(lost.value.unacknowledged) == 40


@each_transport
async def test_a_peer_that_takes_nothing_does_not_keep_close_waiting(transport: Any) -> None:
    async with meeting(transport, close_timeout=0.2) as both:
        await both.client.send("unread")
        began = asyncio.get_running_loop().time()
        await both.client.close()
        assert asyncio.get_running_loop().time() - began < 0.5
        with pytest.raises(DeliveryUnknown):
            await both.client.delivered()
        assert await both.far.recv() == "unread"
        with pytest.raises(ConnectionClosedOK):
            await both.far.recv()


@each_transport
async def test_an_application_that_reads_nothing_costs_no_timer(transport: Any) -> None:
    async with meeting(transport) as both:
        await both.client.send_many(numbers(10))
        await until(lambda: both.far.unread == 10)
        await asyncio.sleep(0.2)
        taking = both.far._transport._taking
        assert taking._timer is None
        receipt = asyncio.create_task(both.client.delivered())
        assert [message for _ in range(10) if (message := await both.far.recv())] == numbers(10)
        await asyncio.sleep(0.15)
        assert receipt.done()
        await both.away()
        assert await asyncio.sleep(0.12, taking._timer is None)


Call = Callable[[Any], Awaitable[Any]]
CALLS: dict[str, Call] = {
    "send": lambda conn: conn.send("s"),
    "send_many": lambda conn: conn.send_many(["m"] * 300),
    "fragments": lambda conn: conn.send(["a", "b"]),
    "recv": lambda conn: conn.recv(),
    "flush": lambda conn: conn.flush(),
    "delivered": lambda conn: conn.delivered(),
    "ping": lambda conn: conn.ping(),
    "close": lambda conn: conn.close(),
}


@each_transport
@pytest.mark.parametrize("name", CALLS)
async def test_cancelling_at_any_moment_leaves_no_task_and_no_socket(transport: Any, name: str) -> None:
    chance = random.Random(name)
    before = Resources.now()
    for number in range(12):
        async with meeting(transport, close_timeout=0.03, server={"close_timeout": 0.03}) as both:
            await both.client.send("before")
            if number % 3 == 1:
                both.relay.cut()
            elif number % 3 == 2:
                await both.away()
            call = asyncio.ensure_future(CALLS[name](both.client))
            await steps(chance.randrange(15))
            call.cancel()
            await asyncio.wait([call], timeout=5)
            assert call.done()
            both.return_()
            if both.client.state.name == "OPEN":
                await both.client.send("after")
                assert await both.far.recv() == "before"
                await both.client.close(4000)
    await asyncio.sleep(0.02)
    after = Resources.now()
    assert after.tasks <= before.tasks
    assert after.descriptors <= before.descriptors


@each_transport
async def test_a_session_is_reported_as_lost_once_to_everybody_who_waits(transport: Any) -> None:
    config = {"sessions": SessionConfig(ttl=5, max_detached=0)}
    async with meeting(transport, server=config) as both:
        ends: list[Any] = []
        both.client.watch(on_end=lambda: ends.append("end"), on_full=lambda: True)
        waiting = [asyncio.create_task(both.client.recv()), asyncio.create_task(both.client.wait_closed())]
        await both.client.send("x")
        waiting.append(asyncio.create_task(both.client.delivered()))
        both.relay.cut()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [SessionLost, type(None), SessionLost]
        assert ends == ["end"]
        with pytest.raises(ConnectionClosed):
            await both.client.ping()
