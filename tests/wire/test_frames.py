"""Frames are what RFC 6455 says, and each from a client has a key of its own."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import count
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.utils import apply_mask

from penstock.transport import base
from penstock.transport.base import frames_of
from penstock.wire.frames import BINARY, CONTINUATION, FIN, PING, RSV1, TEXT, ClientFrames, Frames, ServerFrames
from support.wire import masks, parse, payloads

BOUNDARIES = [0, 1, 124, 125, 126, 127, 4095, 4096, 65_534, 65_535, 65_536, 65_537]

sizes = st.one_of(st.sampled_from(BOUNDARIES), st.integers(0, 300))
messages = st.lists(
    sizes.flatmap(lambda size: st.binary(min_size=1, max_size=1).map(lambda byte: byte * size)), max_size=8
)
firsts = st.sampled_from([FIN | TEXT, FIN | BINARY, TEXT, BINARY, CONTINUATION, FIN | CONTINUATION])


def counting() -> Iterator[bytes]:
    return (number.to_bytes(4) for number in count(0x01020304))


def of(*, client: bool) -> Frames:
    return ClientFrames(counting(), apply_mask) if client else ServerFrames()


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("size", BOUNDARIES)
def test_a_payload_of_every_size_class_survives(size: int, client: bool) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    (frame,) = parse(of(client=client).one(FIN | BINARY, payload), masked=client)
    assert frame.fin
    assert frame.opcode is Opcode.BINARY
    assert frame.data == payload


@pytest.mark.parametrize(("size", "head"), [(125, 2), (126, 4), (65_535, 4), (65_536, 10)])
def test_the_length_takes_no_more_bytes_than_it_needs(size: int, head: int) -> None:
    payload = bytes(size)
    assert len(ServerFrames().one(FIN | BINARY, payload)) == head + size
    assert len(of(client=True).one(FIN | BINARY, payload)) == head + 4 + size


@pytest.mark.parametrize("client", [True, False])
@settings(max_examples=60, deadline=None)
@given(batch=messages, first=firsts)
def test_many_frames_are_those_of_each_payload_one_after_the_other(
    client: bool, batch: list[bytes], first: int
) -> None:
    one_by_one = of(client=client)
    expected = b"".join(one_by_one.one(first, payload) for payload in batch)
    assert of(client=client).many(first, batch) == expected


@pytest.mark.parametrize("client", [True, False])
@settings(max_examples=60, deadline=None)
@given(batch=messages)
def test_a_peer_reads_back_the_payloads(client: bool, batch: list[bytes]) -> None:
    assert payloads(of(client=client).many(FIN | BINARY, batch), masked=client) == batch


@pytest.mark.parametrize("client", [True, False])
def test_the_first_byte_is_carried_as_it_is(client: bool) -> None:
    for first in (
        FIN | TEXT,
        FIN | BINARY,
        TEXT,
        BINARY,
        CONTINUATION,
        FIN | CONTINUATION,
        FIN | PING,
        FIN | RSV1 | TEXT,
    ):
        assert of(client=client).one(first, b"x")[0] == first


def test_only_a_client_masks() -> None:
    assert ClientFrames.masked
    assert not ServerFrames.masked
    assert of(client=True).one(FIN | TEXT, b"plain")[1] & 0x80
    assert ServerFrames().one(FIN | TEXT, b"plain") == b"\x81\x05plain"


def test_no_frames_are_no_bytes() -> None:
    assert of(client=True).many(FIN | TEXT, []) == b""
    assert of(client=False).many(FIN | TEXT, []) == b""


def test_each_frame_takes_the_next_mask() -> None:
    frames, expected = of(client=True), counting()
    assert masks(frames.one(FIN | BINARY, b"abc"), [3]) == [next(expected)]
    assert masks(frames.many(FIN | BINARY, [b"", b"ab", bytes(200)]), [0, 2, 200]) == [next(expected) for _ in range(3)]
    assert masks(frames.one(FIN | BINARY, b""), [0]) == [next(expected)]


def test_masks_never_repeat_in_practice() -> None:
    loop = asyncio.new_event_loop()
    frames = frames_of(client=True, loop=loop)
    loop.close()
    drawn = masks(frames.many(FIN | BINARY, [b"x"] * 100), [1] * 100) + masks(frames.one(FIN | BINARY, b"x"), [1])
    assert len(set(drawn)) == 101


async def test_masks_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def urandom(size: int) -> bytes:
        asked.append(size)
        return len(asked).to_bytes(4) * (size // 4)

    loop = asyncio.new_event_loop()
    monkeypatch.setattr(base.os, "urandom", urandom)
    frames = frames_of(client=True, loop=loop)
    keys_of_a_draw = 1024
    data = frames.many(FIN | BINARY, [b""] * (keys_of_a_draw + 1))
    monkeypatch.undo()
    loop.close()
    assert masks(data, [0] * (keys_of_a_draw + 1)) == [b"\0\0\0\1"] * keys_of_a_draw + [b"\0\0\0\2"]
    assert asked == [4096, 4096]


def test_connections_of_one_loop_draw_from_one_series_and_other_loops_do_not() -> None:
    loops = asyncio.new_event_loop(), asyncio.new_event_loop()
    mine, too, other = (frames_of(client=True, loop=loop) for loop in (loops[0], loops[0], loops[1]))
    drawn = [frames.one(FIN | BINARY, b"")[2:] for frames in (mine, too, other) for _ in range(20)]
    for loop in loops:
        loop.close()
    assert len(set(drawn)) == 60
    assert mine._masks is too._masks
    assert mine._masks is not other._masks


def test_threads_do_not_share_masks() -> None:
    drawn: list[list[bytes]] = []

    async def draw() -> None:
        frames = frames_of(client=True, loop=asyncio.get_running_loop())
        drawn.append([frames.one(FIN | BINARY, b"")[2:] for _ in range(50)])

    threads = [Thread(target=lambda: asyncio.run(draw())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({key for keys in drawn for key in keys}) == 150


def test_the_masks_of_a_loop_go_with_it() -> None:
    loop = asyncio.new_event_loop()
    frames_of(client=True, loop=loop)
    assert loop in base._masks
    loop.close()
    before = len(base._masks)
    del loop
    assert len(base._masks) == before - 1


def test_forked_processes_do_not_share_masks() -> None:
    program = textwrap.dedent("""
        import asyncio, json, os
        from penstock.transport.base import frames_of

        async def draw():
            frames = frames_of(client=True, loop=asyncio.get_running_loop())
            return [frames.one(0x82, b"")[2:].hex() for _ in range(50)]

        before = asyncio.run(draw())
        receiver, sender = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(sender, json.dumps(asyncio.run(draw())).encode())
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps([before, asyncio.run(draw()), json.loads(os.read(receiver, 65536))]))
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    drawn = json.loads(done.stdout)
    assert len({key for keys in drawn for key in keys}) == 150
