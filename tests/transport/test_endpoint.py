"""Pings, pongs and the closing handshake, at an end in memory."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.transport.base import CloseCode, ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, Options
from penstock.transport.memory import MemoryEndpoint, pair
from penstock.wire.frames import BINARY, CONTINUATION, FIN, PING, TEXT
from support.ends import NARROW, QUIET, start, steps, within

CLOSE, PONG = 0x8, 0xA


async def write(end: MemoryEndpoint, message: bytes, first: int = FIN | BINARY) -> None:
    end.write(end.frames.one(first, message))
    await steps(3)


def received_by(end: MemoryEndpoint) -> list[tuple[Any, bytes]]:
    """Frames that do not go straight to the inbox, from now on."""
    frames: list[tuple[Any, bytes]] = []
    receive = end.receive

    def receiving(frame: Any) -> None:
        frames.append((frame.opcode.name, bytes(frame.data)))
        receive(frame)

    end.receive = receiving  # type: ignore[method-assign]
    return frames


async def test_a_pong_answers_its_ping_and_all_before_it() -> None:
    client, server = pair(QUIET)
    server.receive = lambda _: None  # type: ignore[method-assign]  # a peer that does not answer
    pongs = [await client.ping(data) for data in ("one", b"two", bytearray(b"three"), None)]
    await write(server, b"never asked", FIN | PONG)
    await steps(3)
    assert not any(pong.done() for pong in pongs)  # type: ignore[attr-defined]
    await write(server, b"two", FIN | PONG)
    assert [pong.done() for pong in pongs] == [True, True, False, False]  # type: ignore[attr-defined]
    assert await within(pongs[0]) >= await within(pongs[1]) >= 0
    assert client.latency == await within(pongs[1])
    client.abort()
    for pong in pongs[2:]:
        with pytest.raises(ConnectionClosedError):
            await within(pong)


async def test_a_ping_with_data_that_is_under_way_is_refused() -> None:
    client, _ = pair(QUIET)
    await client.ping("same")
    with pytest.raises(ConcurrencyError, match="same data"):
        await client.ping(b"same")
    await within(client.close())


@pytest.mark.parametrize("data", [5, [b"x"], object()])
async def test_a_ping_carries_text_or_bytes(data: Any) -> None:
    client, _ = pair(QUIET)
    for call in (client.ping, client.pong):
        with pytest.raises(TypeError):
            await call(data)
    await within(client.close())


async def test_nothing_can_be_asked_on_a_closed_connection() -> None:
    client, _ = pair(QUIET)
    await within(client.close())
    for call in (client.ping, client.pong):
        with pytest.raises(ConnectionClosedOK):
            await within(call())


async def test_pings_are_answered_when_the_socket_takes_data_again_the_latest_of_them() -> None:
    client, server = pair(NARROW)
    frames = received_by(client)
    client.transport.pause_reading()
    await write(server, bytes(2000))
    assert server.blocked
    for number in range(3):
        await write(client, b"%d" % number, FIN | PING)
    client.transport.resume_reading()
    await steps(10)
    assert [frame for frame in frames if frame[0] == "PONG"] == [("PONG", b"2")]
    await within(client.close())


async def test_a_close_frame_whose_reason_is_not_utf_8_is_refused_with_1007() -> None:
    client, server = pair(QUIET)
    await write(client, b"\x03\xe8\xff", FIN | CLOSE)
    await within(server.wait_closed())
    assert client.close_code == CloseCode.INVALID_DATA


@pytest.mark.parametrize("body", [b"\x03", b"\x03\xed", b"\x00\x00"])
async def test_a_close_frame_that_makes_no_sense_is_refused_with_1002(body: bytes) -> None:
    client, server = pair(QUIET)
    await write(client, body, FIN | CLOSE)
    await within(server.wait_closed())
    assert client.close_code == CloseCode.PROTOCOL_ERROR


async def test_a_close_frame_without_a_code_is_answered() -> None:
    client, server = pair(QUIET)
    await write(client, b"", FIN | CLOSE)
    await within(server.wait_closed())
    assert server.close_code == client.close_code == CloseCode.NO_STATUS_RCVD


@pytest.mark.parametrize("first", [FIN | CONTINUATION, CONTINUATION])
async def test_a_continuation_of_nothing_is_refused_with_1002(first: int) -> None:
    client, server = pair(QUIET)
    await write(client, b"?", first)
    await within(server.wait_closed())
    assert client.close_code == CloseCode.PROTOCOL_ERROR


async def test_a_message_within_another_is_refused_with_1002() -> None:
    client, server = pair(QUIET)
    await write(client, b"begun", TEXT)
    await write(client, b"another", FIN | TEXT)
    await within(server.wait_closed())
    assert client.close_code == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("limits", [100, (100, 60), (None, 60)])
async def test_fragments_beyond_the_limit_close_with_1009(limits: Any) -> None:
    client, server = pair(Options(max_size=limits, ping_interval=None))
    await write(client, bytes(50), BINARY)
    await write(client, bytes(61), CONTINUATION)
    with pytest.raises(ConnectionClosedError):
        await within(server.recv())
    await within(client.wait_closed())
    assert client.close_code == CloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize("limit", [1, (None, 1)])
async def test_control_frames_are_not_limited(limit: Any) -> None:
    client, _ = pair(Options(max_size=limit, ping_interval=None))
    assert await within(await client.ping(bytes(125))) >= 0
    await within(client.close(4000, "x" * 123))
    assert client.close_reason == "x" * 123


async def test_fragments_within_the_limit_are_one_message() -> None:
    client, server = pair(Options(max_size=(100, 60), ping_interval=None))
    await write(client, bytes(60), BINARY)
    await write(client, b"a ping between", FIN | PING)
    await write(client, bytes(40), FIN | CONTINUATION)
    assert await within(server.recv()) == bytes(100)
    await within(client.close())


async def test_after_the_peer_s_close_frame_nothing_more_is_taken() -> None:
    client, server = pair(QUIET)
    client.write(client.frames.many(FIN | BINARY, [b"before"]))
    client.write(client.frames.one(FIN | CLOSE, b"\x03\xe8") + client.frames.one(FIN | BINARY, b"after"))
    assert await within(server.recv()) == b"before"
    with pytest.raises(ConnectionClosedOK):
        await within(server.recv())
    await within(client.wait_closed())


@pytest.mark.parametrize("name", ["recv", "recv_many", "recv_streaming"])
async def test_only_one_may_receive(name: str) -> None:
    client, server = pair(QUIET)
    reading = start(server.recv())
    await steps()
    with pytest.raises(ConcurrencyError, match="already running recv"):
        await (anext(server.recv_streaming()) if name == "recv_streaming" else getattr(server, name)())
    await write(client, b"for the first")
    assert await within(reading) == b"for the first"
    await within(client.close())


async def test_the_end_is_seen_however_fast_the_peer_is_gone() -> None:
    client, server = pair(QUIET)

    def fail() -> None:
        raise OSError("not connected")

    server.transport.write_eof = fail  # type: ignore[method-assign]
    await within(client.close())
    await within(server.wait_closed())
    assert server.close_code == client.close_code == CloseCode.NORMAL_CLOSURE


async def test_a_socket_without_a_half_close_is_closed() -> None:
    client, server = pair(QUIET)
    server.transport.can_write_eof = lambda: False  # type: ignore[method-assign]
    await within(client.close())
    await within(server.wait_closed())
    assert server.close_code == client.close_code == CloseCode.NORMAL_CLOSURE


async def test_failing_again_changes_nothing() -> None:
    client, server = pair(QUIET)
    client.fail(4000, "first", LookupError("first"))
    client.fail(4001, "second", LookupError("second"))
    await within(client.wait_closed())
    client.fail(4002, "third")
    assert server.close_code == 4000
    with pytest.raises(ConnectionClosedError) as closed:
        await within(client.recv())
    assert str(closed.value.__cause__) == "first"
