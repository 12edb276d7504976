"""A batch packed into one message, and taken apart again, whatever arrives."""

from __future__ import annotations

import os
import tracemalloc
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import BatchProcessor, Codec, Message, MessageType, Priority, SerializationError
from penstock.wire.compression import compress

payloads = st.lists(st.text(max_size=20) | st.binary(max_size=20), min_size=1, max_size=40)
some_messages = st.lists(
    st.builds(Message, st.sampled_from(["a", "b", b"a", b"b"]), priority=st.sampled_from(Priority)), max_size=30
)


def wire(*fields: Any) -> Message:
    return Message(msgspec.msgpack.encode(fields), MessageType.BATCH)


@pytest.mark.parametrize("codec", list(Codec))
@given(payloads)
def test_what_is_packed_comes_back(codec: Codec, data: list[str | bytes]) -> None:
    batch = BatchProcessor(codec=codec).compress_batch([Message(one) for one in data])
    assert batch.message_type is MessageType.BATCH
    expanded = BatchProcessor().expand_batch(batch)
    assert [message.data for message in expanded] == data
    assert [type(message.data) for message in expanded] == [type(one) for one in data]


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize(("messages", "compressed"), [(9, False), (10, True), (4096, True)])
def test_a_batch_of_ten_or_more_is_compressed(codec: Codec, messages: int, compressed: bool) -> None:
    processor = BatchProcessor(codec=codec)
    batch = processor.compress_batch([Message('{"value": 20.5}')] * messages)
    used, n, raw, body = msgspec.msgpack.decode(batch.data)
    assert used == (codec if compressed else 0)
    assert n == messages
    assert (len(body) < raw) == compressed
    assert len(processor.expand_batch(batch)) == messages


def test_a_batch_that_does_not_shrink_is_stored_and_the_next_not_tried() -> None:
    processor = BatchProcessor()
    noise = [Message(os.urandom(100)) for _ in range(20)]
    zeros = [Message(bytes(100))] * 20
    codecs = [msgspec.msgpack.decode(processor.compress_batch(batch).data)[0] for batch in (noise, zeros, zeros)]
    assert codecs == [0, 0, Codec.ZSTD]


def test_without_compression_a_batch_is_stored() -> None:
    processor = BatchProcessor(compression_enabled=False)
    batch = processor.compress_batch([Message("a")] * 100)
    assert msgspec.msgpack.decode(batch.data)[0] == 0
    assert BatchProcessor().expand_batch(batch) == [Message("a")] * 100


def test_case_16_empty_text_and_binary_survive() -> None:
    processor = BatchProcessor()
    assert processor.expand_batch(processor.compress_batch([Message(""), Message(b"")])) == [Message(""), Message(b"")]


def test_case_16_an_empty_batch_is_not_packed() -> None:
    with pytest.raises(SerializationError, match="no messages; do not send it"):
        BatchProcessor().compress_batch([])


def test_case_17_a_lone_surrogate_is_not_packed() -> None:
    with pytest.raises(SerializationError, match="lone surrogate"):
        BatchProcessor().compress_batch([Message("\ud800")])


def test_a_batch_within_a_batch_is_refused() -> None:
    processor = BatchProcessor()
    with pytest.raises(SerializationError, match="batch within a batch"):
        processor.compress_batch([processor.compress_batch([Message("a")])])


def test_bounds_hold_at_both_ends() -> None:
    small = BatchProcessor(max_messages=3, max_raw_bytes=100)
    large = BatchProcessor()
    for messages, bound in (([Message("a")] * 4, "max_messages=3"), ([Message(bytes(100))], "max_raw_bytes=100")):
        with pytest.raises(SerializationError, match=bound):
            small.compress_batch(messages)
        with pytest.raises(SerializationError, match=bound):
            small.expand_batch(large.compress_batch(messages))


BODY = msgspec.msgpack.encode(["a", b"b"])


@pytest.mark.parametrize(
    "batch",
    [
        Message(b""),
        Message(b"\xff"),
        Message(b"\xdd\xff\xff\xff\xff"),
        Message("text"),
        wire(),
        wire(0, 2, len(BODY)),
        wire(0, 2, len(BODY), BODY, 0),
        wire(0, 2, len(BODY), "text"),
        wire(0, 2, len(BODY) + 1, BODY),
        wire(0, 1, len(BODY), BODY),
        wire(0, 3, len(BODY), BODY),
        wire(0, 0, 1, b"\x90"),
        wire(0, -1, 1, b"\x90"),
        wire(0, 1, 0, b""),
        wire(0, 1, 2, b"\x91\xc0"),
        wire(0, 1, 2, b"\x91\x90"),
        wire(0, 1, 3, b"\x91\xa1\xff"),
        wire(0, 1, 3, b"\x91\xa0x"),
        wire(0, 4096, 5, b"\xdd\0\0\x10\0"),
        wire(0, 2, 10_002, b"\x92\xa0" + b"\x91" * 10_000),
        wire(1, 2, -1, BODY),
        wire(1, 2, len(BODY), BODY),
        wire(2, 2, len(BODY), BODY),
        wire(3, 2, len(BODY), compress(Codec.ZSTD, BODY)),
        wire(2, 2, len(BODY), compress(Codec.ZSTD, BODY) + b"\0"),
        wire(2, 2, len(BODY) - 1, compress(Codec.ZSTD, BODY)),
    ],
    ids=repr,
)
def test_what_is_no_batch_is_refused(batch: Message) -> None:
    with pytest.raises(SerializationError) as refusal:
        BatchProcessor().expand_batch(batch)
    assert refusal.value.what
    assert refusal.value.remedy


@given(st.binary(max_size=300), st.integers(0, 20), st.integers(0, 300), st.integers(0, 3))
def test_garbage_raises_nothing_else(body: bytes, n: int, raw: int, codec: int) -> None:
    for batch in (Message(body), wire(codec, n, raw, body), wire(0, n, len(body), body)):
        with suppress(SerializationError):
            assert all(isinstance(message, Message) for message in BatchProcessor().expand_batch(batch))


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize(
    "body",
    [
        b"\x91" + b"\xdc\xff\xff" + b"\x80" * 0xFFFF + bytes(1 << 22),
        b"\xdd\0\x10\0\0" + b"\x80" * (1 << 20),
        b"\xdc\x10\0" + b"\xdc\x01\0" * 4096 + b"\x90" * (1 << 20),
        bytes(1 << 26),
    ],
    ids=["an array within", "too many items", "arrays within", "zeros"],
)
def test_case_15_a_bomb_takes_no_more_memory_than_the_bounds_allow(codec: Codec, body: bytes) -> None:
    batch = wire(codec, 4096, len(body), compress(codec, body))
    processor = BatchProcessor(max_raw_bytes=8 * 1024 * 1024)
    tracemalloc.start()
    try:
        with pytest.raises(SerializationError):
            processor.expand_batch(batch)
        assert tracemalloc.get_traced_memory()[1] < 20 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_by_default_a_batch_is_left_as_it_is() -> None:
    messages = [Message("a"), Message("a", priority=Priority.URGENT), Message("a")]
    assert BatchProcessor().optimize_batch(iter(messages)) == messages


@given(some_messages)
def test_messages_are_ordered_and_keep_their_order_within_a_level(messages: list[Message]) -> None:
    ordered = BatchProcessor(ordering_enabled=True).optimize_batch(messages)
    for level in Priority:
        kept = [id(message) for message in ordered if message.priority is level]
        assert kept == [id(message) for message in messages if message.priority is level]
    assert [message.priority for message in ordered] == sorted((m.priority for m in messages), reverse=True)


@given(some_messages, st.booleans())
def test_of_equal_messages_the_first_is_kept(messages: list[Message], ordering: bool) -> None:
    kept = BatchProcessor(deduplication_enabled=True, ordering_enabled=ordering).optimize_batch(messages)
    ordered = BatchProcessor(ordering_enabled=ordering).optimize_batch(messages)
    contents = [(message.message_type, message.data) for message in kept]
    assert len(set(contents)) == len(contents)
    assert set(contents) == {(message.message_type, message.data) for message in messages}
    firsts = {(m.message_type, m.data): id(m) for m in reversed(ordered)}
    assert [id(message) for message in kept] == [firsts[content] for content in contents]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("compression_enabled", 1),
        ("deduplication_enabled", None),
        ("ordering_enabled", "yes"),
        ("codec", 0),
        ("codec", 3),
        ("codec", "zstd"),
        ("max_messages", 0),
        ("max_messages", 4097),
        ("max_messages", 1.5),
        ("max_raw_bytes", 0),
        ("max_raw_bytes", 1 << 32),
        ("dedup_window", -1),
        ("dedup_window", "1"),
        ("ageing", float("nan")),
    ],
)
def test_nonsense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}=.*must be") as refusal:
        BatchProcessor(**{field: value})
    assert repr(value) in str(refusal.value)
