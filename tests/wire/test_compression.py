"""Compressed bodies: exactly what was said, whatever the peer sends, in bounded memory."""

from __future__ import annotations

import threading
import tracemalloc
import zlib
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from penstock.wire.compression import AVAILABLE, BadCompression, Codec, Trials, compress, decompress

BODY = b"".join(b'{"sensor": %d, "value": 20.5}' % number for number in range(2000))
BOMB = bytes(256 * 1024 * 1024)
every_codec = pytest.mark.parametrize("codec", list(Codec), ids=lambda codec: codec.name)


def undeclared(data: bytes, **parameters: int) -> bytes:
    """A zstd frame that does not say how long its content is."""
    parameters = {"compression_level": 1, **parameters}
    level = parameters.pop("compression_level")
    settings = zstandard.ZstdCompressionParameters.from_level(level, write_content_size=False, **parameters)
    return zstandard.ZstdCompressor(compression_params=settings).compress(data)


def zlib_bomb() -> bytes:
    return zlib.compress(BOMB, 1)


def zstd_bomb() -> bytes:
    return compress(Codec.ZSTD, BOMB)


def undeclared_zstd_bomb() -> bytes:
    return undeclared(BOMB)


@every_codec
@given(data=st.binary(max_size=1000), repeated=st.integers(1, 50))
def test_what_is_compressed_comes_back(codec: Codec, data: bytes, repeated: int) -> None:
    body = data * repeated
    assert decompress(codec, compress(codec, body), len(body)) == body
    assert decompress(codec, memoryview(compress(codec, body)), len(body)) == body


@every_codec
def test_a_body_shrinks(codec: Codec) -> None:
    assert codec in AVAILABLE
    assert len(compress(codec, BODY)) < len(BODY) / 4


def test_a_frame_that_does_not_say_its_size_is_understood() -> None:
    assert decompress(Codec.ZSTD, undeclared(BODY), len(BODY)) == BODY


@every_codec
@pytest.mark.parametrize("size", [0, 1, len(BODY) - 1, len(BODY) + 1, 1 << 24])
def test_another_size_than_was_said_is_refused(codec: Codec, size: int) -> None:
    for data in {compress(codec, BODY), compress(codec, BODY) if codec is Codec.ZLIB else undeclared(BODY)}:
        with pytest.raises(BadCompression):
            decompress(codec, data, size)


@every_codec
@given(cut=st.integers(0, len(compress(Codec.ZSTD, BODY)) - 1))
def test_a_truncated_body_is_refused(codec: Codec, cut: int) -> None:
    with pytest.raises(BadCompression):
        decompress(codec, compress(codec, BODY)[:cut], len(BODY))


@every_codec
@pytest.mark.parametrize("body", [b"", BODY])
@pytest.mark.parametrize("more", [b"\0", b"trailing", None])
def test_what_trails_is_refused_be_it_a_second_frame(codec: Codec, body: bytes, more: bytes | None) -> None:
    data = compress(codec, body)
    with pytest.raises(BadCompression):
        decompress(codec, data + (data if more is None else more), len(body))
    with pytest.raises(BadCompression):
        decompress(codec, data + (data if more is None else more), 2 * len(body))


@every_codec
@given(st.binary(max_size=200), st.integers(0, 1000))
def test_garbage_is_refused(codec: Codec, data: bytes, size: int) -> None:
    for start in (b"", b"\x28\xb5\x2f\xfd", b"\x78\x01"):
        with suppress(BadCompression):
            assert len(decompress(codec, start + data, size)) == size


def test_a_skippable_frame_is_none() -> None:
    skippable = b"\x50\x2a\x4d\x18\x02\0\0\0ab"
    for data in (skippable, skippable + compress(Codec.ZSTD, b"ab")):
        with pytest.raises(BadCompression, match="no zstd frame"):
            decompress(Codec.ZSTD, data, 2)


@pytest.mark.parametrize("codec", [0, 3, 4])
def test_an_unknown_codec_is_refused(codec: int) -> None:
    with pytest.raises(BadCompression, match=f"codec {codec} is unknown"):
        decompress(Codec(codec), b"", 0)
    with pytest.raises(BadCompression, match=f"codec {codec} is unknown"):
        compress(Codec(codec), b"")


@pytest.mark.parametrize(
    ("codec", "make"), [(Codec.ZLIB, zlib_bomb), (Codec.ZSTD, zstd_bomb), (Codec.ZSTD, undeclared_zstd_bomb)]
)
def test_case_15_a_bomb_takes_no_more_memory_than_its_body_was_said_to(codec: Codec, make: object) -> None:
    bomb = make()  # type: ignore[operator]
    size = 64 * 1024
    tracemalloc.start()
    try:
        with pytest.raises(BadCompression):
            decompress(codec, bomb, size)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(bomb) + 4 * size
    finally:
        tracemalloc.stop()


def test_case_15_a_window_larger_than_8_mib_is_refused() -> None:
    body = bytes(16 * 1024 * 1024)
    compressor = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters.from_level(1, window_log=27)
    ).compressobj()
    frame = compressor.compress(body) + compressor.flush()
    assert zstandard.get_frame_parameters(frame).window_size > 8 * 1024 * 1024
    with pytest.raises(BadCompression, match="memory"):
        decompress(Codec.ZSTD, frame, len(body))
    assert decompress(Codec.ZSTD, compress(Codec.ZSTD, body), len(body)) == body


def test_threads_do_not_get_in_each_other_s_way() -> None:
    failures = []

    def work(number: int) -> None:
        body = BODY + b"%d" % number
        if any(decompress(Codec.ZSTD, compress(Codec.ZSTD, body), len(body)) != body for _ in range(50)):
            failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_few_messages_are_not_worth_compressing() -> None:
    trials = Trials()
    assert not trials.may_try(9)
    assert trials.may_try(10)


def test_after_failures_it_is_tried_less_and_less_often() -> None:
    trials = Trials()
    pauses = []
    for _ in range(9):
        assert not trials.tried(1000, 990)
        pauses.append(0)
        while not trials.may_try(10):
            pauses[-1] += 1
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_a_success_starts_over() -> None:
    trials = Trials()
    for _ in range(3):
        trials.tried(1000, 1001)
    assert trials.tried(1000, 500)
    trials.tried(1000, 1001)
    assert [trials.may_try(10) for _ in range(3)] == [False, True, True]


def test_a_pause_is_not_over_sooner_for_small_batches() -> None:
    trials = Trials()
    trials.tried(1000, 1000)
    assert [trials.may_try(messages) for messages in (5, 5, 10, 10)] == [False, False, False, True]


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_what_is_used_is_smaller(raw: int, compressed: int) -> None:
    assert Trials().tried(raw, compressed) == (compressed < raw and raw - compressed >= raw // 16)
