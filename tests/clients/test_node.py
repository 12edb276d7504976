"""The JavaScript client in Node, with real servers."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Any

import pytest
import websockets

import penstock
from clients.node import CLIENT, node, run
from support.relay import relaying
from support.servers import each_transport, echo, port_of, serving, url_of
from support.waiting import until

ECHO = """
    const [url, count] = [args[0], Number(args[1])];
    const events = [];
    const conn = await penstock.connect(url, { reconnectDelays: [10], reliable: true });
    for (const type of ["detach", "resume"]) conn.addEventListener(type, () => events.push(type));
    const content = (i) => (i % 100 === 99 ? new Uint8Array(i % 5000).fill(i) : `message ${i} ü`);
    const reading = (async () => {
      let next = 0;
      for await (const message of conn) {
        const expected = content(next);
        if (String(message) !== String(expected)) throw new Error(`${next}: ${message}`);
        next++;
      }
      return next;
    })();
    for (let i = 0; i < count; i++) await conn.send(content(i));
    await conn.send("x".repeat(300_000));
    await conn.delivered();
    await conn.send("bye");
    console.log(JSON.stringify({ read: await reading.catch(String), closed: String(await conn.closed), events }));
"""


@each_transport
async def test_every_message_is_echoed_once_and_in_order_through_a_connection_that_is_cut(transport: str) -> None:
    closed = asyncio.get_running_loop().create_future()
    count, handlers = 20_000, 0

    async def echo_and_close(conn: Any) -> None:
        nonlocal handlers
        handlers += 1
        arrived = 0
        async for message in conn:
            if message == "bye":
                break
            arrived += 1
            if len(message) < 300_000:
                await conn.send(message)
            if arrived % 3000 == 0:
                await conn.delivered()  # so that it is there
                between.cut(hard=True)
        await conn.delivered()
        await conn.close(1000, "seen")
        closed.set_result(arrived)

    async with (
        serving(f"penstock-{transport}", echo_and_close) as server,
        relaying(port_of(server)) as between,
    ):
        said = await run(ECHO, between.url, str(count))
        assert await closed == count + 1
    assert said["read"] == count
    assert said["events"] == ["detach", "resume"] * 6
    assert said["closed"] == "ConnectionClosed: connection closed: 1000 seen"
    assert handlers == 1


async def test_what_the_server_sends_while_the_client_is_away_arrives() -> None:
    async def count_up(conn: Any) -> None:
        for number in range(3000):
            await conn.send(str(number))
            if number % 1000 == 500:
                await conn.delivered()
                between.cut(hard=True)
        await conn.delivered()

    async with serving("penstock-picows", count_up) as server, relaying(port_of(server)) as between:
        said = await run(
            """
            const read = [];
            for await (const message of await penstock.connect(args[0], { reconnectDelays: [10] })) read.push(message);
            console.log(JSON.stringify(read));
            """,
            between.url,
        )
    assert said == [str(number) for number in range(3000)]


async def test_the_client_closes_in_order_and_its_subprotocol_is_the_applications() -> None:
    seen: list[Any] = []

    async def handler(conn: Any) -> None:
        seen.extend((conn.subprotocol, conn.is_reliable))
        seen.extend([message async for message in conn])
        seen.append((conn.close_code, conn.close_reason))

    async with serving("penstock-picows", handler, subprotocols=["chat"]) as server:
        said = await run(
            """
            const conn = await penstock.connect(args[0], { protocols: ["other", "chat"] });
            conn.send("last");
            await conn.close(1000, "enough");
            console.log(JSON.stringify(conn.protocol));
            """,
            url_of(server),
        )
        await until(lambda: len(seen) == 4)
    assert said == "chat"
    assert seen == ["chat", True, "last", (1000, "enough")]


async def test_a_server_that_restarted_has_lost_the_session_and_the_client_says_what_with_it() -> None:
    async def deaf(conn: Any) -> None:
        await conn.wait_closed()

    async with serving("penstock-picows", deaf) as server, relaying(port_of(server)) as between:
        source = """
            const conn = await penstock.connect(args[0], { reconnectDelays: [10] });
            for (const message of ["a", "b"]) await conn.send(message);
            const error = await conn.delivered().catch((error) => error);
            console.log(JSON.stringify([error?.name, error?.unacknowledged]));
        """
        running = asyncio.create_task(run(source, between.url))
        await until(lambda: len(server.connections) == 1)
        await asyncio.sleep(0.1)
        async with serving("penstock-picows", echo) as another:
            between.target = port_of(another)
            between.cut(hard=True)
            assert await running == ["SessionLost", ["a", "b"]]


# Servers that do not speak it


@pytest.mark.parametrize("subprotocols", [None, ["chat"]])
@pytest.mark.parametrize("kind", ["websockets", "penstock-picows"])
async def test_other_servers_are_spoken_to_in_plain_frames(kind: str, subprotocols: Any) -> None:
    options = {"reliable": False} if kind != "websockets" else {}
    async with serving(kind, subprotocols=subprotocols, **options) as server:
        said = await run(
            """
            const [url, protocols] = [args[0], JSON.parse(args[1])];
            const conn = await penstock.connect(url, { protocols });
            const refused = await penstock.connect(url, { protocols, reliable: true }).catch((error) => error.name);
            await conn.send("text");
            await conn.send(new Uint8Array([1, 2, 3]));
            const echoes = [await conn.recv(), [...(await conn.recv())]];
            const unknown = await conn.delivered().catch((error) => error.name);
            await conn.close(1000, "enough");
            const end = String(await conn.closed);
            console.log(JSON.stringify([conn.reliable, conn.protocol, refused, echoes, unknown, end]));
            """,
            url_of(server),
            '["chat"]' if subprotocols else "[]",
        )
    name = "chat" if subprotocols else ""
    refused = "EnvelopeRefused"
    assert said == [
        False,
        name,
        refused,
        ["text", [1, 2, 3]],
        refused,
        "ConnectionClosed: connection closed: 1000 enough",
    ]


async def test_nobody_there_is_an_error_and_the_process_ends() -> None:
    async with websockets.serve(echo, "127.0.0.1", 0) as server:
        url = url_of(server)
    said = await run(
        """
        const error = await penstock.connect(args[0]).catch((error) => error);
        console.log(JSON.stringify([error.name, error.code]));
        """,
        url,
        seconds=5,
    )
    assert said == ["ConnectionClosed", 1006]


def test_the_version_is_that_of_the_package() -> None:
    assert f'VERSION = "{penstock.__version__}"' in (CLIENT / "penstock.js").read_text()
    assert f'"version": "{penstock.__version__}"' in (CLIENT / "package.json").read_text()


def test_its_own_tests_pass() -> None:
    tests = sorted(str(path) for path in (CLIENT / "test").glob("*.test.js"))
    done = subprocess.run([*node(), "--test", *tests], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
