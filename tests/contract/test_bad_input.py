"""Whatever a peer writes, the connection ends in an exception that says why, and nothing hangs."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.transport.base import ConnectionClosedError, State
from support.links import Link, end_of, rest_of
from support.rawpeer import BINARY, CLOSE, CONT, FIN, PING, PONG, RSV1, RSV2, RSV3, TEXT, RawPeer

BAD_FRAMES: dict[str, list[tuple[int, bytes, dict[str, Any]]]] = {
    **{f"opcode-{opcode:x}": [(FIN | opcode, b"", {})] for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)},
    **{f"rsv{n}": [(FIN | bit | TEXT, b"x", {})] for n, bit in enumerate((RSV1, RSV2, RSV3), 1)},
    "rsv1-ping": [(FIN | RSV1 | PING, b"", {})],
    "rsv1-continuation": [(TEXT, b"x", {}), (FIN | RSV1 | CONT, b"x", {})],
    "fragmented-ping": [(PING, b"", {})],
    "fragmented-pong": [(PONG, b"", {})],
    "fragmented-close": [(CLOSE, b"\x03\xe8", {})],
    "long-ping": [(FIN | PING, b"x" * 126, {})],
    "long-pong": [(FIN | PONG, b"x" * 126, {})],
    "long-close": [(FIN | CLOSE, b"\x03\xe8" + b"x" * 124, {})],
    "continuation-of-nothing": [(FIN | CONT, b"x", {})],
    "start-of-continuation-of-nothing": [(CONT, b"x", {})],
    "continuation-of-a-whole-message": [(FIN | BINARY, b"whole", {}), (FIN | CONT, b"x", {})],
    "text-inside-a-message": [(BINARY, b"x", {}), (FIN | TEXT, b"x", {})],
    "binary-inside-a-message": [(TEXT, b"x", {}), (FIN | BINARY, b"x", {})],
    "fragment-inside-a-message": [(TEXT, b"x", {}), (TEXT, b"x", {})],
    "close-of-one-byte": [(FIN | CLOSE, b"\x03", {})],
    **{
        f"close-{code}": [(FIN | CLOSE, code.to_bytes(2, "big"), {})]
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}


async def refused(conn: Any, raw: RawPeer) -> tuple[list[Any], ConnectionClosedError, int]:
    """What was delivered, and how the connection ended: for the application and for the peer."""
    messages, error = await rest_of(conn)
    assert isinstance(error, ConnectionClosedError)
    assert conn.state is State.CLOSED
    seen = next(seen for seen in await raw.rest() if seen.opcode == CLOSE)
    return messages, error, seen.close.code


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_frame_that_breaks_the_rules_closes_with_1002(link: Link, name: str) -> None:
    async with link.raw() as (conn, raw):
        for first, payload, how in BAD_FRAMES[name]:
            raw.send(first, payload, **how)
        messages, error, code = await refused(conn, raw)
    assert messages == ([b"whole"] if "whole" in name else [])
    assert code == 1002
    assert "1002 (protocol error)" in str(error)
    assert error.sent is not None
    assert error.sent.code == 1002


async def test_a_frame_with_the_wrong_mask_bit_closes_with_1002(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | TEXT, b"hello", masked=not raw.client)
        messages, _, code = await refused(conn, raw)
    assert (messages, code) == ([], 1002)


async def test_a_close_reason_that_is_not_utf_8_closes_with_1007(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | CLOSE, b"\x03\xe8\xff")
        messages, error, code = await refused(conn, raw)
    assert (messages, code) == ([], 1007)
    assert "1007" in str(error)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_messages_before_the_bad_frame_are_delivered_and_those_behind_are_not(
    link: Link, number: int, together: bool
) -> None:
    good = [f"good {n}" for n in range(number)]
    async with link.raw() as (conn, raw):
        data = b"".join(raw.frame(FIN | TEXT, message.encode()) for message in good)
        raw.write(data)
        if not together:
            await raw.settle()
        raw.write(raw.frame(FIN | 3) + raw.frame(FIN | TEXT, b"late"))
        raw.write(raw.frame(FIN | TEXT, b"later"))
        messages, _, code = await refused(conn, raw)
    assert (messages, code) == (good, 1002)


@pytest.mark.parametrize("width", [2, 8])
@pytest.mark.parametrize("size", [0, 125])
async def test_a_length_may_not_hang_the_connection_because_it_is_longer_than_it_need_be(
    link: Link, size: int, width: int
) -> None:
    async with link.raw() as (conn, raw):
        raw.send(FIN | BINARY, b"x" * size, width=width)
        raw.send(FIN | CLOSE, b"\x03\xe8")
        messages, error = await rest_of(conn)
        await raw.rest()
    if link.transport == "picows":  # refuses what RFC 6455 section 5.2 forbids
        assert messages == []
        assert "1002" in str(error)
    else:  # as websockets, which lets it pass
        assert messages == [b"x" * size]
        assert conn.close_code == 1000


async def test_a_length_beyond_63_bits_is_refused(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.write(bytes([FIN | BINARY, 0xFF if raw.client else 0x7F]) + b"\xff" * 8)
        _, _, code = await refused(conn, raw)
    assert code in {1002, 1009}


async def test_another_protocol_is_refused(link: Link) -> None:
    async with link.raw() as (conn, raw):
        raw.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        messages, _, code = await refused(conn, raw)
    assert (messages, code) == ([], 1002)


def small_stream(raw: RawPeer) -> tuple[bytes, dict[int, Any]]:
    """Frames of every kind, and the messages by the number of bytes after which they are whole."""
    data, whole = b"", {}
    for first, payload, message in (
        (FIN | TEXT, "é".encode(), "é"),
        (FIN | PING, b"?", None),
        (BINARY, b"ab", None),
        (FIN | PONG, b"", None),
        (CONT, b"", None),
        (FIN | CONT, b"c", b"abc"),
        (FIN | BINARY, b"x" * 130, b"x" * 130),
    ):
        data += raw.frame(first, payload)
        if message is not None:
            whole[len(data)] = message
    return data, whole


LONGEST = 180


@pytest.mark.asyncio(loop_factories=["asyncio"])
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_stream_may_be_cut_at_every_byte(link: Link, how: str) -> None:
    for position in range(LONGEST):
        async with link.raw() as (conn, raw):
            data, whole = small_stream(raw)
            assert len(data) <= LONGEST
            raw.write(data[:position])
            if how == "abort":
                whole = {}  # an abort may overtake what was written
            getattr(raw, how)()
            messages, error = await rest_of(conn)
            assert isinstance(error, ConnectionClosedError)
            assert (conn.state, conn.close_code) == (State.CLOSED, 1006)
            if how == "close":
                assert messages == [message for end, message in whole.items() if end <= position]


async def test_a_stream_may_arrive_byte_by_byte(link: Link) -> None:
    async with link.raw() as (conn, raw):
        data, whole = small_stream(raw)
        for position in range(len(data)):
            raw.write(data[position : position + 1])
            if position % 8 == 0:
                await conn.pong(b"so that the loop turns")
        await raw.settle()
        assert [await conn.recv() for _ in whole] == list(whole.values())


several = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@several
@given(garbage=st.binary(min_size=1, max_size=200), before=st.booleans())
async def test_garbage_ends_in_an_exception(link: Link, garbage: bytes, before: bool) -> None:
    async with link.raw(close_timeout=1) as (conn, raw):
        if before:
            raw.send(FIN | TEXT, b"good")
        raw.write(garbage)
        raw.close()
        messages, error = await rest_of(_AsBytes(conn))
    assert conn.state is State.CLOSED
    assert error.rcvd is not None or isinstance(error, ConnectionClosedError)
    if before:
        assert messages[0] == b"good"


class _AsBytes:
    """Receives texts whether they are UTF-8 or not."""

    def __init__(self, conn: Any) -> None:
        self._conn = conn

    async def recv(self) -> Any:
        return await self._conn.recv(decode=False)


frames = st.tuples(
    st.sampled_from([TEXT, BINARY, CONT, PING, PONG, CLOSE, 3, 0xB]),
    st.booleans(),
    st.sampled_from([0, 0, 0, RSV1, RSV2]),
    st.binary(max_size=10),
)


@several
@given(parts=st.lists(frames, min_size=1, max_size=6), decode=st.sampled_from([None, True, False]))
async def test_any_frames_in_any_order_end_in_an_exception(link: Link, parts: list[Any], decode: bool | None) -> None:
    async with link.raw(close_timeout=1) as (conn, raw):
        raw.write(b"".join(raw.frame(op | rsv | (FIN if fin else 0), payload) for op, fin, rsv, payload in parts))
        raw.close()
        error = await end_of(conn if decode is None else _AsBytes(conn))
        await conn.wait_closed()
    assert conn.state is State.CLOSED
    assert error.rcvd is not None or isinstance(error, ConnectionClosedError)
