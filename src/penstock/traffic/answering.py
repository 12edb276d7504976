"""A JSON-RPC server on the core of ``picows``: an answer to a call, an array of answers to an array. ``double`` is
answered with twice its parameter, ``count`` with what the server was asked since the last ``count``.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import picows
from msgspec import Struct
from msgspec.json import Decoder, Encoder


class _Call(Struct):
    id: int
    method: str
    params: list[int] = []


class _Answer(Struct):
    id: int
    result: int | dict[str, float]
    jsonrpc: str = "2.0"


_decode = Decoder(_Call | list[_Call]).decode
_encode = Encoder().encode


class Answerer(picows.WSListener):
    """One connection; all of a server count together."""

    calls = 0
    since = 0.0

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type is picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        elif frame.msg_type is picows.WSMsgType.TEXT:
            asked = _decode(frame.get_payload_as_bytes())
            answers = [self._answer(call) for call in asked] if isinstance(asked, list) else self._answer(asked)
            transport.send(picows.WSMsgType.TEXT, _encode(answers))

    @classmethod
    def _answer(cls, call: _Call) -> _Answer:
        if call.method == "double":
            cls.calls += 1
            return _Answer(call.id, 2 * call.params[0])
        calls, since, now = cls.calls, cls.since, time.process_time()
        cls.calls, cls.since = 0, now
        return _Answer(call.id, {"calls": calls, "cpu": now - since})


@asynccontextmanager
async def serve_calls() -> AsyncIterator[int]:
    """Serve on the core of ``picows``."""
    server = await picows.ws_create_server(lambda _: Answerer(), "127.0.0.1", 0, enable_auto_pong=True)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
