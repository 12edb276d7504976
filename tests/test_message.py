"""Messages: what they are told by their data, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from penstock import Message, MessageType, MessageTypeError, Priority, SerializationError
from penstock.message import content_of, payload_bytes


@pytest.mark.parametrize(
    ("data", "kind"), [("text", MessageType.TEXT), ("", MessageType.TEXT), (b"bin", MessageType.BINARY)]
)
def test_the_type_of_a_message_is_that_of_its_data(data: str | bytes, kind: MessageType) -> None:
    message = Message(data)
    assert (message.data, message.message_type) == (data, kind)
    assert (message.priority, message.key, message.expires_at) == (Priority.NORMAL, None, None)
    assert Message(data, kind) == message


@pytest.mark.parametrize("make", [bytearray, memoryview])
def test_bytes_that_may_change_are_copied(make: Any) -> None:
    source = bytearray(b"abc")
    message = Message(make(source))
    source[:] = b"xyz"
    assert (message.data, message.message_type) == (b"abc", MessageType.BINARY)


@pytest.mark.parametrize(
    ("data", "kind"),
    [("a", MessageType.BINARY), (b"a", MessageType.TEXT), ("a", MessageType.BATCH), (5, None), (None, None)],
)
def test_data_of_another_type_is_refused(data: Any, kind: Any) -> None:
    with pytest.raises(MessageTypeError, match=type(data).__name__):
        Message(data, kind)


def test_a_batch_is_bytes() -> None:
    assert Message(b"a", MessageType.BATCH).message_type is MessageType.BATCH
    assert Message(bytearray(b"a"), MessageType.BATCH).data == b"a"


def test_a_message_does_not_change() -> None:
    with pytest.raises(AttributeError):
        Message("a").data = "b"


def test_a_subclass_of_str_is_text() -> None:
    class Name(str):
        pass

    assert Message(Name("a")).message_type is MessageType.TEXT


def test_priorities_are_in_order() -> None:
    assert Priority.LOW < Priority.NORMAL < Priority.HIGH < Priority.URGENT


def test_text_and_bytes_of_the_same_letters_are_not_equal() -> None:
    assert content_of(Message("a")) == content_of("a")
    assert content_of(Message("a")) != content_of(Message(b"a"))


@pytest.mark.parametrize(("data", "size"), [("", 0), ("abc", 3), ("ä€😀", 9), (b"\xff\xff", 2)])
def test_the_size_is_that_on_the_wire(data: str | bytes, size: int) -> None:
    assert payload_bytes(data) == size


def test_case_17_a_lone_surrogate_has_no_size() -> None:
    with pytest.raises(SerializationError, match=r"lone surrogate '\\ud800' at position 2"):
        payload_bytes("ab\ud800")
