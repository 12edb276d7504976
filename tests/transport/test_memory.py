"""The pipe in memory behaves like a socket, and its two ends like any others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.transport.base import CloseCode, ConnectionClosedError, ConnectionClosedOK, Options, ProtocolError, State
from penstock.transport.memory import CHUNK_BYTES, MemoryEndpoint, Pipe, pair
from penstock.wire.frames import BINARY, FIN, RSV1, TEXT
from support.ends import QUIET, start, steps, within


class Reader:
    """Stands in for an endpoint above a pipe."""

    def __init__(self) -> None:
        self.data, self.sizes, self.events = b"", list[int](), list[str]()

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.sizes.append(len(data))

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def lost(self) -> None:
        self.events.append("lost")


def pipes() -> tuple[Pipe, Pipe]:
    loop = asyncio.get_running_loop()
    one, other = Pipe(loop), Pipe(loop)
    one.peer, other.peer = other, one
    for pipe in (one, other):
        pipe.endpoint = Reader()  # type: ignore[assignment]
    return one, other


def above(pipe: Pipe) -> Any:
    return pipe.endpoint


async def write(end: MemoryEndpoint, message: bytes, first: int = FIN | BINARY) -> None:
    end.write(end.frames.one(first, message))


async def test_bytes_come_out_at_the_other_end_and_not_before_the_loop_turns() -> None:
    one, other = pipes()
    one.write(b"abc")
    one.write(bytearray(b"def"))
    one.write(memoryview(b"ghi"))
    assert above(other).data == b""
    await steps(4)
    assert above(other).data == b"abcdefghi"
    assert one.get_write_buffer_size() == 0


async def test_what_is_written_is_copied() -> None:
    one, other = pipes()
    data = bytearray(b"abc")
    one.write(data)
    data[:] = b"xyz"
    await steps(3)
    assert above(other).data == b"abc"


async def test_a_read_brings_a_chunk_at_most() -> None:
    one, other = pipes()
    one.write(bytes(3 * CHUNK_BYTES - 1))
    await steps(6)
    assert above(other).sizes == [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES - 1]


async def test_a_full_buffer_pauses_writing_and_an_emptier_one_resumes_it() -> None:
    one, other = pipes()
    one.set_write_buffer_limits(100)
    other.pause_reading()
    one.write(bytes(100))
    assert above(one).events == []
    one.write(b"!")
    one.write(b"!")
    assert above(one).events == ["pause"]
    assert one.get_write_buffer_size() == 102
    await steps(3)
    assert above(other).data == b""
    other.resume_reading()
    await steps(5)
    assert above(one).events == ["pause", "resume"]


async def test_lower_limits_pause_at_once() -> None:
    one, other = pipes()
    other.pause_reading()
    one.write(b"abc")
    one.set_write_buffer_limits(0, 0)
    assert above(one).events == ["pause"]
    one.set_write_buffer_limits()
    assert above(one).events == ["pause", "resume"]


async def test_closing_delivers_what_is_buffered_and_ends_both_directions() -> None:
    one, other = pipes()
    one.write(b"last")
    one.close()
    one.write(b"too late")
    assert one.is_closing()
    await steps(6)
    assert above(other).data == b"last"
    assert above(one).events == above(other).events == ["lost"]


async def test_aborting_drops_what_is_buffered() -> None:
    one, other = pipes()
    one.write(b"dropped")
    one.abort()
    await steps(6)
    assert above(other).data == b""
    assert above(one).events == above(other).events == ["lost"]


async def test_an_abort_ends_this_end_even_if_the_other_does_not_read() -> None:
    one, other = pipes()
    other.pause_reading()
    one.write(bytes(10))
    await steps(2)
    one.abort()
    await steps(6)
    assert above(one).events == ["lost"]


async def test_writing_to_a_dead_peer_gets_nowhere_and_harms_nothing() -> None:
    one, other = pipes()
    other.abort()
    one.write(b"on its way")
    await steps(6)
    one.write(b"too late")
    await steps(3)
    assert above(other).data == b""
    assert one.get_write_buffer_size() == 0
    assert above(one).events == ["lost"]


async def test_a_pipe_names_itself() -> None:
    one, _ = pipes()
    assert one.get_extra_info("peername") == one.get_extra_info("sockname") == "memory"
    assert one.get_extra_info("ssl_object") is None
    assert one.get_extra_info("ssl_object", 1) == 1
    assert one.can_write_eof()


async def test_the_ends_of_a_pair_are_open_and_connected() -> None:
    client, server = pair()
    assert client.state is server.state is State.OPEN
    assert client.frames.masked
    assert not server.frames.masked
    assert client.remote_address == server.local_address == "memory"
    await write(client, b"to the server")
    await write(server, b"to the client")
    assert await within(server.recv()) == b"to the server"
    assert await within(client.recv()) == b"to the client"
    await within(client.close())


async def test_a_pair_closes_in_order() -> None:
    client, server = pair()
    await write(client, b"before")
    await within(client.close(4000, "done"))
    await within(server.wait_closed())
    assert await within(server.recv()) == b"before"
    with pytest.raises(ConnectionClosedError) as closed:
        await within(server.recv())
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "done")
    assert client.close_code == server.close_code == 4000
    with pytest.raises(ConnectionClosedError):
        await within(client.recv())


async def test_a_normal_closure_is_no_error() -> None:
    client, server = pair()
    waiting = start(client.recv())
    await steps()
    await within(server.close())
    with pytest.raises(ConnectionClosedOK):
        await within(waiting)


async def test_an_aborted_end_is_seen_as_a_lost_connection() -> None:
    client, server = pair()
    client.abort(OSError("cable cut"))
    await within(client.wait_closed())
    await within(server.wait_closed())
    assert server.close_code == client.close_code == CloseCode.ABNORMAL_CLOSURE
    with pytest.raises(ConnectionClosedError) as closed:
        await within(client.recv())
    assert str(closed.value.__cause__) == "cable cut"


@settings(max_examples=30, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=40) | st.sampled_from([bytes(200), bytes(70_000)]), max_size=12),
    cuts=st.lists(st.integers(1, 50_000), min_size=1, max_size=8),
)
async def test_frames_are_found_wherever_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    client, server = pair(QUIET)
    data = client.frames.many(FIN | BINARY, payloads)
    position = turn = 0
    while position < len(data):
        size = cuts[turn % len(cuts)]
        server.data_received(data[position : position + size])
        position, turn = position + size, turn + 1
    assert [await within(server.recv()) for _ in payloads] == payloads
    client.transport.abort()
    await within(server.wait_closed())


async def test_a_frame_beyond_the_limit_closes_with_1009() -> None:
    client, server = pair(Options(max_size=100, ping_interval=None))
    await write(client, bytes(101))
    with pytest.raises(ConnectionClosedError) as closed:
        await within(server.recv())
    assert closed.value.sent is not None
    assert closed.value.sent.code == CloseCode.MESSAGE_TOO_BIG
    await within(client.wait_closed())
    assert client.close_code == CloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize("client_breaks_the_rules", [True, False])
async def test_a_frame_that_breaks_the_rules_closes_with_1002(client_breaks_the_rules: bool) -> None:
    client, server = pair(QUIET)
    guilty, other = (client, server) if client_breaks_the_rules else (server, client)
    await write(guilty, b"compressed?", FIN | RSV1 | TEXT)
    await write(guilty, b"ignored")
    with pytest.raises(ConnectionClosedError) as closed:
        await within(other.recv())
    assert closed.value.sent is not None
    assert closed.value.sent.code == CloseCode.PROTOCOL_ERROR
    await within(guilty.wait_closed())


async def test_a_frame_of_the_wrong_side_closes_with_1002() -> None:
    client, server = pair(QUIET)
    client.write(server.frames.one(FIN | TEXT, b"not masked"))
    await within(client.wait_closed())
    assert client.close_code == CloseCode.PROTOCOL_ERROR


async def test_text_that_is_not_utf_8_closes_with_1007() -> None:
    client, server = pair(QUIET)
    await write(client, b"\xff", FIN | TEXT)
    with pytest.raises(ConnectionClosedError):
        await within(server.recv())
    await within(client.wait_closed())
    assert client.close_code == CloseCode.INVALID_DATA


async def test_pings_are_answered_with_their_latency() -> None:
    client, server = pair(QUIET)
    latency = await within(await client.ping(b"are you there"))
    assert 0 <= latency < 5
    assert client.latency == latency
    await within(server.close())


async def test_reading_pauses_when_messages_are_not_received() -> None:
    client, server = pair(Options(max_queue=4, ping_interval=None))
    for number in range(100):
        await write(client, bytes([number]))
        await steps(2)
    assert client.transport.get_write_buffer_size() > 0
    assert [await within(server.recv()) for _ in range(100)] == [bytes([number]) for number in range(100)]
    await within(client.close())
    await within(server.wait_closed())


async def test_extensions_cannot_be_had_without_a_handshake() -> None:
    with pytest.raises(ValueError, match="no handshake"):
        pair(Options(compression="deflate"))


async def test_a_ping_that_was_refused_is_not_waited_for() -> None:
    client, _ = pair(QUIET)
    for _ in range(2):
        with pytest.raises(ProtocolError):
            await client.ping(b"x" * 126)
    assert await within(await client.ping()) >= 0
    await client.close()
