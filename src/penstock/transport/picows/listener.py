"""Frames from ``picows`` to an endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import picows
from picows import WSFrame, WSListener, WSMsgType, WSTransport
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode

from penstock.transport.base import CloseCode, Options, State
from penstock.transport.endpoint import Endpoint
from penstock.transport.inbox import BadText

READ_BUFFER_BYTES = 2048
"""What a connection starts with; it grows with what arrives, so that a thousand idle ones stay small."""

logger = logging.getLogger("penstock.picows")
logger.setLevel(logging.CRITICAL)  # it reports as errors of its own what the peer did and an exception tells

_NO_LIMIT = 2**62
_TEXT, _BINARY = WSMsgType.TEXT, WSMsgType.BINARY
_looking: set[asyncio.Task[None]] = set()


def max_frame_size(options: Options) -> int:
    """Bytes that ``picows`` may take into memory for one frame."""
    return min((limit for limit in options.size_limits if limit is not None), default=_NO_LIMIT)


class Listener(WSListener):
    """Gets the frames of one connection from ``picows``."""

    def __init__(self, endpoint: Endpoint, opened: Callable[[], object] | None = None) -> None:
        self._endpoint = endpoint
        self._put = endpoint.inbox.put
        self._opened = opened

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._endpoint.opened(transport.underlying_transport)
        if self._opened is not None:
            self._opened()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if transport.is_close_frame_sent:
            return  # picows has found a frame that is none, and goes on to deliver it all the same
        kind = frame.msg_type
        if not frame.fin or frame.rsv1 or frame.rsv2 or frame.rsv3 or not self._endpoint.straight:
            self._endpoint.receive(_copied(frame))
        elif kind is _TEXT:
            try:
                text = frame.get_payload_as_utf8_text()
            except UnicodeDecodeError:
                self._put(BadText(frame.get_payload_as_bytes()))
            else:
                self._put(text)
        elif kind is _BINARY:
            self._put(frame.get_payload_as_bytes())
        else:
            self._endpoint.receive(_copied(frame))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if transport.is_close_frame_sent:
            self._adopt_failure(transport)
        self._endpoint.lost()

    def pause_writing(self) -> None:
        self._endpoint.pause_writing()

    def resume_writing(self) -> None:
        self._endpoint.resume_writing()

    def _adopt_failure(self, transport: WSTransport) -> None:
        """``picows`` itself found a frame that is none, and has sent CLOSE for it."""
        handshake = transport.close_handshake.sent
        assert handshake is not None
        code, reason = CloseCode(int(handshake.code)), handshake.reason  # type: ignore[call-overload]
        protocol = self._endpoint.protocol
        if protocol.state is State.OPEN:
            protocol.fail(code, reason)
            protocol.data_to_send()
        if protocol.parser_exc is None:
            too_big = code is CloseCode.MESSAGE_TOO_BIG
            protocol.parser_exc = PayloadTooBig(None, self._endpoint.room()) if too_big else ProtocolError(reason)
        _look_at(transport)


def _copied(frame: WSFrame) -> Frame:
    return Frame(
        Opcode(frame.msg_type.value),
        frame.get_payload_as_bytes(),
        bool(frame.fin),
        bool(frame.rsv1),
        bool(frame.rsv2),
        bool(frame.rsv3),
    )


def _look_at(transport: WSTransport) -> None:
    """Await the exception that ``picows`` keeps for its user, so that it is not reported as never retrieved."""

    async def look() -> None:
        try:
            await transport.wait_disconnected()
        except picows.WSError as exc:
            logger.debug("closed by picows: %s", exc)

    task = asyncio.get_running_loop().create_task(look())
    _looking.add(task)
    task.add_done_callback(_looking.discard)
