"""The JavaScript client in a browser, on a page that the server itself serves."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

from clients.chromium import page
from clients.node import CLIENT
from clients.relay import relay
from support.servers import port_of, serving
from websockets.datastructures import Headers
from websockets.http11 import Response

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


def _serve_files(connection: Any, request: Any) -> Response | None:
    files = {"/page.html": (PAGE, "text/html"), "/penstock.js": ((CLIENT / "penstock.js").read_text(), "text/javascript")}
    if request.headers.get("Upgrade"):
        return None
    body, kind = files[request.path]
    headers = Headers({"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body.encode()))})
    headers["Connection"] = "close"
    return Response(HTTPStatus.OK, "OK", headers, body.encode())


async def test_a_page_gets_every_echo_once_and_in_order_through_a_connection_that_is_cut(tmp_path: Path) -> None:
    async def echo(conn: Any) -> None:
        arrived = 0
        async for message in conn:
            if message == "bye":
                break
            arrived += 1
            await conn.send(message)
            if arrived in (1000, 3000):
                await between.cut_the_one()
        await conn.delivered()
        await conn.close(1000, "seen")

    async with (
        serving("penstock-picows", echo, process_request=_serve_files, subprotocols=["chat"]) as server,
        relay(port_of(server)) as between,
        page(f"http://127.0.0.1:{between.port}/page.html", tmp_path / "profile") as shown,
    ):
        async with asyncio.timeout(20):
            while not (result := await shown.evaluate("document.querySelector('#result')?.textContent")):
                await asyncio.sleep(0.05)
        complaints = shown.complaints
    said = json.loads(result)
    events = said.pop("events")
    assert said == {
        "reliable": True,
        "protocol": "chat",
        "inOrder": True,
        "binary": True,
        "end": "ConnectionClosed: connection closed: 1000 seen",
    }
    assert events == ["detach", "resume"] * 2 + ["close"]
    assert complaints == []
