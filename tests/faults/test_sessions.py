"""Sessions through real faults: random cuts, dead processes, silent networks. Exactly once, and in order."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import penstock
from penstock.errors import SessionLost
from penstock.server.sessions import SessionConfig
from support.processes import line_of, program
from support.relay import relaying
from support.servers import each_transport, echo, port_of
from support.sessions import QUICK, meeting, numbers, soon, take, until

pytestmark = pytest.mark.timeout(300)

SERVER = """
    import asyncio, sys, penstock
    from penstock.server.sessions import SessionConfig
    from support.servers import echo, port_of

    async def main():
        options = {"ping_interval": None, "open_timeout": 0.5, "sessions": SessionConfig(ttl=1)}
        async with penstock.serve(echo, "127.0.0.1", int(sys.argv[2]), transport=sys.argv[1], **options) as server:
            print(port_of(server), flush=True)
            await server.serve_forever()

    asyncio.run(main())
"""

CLIENT = """
    import asyncio, sys, penstock

    async def main():
        async with penstock.connect(sys.argv[1], transport=sys.argv[2], reliable=True) as conn:
            await conn.send("here")
            await conn.delivered()
            print("here", flush=True)
            await conn.recv()

    asyncio.run(main())
"""


def message(number: int) -> str | bytes:
    """Of both kinds and many sizes."""
    text = str(number).ljust(number * 7919 % 90)
    return text if number % 3 else text.encode()


async def send_all(conn: Any, count: int) -> None:
    for number in range(count):
        await conn.send(message(number))
        if number % 40 == 0:
            await asyncio.sleep(0)
    await conn.delivered()


@pytest.mark.parametrize(("count", "cuts"), [(6000, 12), pytest.param(60_000, 60, marks=pytest.mark.load)])
@each_transport
async def test_case_24_cut_at_random_bytes_everything_arrives_once_and_in_order_both_ways(
    transport: Any, count: int, cuts: int
) -> None:
    chance = random.Random(cuts)
    async with meeting(transport, seconds=250, compression="deflate" if cuts == 12 else None) as both:
        done = asyncio.gather(
            send_all(both.client, count),
            send_all(both.far, count),
            take(both.far, count),
            take(both.client, count),
        )

        async def cut() -> None:
            for _ in range(cuts):
                both.relay.cut_after = chance.randrange(1, count * 15 // cuts)
                accepted = both.relay.accepted
                async with asyncio.timeout(20):
                    while both.relay.accepted == accepted and not done.done():
                        await asyncio.sleep(0.001)

        cutting = asyncio.create_task(cut())
        results = await done
        await cutting
        expected = [message(number) for number in range(count)]
        assert results[2] == expected
        assert results[3] == expected
        assert len(both.handled) == 1
        assert both.resumed >= cuts // 2


@pytest.mark.parametrize("start", range(0, 1200, 300))
@each_transport
async def test_case_24_cut_at_every_seventh_byte_of_a_stream(transport: Any, start: int) -> None:
    async with meeting(transport, seconds=60) as both:
        for turn, position in enumerate(range(start + 1, start + 301, 7)):
            both.relay.cut_after = position
            await both.client.send(message(turn))
            await both.far.send(message(turn))
            assert await both.far.recv() == await both.client.recv() == message(turn)
        assert len(both.handled) == 1


@each_transport
async def test_a_server_that_was_killed_and_started_again_has_lost_the_session(transport: Any) -> None:
    async with program(SERVER, transport, "0") as first:
        port = await line_of(first)
        conn = await penstock.connect(
            f"ws://127.0.0.1:{port}/", transport=transport, reliable=True, reconnect_delays=soon, **QUICK
        )
        await conn.send("one")
        assert await conn.recv() == "one"
        await conn.delivered()
        first.kill()
        await first.wait()
        await conn.send("two")
        async with program(SERVER, transport, port) as second:
            await line_of(second)
            with pytest.raises(SessionLost) as lost:
                await conn.recv()
            assert list(lost.value.unacknowledged) == ["two"]
        await conn.close()


@each_transport
async def test_a_server_that_was_killed_and_stays_away_is_reported_after_the_time_to_live(transport: Any) -> None:
    async with program(SERVER, transport, "0") as server:
        url = f"ws://127.0.0.1:{await line_of(server)}/"
        async with penstock.connect(url, transport=transport, reliable=True, reconnect_delays=soon, **QUICK) as conn:
            server.kill()
            began = asyncio.get_running_loop().time()
            with pytest.raises(SessionLost, match="could not be reached"):
                await conn.recv()
            assert 0.8 < asyncio.get_running_loop().time() - began < 3


@each_transport
async def test_a_client_that_was_killed_is_reported_after_the_time_to_live(transport: Any) -> None:
    lost: list[Any] = []

    async def handler(conn: Any) -> None:
        try:
            await conn.recv()
            await conn.recv()
        except SessionLost as exc:
            lost.append(exc)

    options: dict[str, Any] = {**QUICK, "open_timeout": 0.3, "sessions": SessionConfig(ttl=0.4)}
    async with penstock.serve(handler, "127.0.0.1", 0, transport=transport, **options) as server:
        async with program(CLIENT, f"ws://127.0.0.1:{port_of(server)}/", transport) as client:
            assert await line_of(client) == "here"
            client.kill()
            await until(lambda: lost)
        assert "did not come back" in str(lost[0])
        assert len(lost) == 1


@pytest.mark.parametrize("seconds", [0.6, pytest.param(20.0, marks=pytest.mark.load)])
@each_transport
async def test_a_network_that_is_silent_for_a_while(transport: Any, seconds: float) -> None:
    short = {"ping_interval": seconds / 6, "ping_timeout": seconds / 6}
    config = {"sessions": SessionConfig(ttl=60), "open_timeout": 1, **short}
    async with meeting(transport, server=config, seconds=60, **{**short, "open_timeout": 0.5}) as both:
        for end in (both.client, both.far):
            await end.send("before")
        both.relay.pause()
        for end in (both.client, both.far):
            await end.send_many(numbers(100))
        await asyncio.sleep(seconds)
        both.relay.go_on()
        for end in (both.client, both.far):
            assert await take(end, 101) == ["before", *numbers(100)]
        assert len(both.handled) == 1


@pytest.mark.parametrize("count", [30, pytest.param(100, marks=pytest.mark.load)])
@each_transport
async def test_many_sessions_cut_at_once_are_all_resumed(transport: Any, count: int) -> None:
    resumed = 0

    def on_resume() -> None:
        nonlocal resumed
        resumed += 1

    async with (
        penstock.serve(echo, "127.0.0.1", 0, transport=transport, **QUICK, sessions=SessionConfig(ttl=20)) as server,
        relaying(port_of(server)) as relay,
    ):
        options: dict[str, Any] = {**QUICK, "open_timeout": 10, "on_resume": on_resume, "reconnect_delays": soon}
        conns = [await penstock.connect(relay.url, transport=transport, **options) for _ in range(count)]
        for turn in range(3):
            await asyncio.gather(*(conn.send(f"{turn}.{index}") for index, conn in enumerate(conns)))
            relay.cut()
            async with asyncio.timeout(30):
                assert await asyncio.gather(*(conn.recv() for conn in conns)) == [
                    f"{turn}.{index}" for index in range(count)
                ]
        assert resumed >= 2 * count
        await asyncio.gather(*(conn.close() for conn in conns))
