"""A page in headless Chromium, driven over its debugging protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import websockets

_OPTIONS = ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-port=0")


class Page:
    """What it shows and complains of."""

    def __init__(self, devtools: Any) -> None:
        self.complaints: list[str] = []
        """What the console says, exceptions that nobody caught, and what could not be loaded."""
        self.requests: list[str] = []
        """Where it went for what it shows, WebSockets among them."""
        self._devtools = devtools
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}

    async def call(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._devtools.send(json.dumps({"id": number, "method": method, "params": parameters}))
        return await answer

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, awaited if it is a promise."""
        said = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def listen(self) -> None:
        async for said in self._devtools:
            event = json.loads(said)
            if "id" in event:
                self._answers.pop(event["id"]).set_result(event.get("result"))
            elif event["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(event["params"]))
            elif event["method"] == "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            elif event["method"] == "Network.webSocketCreated":
                self.requests.append(event["params"]["url"])


@asynccontextmanager
async def page(url: str, home: Path) -> AsyncIterator[Page]:
    """Load ``url``; skips the test where Chromium is not installed."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()  # root may not have one
    process = await asyncio.create_subprocess_exec(
        program,
        *_OPTIONS,
        *sandbox,
        f"--user-data-dir={home}",
        "about:blank",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(20):
            while not (home / "DevToolsActivePort").is_file() or "\n" not in (home / "DevToolsActivePort").read_text():
                assert process.returncode is None, "chromium ended"
                await asyncio.sleep(0.02)
        port, path = (home / "DevToolsActivePort").read_text().split("\n")[:2]
        async with websockets.connect(f"ws://127.0.0.1:{port}{path}", proxy=None, max_size=None) as browser:
            await browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            targets = json.loads(await browser.recv())["result"]["targetInfos"]
            target = next(target["targetId"] for target in targets if target["type"] == "page")
        socket = f"ws://127.0.0.1:{port}/devtools/page/{target}"
        async with websockets.connect(socket, proxy=None, max_size=None) as devtools:
            this = Page(devtools)
            listening = asyncio.create_task(this.listen())
            for domain in ("Runtime", "Log", "Page", "Network"):
                await this.call(f"{domain}.enable")
            await this.call("Page.navigate", url=url)
            yield this
            listening.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
