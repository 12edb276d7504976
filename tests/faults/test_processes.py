"""The other process dies; or this one's event loop is held up, which is no reason to declare anybody dead."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from websockets import ConnectionClosed, ConnectionClosedError

import penstock
from support.processes import line_of, program
from support.servers import TRANSPORTS, each_transport, echo, port_of, url_of

pytestmark = pytest.mark.timeout(40)

CLIENT = """
    import asyncio, sys, penstock

    async def main():
        async with penstock.connect(sys.argv[1], transport=sys.argv[2]) as conn:
            await conn.recv()
            print("receiving", flush=True)
            async for _ in conn:
                pass

    asyncio.run(main())
"""

SERVER = """
    import asyncio, sys, penstock
    from support.servers import echo, port_of

    async def main():
        options = {"transport": sys.argv[1], "ping_interval": None, "reliable": False}
        async with penstock.serve(echo, "127.0.0.1", 0, **options) as server:
            print(port_of(server), flush=True)
            await server.serve_forever()

    asyncio.run(main())
"""


@each_transport
async def test_a_server_survives_the_death_of_a_client_that_it_sends_to(transport: Any) -> None:
    ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def handler(conn: Any) -> None:
        if conn.request.path == "/echo":
            await echo(conn)
            return
        try:
            while True:
                await conn.send("x" * 1000)
        except ConnectionClosed as exc:
            ended.set_result(exc)

    async with penstock.serve(handler, "127.0.0.1", 0, transport=transport, reliable=False) as server:
        async with program(CLIENT, url_of(server), transport) as client:
            assert await line_of(client) == "receiving"
            client.kill()
            async with asyncio.timeout(10):
                assert isinstance(await ended, ConnectionClosedError)
        async with penstock.connect(url_of(server, "/echo")) as conn:
            await conn.send("still here")
            assert await conn.recv() == "still here"


@each_transport
async def test_a_client_is_told_of_the_death_of_its_server(transport: Any) -> None:
    async with program(SERVER, transport) as server:
        conn = await penstock.connect(f"ws://127.0.0.1:{await line_of(server)}/", transport=transport)

        async def send() -> None:
            while True:
                await conn.send("x" * 1000)

        sender = asyncio.create_task(send())
        assert await conn.recv() == "x" * 1000
        server.kill()
        async with asyncio.timeout(10):
            with pytest.raises(ConnectionClosedError):
                assert {message async for message in conn} == {"x" * 1000}
            with pytest.raises(ConnectionClosedError):
                await sender
        assert conn.close_code == 1006


@each_transport
async def test_a_client_comes_back_to_a_server_that_was_started_again(transport: Any) -> None:
    received: list[Any] = []

    async def handler(conn: Any) -> None:
        await conn.send("hello")
        await conn.wait_closed()

    async with penstock.serve(handler, "127.0.0.1", 0, transport=transport, reliable=False) as server:
        port = port_of(server)
        openings = penstock.connect(
            url_of(server), transport=transport, reconnect_delays=lambda: iter([0.01] * 500)
        ).__aiter__()
        first = await anext(openings)
        received.append(await first.recv())
    second = asyncio.ensure_future(anext(openings))
    await asyncio.sleep(0.05)
    assert not second.done()
    async with penstock.serve(handler, "127.0.0.1", port, transport=transport, reliable=False):
        async with asyncio.timeout(10):
            received.append(await (await second).recv())
        await openings.aclose()  # type: ignore[attr-defined]
    assert received == ["hello", "hello"]


SHORT = {"ping_interval": 0.1, "ping_timeout": 0.1}


@pytest.mark.parametrize("server", TRANSPORTS)
@each_transport
async def test_a_loop_that_is_held_up_declares_nobody_dead(transport: Any, server: Any) -> None:
    async with program(SERVER, server) as other:
        url = f"ws://127.0.0.1:{await line_of(other)}/"
        async with penstock.connect(url, transport=transport, **SHORT) as conn:
            await asyncio.sleep(0.15)  # a ping is under way, or just answered
            time.sleep(1.0)  # noqa: ASYNC251 - the fault
            await asyncio.sleep(0.25)
            await conn.send("still here")
            assert await conn.recv() == "still here"


@each_transport
async def test_both_ends_on_a_loop_that_is_held_up_live_on(transport: Any) -> None:
    async with (
        penstock.serve(echo, "127.0.0.1", 0, transport=transport, reliable=False, **SHORT) as server,
        penstock.connect(url_of(server), transport=transport, **SHORT) as conn,
    ):
        for _ in range(3):
            await asyncio.sleep(0.12)
            time.sleep(0.4)  # noqa: ASYNC251 - the fault
        await conn.send("still here")
        assert await conn.recv() == "still here"


@each_transport
async def test_an_application_that_does_not_receive_is_not_taken_for_a_dead_peer(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        for number in range(200):
            await conn.send(str(number))
        await conn.wait_closed()

    async with (
        penstock.serve(handler, "127.0.0.1", 0, transport=transport, reliable=False) as server,
        penstock.connect(url_of(server), transport=transport, max_queue=4, **SHORT) as conn,
    ):
        await asyncio.sleep(0.7)
        assert [await conn.recv() for _ in range(200)] == [str(number) for number in range(200)]
        assert conn.state.name == "OPEN"
