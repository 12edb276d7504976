"""The JavaScript client in a browser, on a page that the server itself serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Response

from clients.chromium import Page, page
from clients.node import CLIENT
from support.relay import relaying
from support.servers import port_of, serving

PAGE = """<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<title>penstock</title>
<p id="result"></p>
<script type="module">
  import { connect } from "./penstock.js";
  const events = [];
  const conn = await connect(`ws://${location.host}/`, { reconnectDelays: [10], protocols: "chat" });
  for (const type of ["detach", "resume", "close"]) conn.addEventListener(type, () => events.push(type));
  const reading = (async () => {
    const echoes = [];
    for await (const message of conn) echoes.push(message);
    return echoes;
  })();
  const count = 5000;
  for (let i = 0; i < count; i++) await conn.send(`message ${i} ü`);
  await conn.send(new Uint8Array(200_000).fill(7));
  await conn.delivered();
  await conn.send("bye");
  const echoes = await reading;
  const last = echoes.pop();
  const inOrder = echoes.length === count && echoes.every((echo, i) => echo === `message ${i} ü`);
  const binary = last instanceof Uint8Array && last.length === 200_000 && last.every((byte) => byte === 7);
  const end = String(await conn.closed);
  document.querySelector("#result").textContent =
    JSON.stringify({ reliable: conn.reliable, protocol: conn.protocol, inOrder, binary, events, end });
</script>
"""


PLAIN = """<!doctype html>
<meta charset="utf-8">
<link rel="icon" href="data:,">
<p id="result"></p>
<script type="module">
  import { connect } from "./penstock.js";
  const url = `ws://${location.host}/`;
  const refused = await connect(url, { reliable: true }).catch((error) => error.name);
  const conn = await connect(url);
  await conn.send("hello");
  const echo = await conn.recv();
  await conn.close(4001, "enough");
  const { code, reason } = await conn.closed;
  document.querySelector("#result").textContent =
    JSON.stringify([refused, conn.reliable, echo, code, reason]);
</script>
"""


def _files(html: str) -> Callable[[Any, Any], Response | None]:
    """Serves the page, and the client for it to import, beside WebSocket connections."""
    client = (CLIENT / "penstock.js").read_text()
    files = {"/page.html": (html, "text/html"), "/penstock.js": (client, "text/javascript")}

    def process_request(connection: Any, request: Any) -> Response | None:
        if request.headers.get("Upgrade"):
            return None
        text, kind = files[request.path]
        body = text.encode()
        headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
        return Response(HTTPStatus.OK, "OK", headers, body)

    return process_request


async def _result(shown: Page) -> Any:
    async with asyncio.timeout(20):
        while not (text := await shown.evaluate("document.querySelector('#result')?.textContent")):
            await asyncio.sleep(0.05)
    return json.loads(text)


async def test_a_page_gets_every_echo_once_and_in_order_through_a_connection_that_is_cut(tmp_path: Path) -> None:
    async def echo(conn: Any) -> None:
        arrived = 0
        async for message in conn:
            if message == "bye":
                break
            arrived += 1
            await conn.send(message)
            if arrived in (1000, 3000):
                await conn.delivered()  # so that it is there
                between.cut(hard=True)
        await conn.delivered()
        await conn.close(1000, "seen")

    async with (
        serving("penstock-picows", echo, process_request=_files(PAGE), subprotocols=["chat"]) as server,
        relaying(port_of(server)) as between,
        page(f"http://127.0.0.1:{between.port}/page.html", tmp_path / "profile") as shown,
    ):
        said = await _result(shown)
        assert shown.complaints == []
    events = said.pop("events")
    assert said == {
        "reliable": True,
        "protocol": "chat",
        "inOrder": True,
        "binary": True,
        "end": "ConnectionClosed: connection closed: 1000 seen",
    }
    assert events == ["detach", "resume"] * 2 + ["close"]


async def test_a_server_that_does_not_know_the_envelope_is_spoken_to_in_plain_frames(tmp_path: Path) -> None:
    async with (
        serving("websockets", process_request=_files(PLAIN)) as server,
        page(f"http://127.0.0.1:{port_of(server)}/page.html", tmp_path / "profile") as shown,
    ):
        assert await _result(shown) == ["EnvelopeRefused", False, "hello", 4001, "enough"]
        assert all("response was received" in complaint for complaint in shown.complaints)  # one for each attempt
