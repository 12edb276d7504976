"""From the handler's start to the server's end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import websockets
from websockets import ConnectionClosedError, ConnectionClosedOK, InvalidStatus

import penstock
from support.peers import ask, request
from support.servers import TRANSPORTS, echo, port_of, url_of
from support.waiting import until

pytestmark = [pytest.mark.timeout(20), pytest.mark.parametrize("transport", TRANSPORTS)]


def serve(handler: Any, transport: Any, **options: Any) -> Any:
    return penstock.serve(handler, "127.0.0.1", 0, transport=transport, **options)


async def waiting(conn: Any) -> None:
    await conn.wait_closed()


# The handler


async def test_a_handler_that_returns_closes_with_1000(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        await conn.send("bye")

    async with serve(handler, transport) as server, websockets.connect(url_of(server)) as client:
        assert [message async for message in client] == ["bye"]
    assert client.close_code == 1000


async def test_a_handler_that_raises_closes_with_1011_and_is_logged(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(conn: Any) -> None:
        raise LookupError("what the handler said")

    async with serve(handler, transport) as server, websockets.connect(url_of(server)) as client:
        with pytest.raises(ConnectionClosedError):
            await client.recv()
        assert client.close_code == 1011
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "handler failed" in record.getMessage()
    assert record.exc_info is not None
    assert "what the handler said" in str(record.exc_info[1])


async def test_a_handler_that_is_no_coroutine_function_is_told_so(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(lambda conn: None, transport) as server, websockets.connect(url_of(server)) as client:
        with pytest.raises(ConnectionClosedError):
            await client.recv()
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None
    assert "handler must be a coroutine function: <function" in str(record.exc_info[1])
    assert str(record.exc_info[1]).endswith("returned None")


async def test_a_handler_may_return_any_awaitable(transport: Any) -> None:
    def handler(conn: Any) -> asyncio.Task[None]:
        return asyncio.ensure_future(conn.send("bye"))

    async with serve(handler, transport) as server, websockets.connect(url_of(server)) as client:
        assert [message async for message in client] == ["bye"]


async def test_the_servers_logger_gets_what_the_handler_raises(
    transport: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(conn: Any) -> None:
        raise LookupError

    logger = logging.getLogger("my.server")
    async with serve(handler, transport, logger=logger) as server, websockets.connect(url_of(server)) as client:
        await client.wait_closed()
    assert "my.server" in {record.name for record in caplog.records if record.levelno >= logging.ERROR}


async def test_a_handler_may_close_with_a_code_of_its_own(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        await conn.close(4321, "because")

    async with serve(handler, transport) as server, websockets.connect(url_of(server)) as client:
        await client.wait_closed()
    assert (client.close_code, client.close_reason) == (4321, "because")


async def test_what_a_handler_sent_last_arrives(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        await conn.send_many([str(number) for number in range(1000)])

    async with serve(handler, transport) as server, websockets.connect(url_of(server)) as client:
        assert [message async for message in client] == [str(number) for number in range(1000)]


async def test_the_handler_sees_request_path_addresses_and_server(transport: Any) -> None:
    seen: list[Any] = []

    async def handler(conn: Any) -> None:
        seen.append((conn.request.path, conn.request.headers["X-Test"], conn.local_address, conn.remote_address))
        seen.append((conn.server, conn.response.status_code))

    async with serve(handler, transport) as server:
        url = url_of(server, "/some/path?q=1")
        async with websockets.connect(url, additional_headers={"X-Test": "yes"}) as client:
            await client.wait_closed()
            local = client.local_address
        assert seen[0] == ("/some/path?q=1", "yes", server.sockets[0].getsockname(), local)
        assert seen[1] == (server, 101)


async def test_handlers_run_side_by_side(transport: Any) -> None:
    async with serve(echo, transport) as server:
        clients = [await websockets.connect(url_of(server)) for _ in range(20)]
        await asyncio.gather(*(client.send(str(number)) for number, client in enumerate(clients)))
        assert [await client.recv() for client in clients] == [str(number) for number in range(20)]
        await asyncio.gather(*(client.close() for client in clients))


async def test_a_handler_goes_on_after_its_client_has_left(transport: Any) -> None:
    finished = asyncio.Event()

    async def handler(conn: Any) -> None:
        with pytest.raises(ConnectionClosedOK):
            await conn.recv()
        await asyncio.sleep(0)
        finished.set()

    async with serve(handler, transport) as server:
        async with websockets.connect(url_of(server)):
            pass
        async with asyncio.timeout(5):
            await finished.wait()


# Connections


async def test_connections_holds_those_that_are_open(transport: Any) -> None:
    async with serve(echo, transport) as server:
        assert server.connections == set()
        async with websockets.connect(url_of(server)) as one, websockets.connect(url_of(server)) as two:
            for client in (one, two):
                await client.send("x")
                await client.recv()
            assert len(server.connections) == 2
            penstock.broadcast(server.connections, "to all")
            assert [await client.recv() for client in (one, two)] == ["to all", "to all"]
            await one.close()
            await until(lambda: len(server.connections) == 1)
        await until(lambda: not server.connections)


# The server's end


async def test_closing_the_server_closes_connections_with_1001(transport: Any) -> None:
    async with serve(waiting, transport) as server:
        client = await websockets.connect(url_of(server))
        server.close()
        with pytest.raises(ConnectionClosedOK):
            await client.recv()
        await server.wait_closed()
    assert client.close_code == 1001


async def test_closing_the_server_may_tell_another_code_and_a_reason(transport: Any) -> None:
    async with serve(waiting, transport) as server:
        client = await websockets.connect(url_of(server))
        server.close(code=1012, reason="back soon")
        await client.wait_closed()
        await server.wait_closed()
    assert (client.close_code, client.close_reason) == (1012, "back soon")


async def test_closing_the_server_may_leave_connections_to_their_handlers(transport: Any) -> None:
    async with serve(echo, transport) as server:
        client = await websockets.connect(url_of(server))
        url = url_of(server)
        server.close(close_connections=False)
        await client.send("still here")
        assert await client.recv() == "still here"
        with pytest.raises(ConnectionRefusedError):
            await websockets.connect(url)
        closed = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0.02)
        assert not closed.done()
        await client.close()
        await closed


async def test_closing_twice_does_nothing_more(transport: Any) -> None:
    async with serve(waiting, transport) as server:
        client = await websockets.connect(url_of(server))
        server.close(code=4000)
        server.close(code=4001)
        await client.wait_closed()
        await server.wait_closed()
        server.close()
    assert client.close_code == 4000


async def test_wait_closed_waits_for_handlers(transport: Any) -> None:
    release, reached = asyncio.Event(), asyncio.Event()

    async def handler(conn: Any) -> None:
        await conn.wait_closed()
        reached.set()
        await release.wait()

    async with serve(handler, transport) as server:
        client = await websockets.connect(url_of(server))
        server.close()
        closed = asyncio.create_task(server.wait_closed())
        await client.wait_closed()
        await reached.wait()
        await asyncio.sleep(0.02)
        assert not closed.done()
        release.set()
        await closed


async def test_cancelling_wait_closed_does_not_harm_the_server(transport: Any) -> None:
    async with serve(echo, transport) as server:
        waiter = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        async with websockets.connect(url_of(server)) as client:
            await client.send("x")
            assert await client.recv() == "x"


async def test_messages_accepted_before_the_server_closed_arrive(transport: Any) -> None:
    async def handler(conn: Any) -> None:
        await conn.send_many(["m"] * 500)
        conn.server.close()
        await conn.wait_closed()

    async with serve(handler, transport) as server, websockets.connect(url_of(server)) as client:
        assert [message async for message in client] == ["m"] * 500


async def test_a_client_that_asks_while_the_server_closes_gets_503(transport: Any) -> None:
    release = asyncio.Event()

    async def handler(conn: Any) -> None:
        await conn.wait_closed()
        await release.wait()

    async with serve(handler, transport) as server:
        url = url_of(server)
        async with websockets.connect(url):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            await asyncio.sleep(0.02)  # accepted by the server, but has not asked yet
            server.close()
            await asyncio.sleep(0)
            writer.write(request())
            async with asyncio.timeout(5):
                assert (await reader.readline()).startswith(b"HTTP/1.1 503 ")
            writer.transport.abort()
            release.set()
        await server.wait_closed()


async def test_the_port_is_free_after_closing(transport: Any) -> None:
    async with serve(echo, transport) as server:
        port = port_of(server)
        async with websockets.connect(url_of(server)) as client:
            await client.close()
    async with penstock.serve(echo, "127.0.0.1", port, transport=transport) as again:
        assert port_of(again) == port


# serve_forever


async def test_cancelling_serve_forever_closes_the_server(transport: Any) -> None:
    server = await serve(waiting, transport)
    forever = asyncio.create_task(server.serve_forever())
    client = await websockets.connect(url_of(server))
    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        await forever
    assert not server.is_serving()
    await client.wait_closed()
    assert client.close_code == 1001
    await server.wait_closed()


async def test_closing_ends_serve_forever(transport: Any) -> None:
    server = await serve(waiting, transport)
    forever = asyncio.create_task(server.serve_forever())
    await asyncio.sleep(0)
    server.close()
    async with asyncio.timeout(5):
        await forever


async def test_serve_forever_starts_a_server_that_has_not_started(transport: Any) -> None:
    server = await serve(echo, transport, start_serving=False)
    assert not server.is_serving()
    forever = asyncio.create_task(server.serve_forever())
    await until(server.is_serving)
    async with websockets.connect(url_of(server)) as client:
        await client.send("x")
        assert await client.recv() == "x"
    server.close()
    await forever


async def test_start_serving_starts(transport: Any) -> None:
    async with serve(echo, transport, start_serving=False) as server:
        assert not server.is_serving()
        await server.start_serving()
        assert server.is_serving()
        async with websockets.connect(url_of(server)) as client:
            await client.send("x")
            assert await client.recv() == "x"


async def test_a_server_knows_its_loop_and_whether_it_serves(transport: Any) -> None:
    async with serve(echo, transport) as server:
        assert server.get_loop() is asyncio.get_running_loop()
        assert server.is_serving()
        assert [sock.getsockname()[0] for sock in server.sockets] == ["127.0.0.1"]
    assert not server.is_serving()
    assert server.sockets == ()


async def test_a_server_closed_without_a_client_is_closed_at_once(transport: Any) -> None:
    async with asyncio.timeout(2):
        async with serve(echo, transport):
            pass


async def test_awaiting_a_server_twice_gives_the_same(transport: Any) -> None:
    server = await serve(echo, transport)
    sockets = server.sockets
    async with server as same:
        assert same is server
        assert [sock.fileno() for sock in same.sockets] == [sock.fileno() for sock in sockets]


async def test_a_client_that_left_during_its_handshake_does_not_disturb(transport: Any) -> None:
    async with serve(echo, transport) as server:
        for sent in (b"", b"GET / HT", request()):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(sent)
            writer.transport.abort() if sent else writer.close()
        async with websockets.connect(url_of(server)) as client:
            await client.send("x")
            assert await client.recv() == "x"
        status, _, _ = await ask(port_of(server), request())
        assert status == 101


async def test_a_refused_client_is_not_among_the_connections(transport: Any) -> None:
    async with serve(echo, transport, origins=["https://example.org"]) as server:
        with pytest.raises(InvalidStatus):
            await websockets.connect(url_of(server))
        assert server.connections == set()


async def test_a_server_that_never_started_can_be_closed(transport: Any) -> None:
    server = penstock.serve(echo, "127.0.0.1", 0, transport=transport)
    assert server.sockets == ()
    assert not server.is_serving()
    server.close()
    async with asyncio.timeout(2):
        await server.wait_closed()
